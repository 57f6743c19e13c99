//! Links, addresses and routes of this network namespace, through netlink.
