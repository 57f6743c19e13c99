//! Desired state and what is in use → the contents of every map. Pure.

pub mod image;
