//! The tutorials, as they are written: their objects, their `kubectl`, real clients, and requests
//! that go on throughout.

mod ingress;
mod load;
mod pools;
mod replicas;
mod sticky;
mod updates;
