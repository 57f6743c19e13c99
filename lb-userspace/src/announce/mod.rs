//! Claims virtual IPs on the LAN: answers ARP and announces takeovers.
