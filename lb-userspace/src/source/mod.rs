//! Where services come from: manifests, a configuration file, flags.
