//! How many services a node has, and how many backends each.

use std::{
    fmt::{self, Display, Formatter},
    str::FromStr,
};

use crate::net::BACKENDS;

/// So many services with so many backends each, none of which two services share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    pub(crate) services: u32,
    pub(crate) backends: u32,
}

/// Services that packets go to; others are only there.
const ASKED: u32 = 10;
/// What the neighbour tables and the networks of a measured node have room for.
const MOST: u32 = 100_000;

// === impl Shape ===

impl Shape {
    /// One service, as where flows alone are counted.
    pub(crate) const ONE: Self = Self {
        services: 1,
        backends: BACKENDS,
    };

    /// How many services packets go to, the first ones.
    pub(crate) const fn asked(self) -> u32 {
        if self.services < ASKED {
            self.services
        } else {
            ASKED
        }
    }

    /// How many backends those have.
    pub(crate) const fn reached(self) -> u32 {
        self.asked() * self.backends
    }
}

impl Display for Shape {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}", self.services, self.backends)
    }
}

impl FromStr for Shape {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.split_once(['x', '×']);
        let parts = parts.map(|(services, backends)| (services.parse(), backends.parse()));
        match parts {
            Some((Ok(services), Ok(backends)))
                if services > 0
                    && backends > 0
                    && u64::from(services) * u64::from(backends) <= MOST.into() =>
            {
                Ok(Self { services, backends })
            }
            _ => Err(format!("SERVICESxBACKENDS, {MOST} backends in all at most")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shape_is_read_as_it_is_written() {
        let shape = |text: &str| text.parse::<Shape>();
        let many = shape("10000x10").map(|it| (it.asked(), it.reached(), it.to_string()));
        assert_eq!(many, Ok((10, 100, "10000x10".to_owned())));
        assert_eq!(shape("1×100"), Ok(Shape::ONE));
        assert!(
            ["10", "0x10", "10000x11", "65536x65537"]
                .map(shape)
                .iter()
                .all(Result::is_err)
        );
    }
}
