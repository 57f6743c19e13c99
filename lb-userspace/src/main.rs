//! The command `naru`.
#![forbid(unsafe_code)]

fn main() {}
