//! The checksums in a frame: where they stand, and what they should be.
//!
//! Data with their checksum add up to a multiple of 65,535. What they are off by is what a
//! rewriter has to keep: a right checksum stays right, and a broken packet broken.

use std::{iter, ops::Range};

use lb_common::{Family, Protocol};

use crate::{
    headers::{Fragment, Headers, Payload},
    wire::{checksum, get16, put16, sum},
};

const MODULUS: u32 = 0xffff;

/// A checksum in a frame.
pub(crate) struct Sum {
    /// Where it stands.
    pub(crate) field: usize,
    /// What it covers, itself included.
    covered: Vec<Range<usize>>,
    /// What it covers beside that: protocol and length of a pseudo-header.
    constant: u32,
    /// UDP's: 0 is none.
    optional: bool,
}

impl Sum {
    /// Whether the packet has this checksum.
    pub(crate) fn is_there(&self, bytes: &[u8]) -> bool {
        !self.optional || get16(bytes, self.field) != 0
    }

    /// By how much it is wrong; 0 where it is right.
    pub(crate) fn error(&self, bytes: &[u8]) -> u32 {
        let data: u32 = self.covered.iter().map(|at| sum(&bytes[at.clone()])).sum();
        (self.constant + data) % MODULUS
    }

    /// Makes it right.
    fn repair(&self, bytes: &mut [u8]) {
        if !self.is_there(bytes) {
            return;
        }
        put16(bytes, self.field, 0);
        let right = match checksum(self.error(bytes)) {
            0 if self.optional => 0xffff,
            right => right,
        };
        put16(bytes, self.field, right);
    }

    fn blank(&self, bytes: &mut [u8]) {
        put16(bytes, self.field, 0);
    }
}

/// The checksums of a frame with these headers, those within what another covers first.
pub(crate) fn all(bytes: &[u8], headers: &Headers) -> Vec<Sum> {
    let (l3, l4, end) = (headers.l3(), headers.l4(), headers.end());
    let family = headers.tuple.family();
    let mut sums = Vec::new();
    if headers.payload == Payload::Error {
        quoted(headers, &mut sums);
    }
    let (offset, optional) = match headers.payload {
        Payload::Ports if headers.fragment == Fragment::Later => (None, false),
        Payload::Ports => place(headers.tuple.protocol),
        Payload::Echo | Payload::Error => (Some(2), false),
        _ => (None, false),
    };
    if let Some(offset) = offset {
        // What follows a datagram shorter than its packet is not covered.
        let len = match optional {
            true => usize::from(get16(bytes, l4 + 4)).min(end - l4),
            false => end - l4,
        };
        let has_pseudo_header = headers.payload == Payload::Ports || family == Family::V6;
        let pseudo_header = has_pseudo_header.then(|| addresses(l3, family));
        let constant = u32::from(headers.tuple.protocol) + len as u32;
        sums.push(Sum {
            field: l4 + offset,
            covered: iter::once(l4..l4 + len).chain(pseudo_header).collect(),
            constant: if has_pseudo_header { constant } else { 0 },
            optional,
        });
    }
    if family == Family::V4 {
        sums.push(header(l3, l4));
    }
    sums
}

/// Makes all of them right.
pub(crate) fn repair(bytes: &mut [u8], sums: &[Sum]) {
    for sum in sums {
        sum.repair(bytes);
    }
}

/// Holds what became of a frame against what should have: the bytes of `expected`, but for
/// checksums, and those off by as much as in `before`.
#[track_caller]
pub(crate) fn compare(before: &[u8], expected: &[u8], after: &[u8], sums: &[Sum]) {
    let (mut expected, mut rest) = (expected.to_vec(), after.to_vec());
    for sum in sums {
        assert_eq!(
            sum.is_there(before),
            sum.is_there(after),
            "checksum at {}: {before:02x?} became {after:02x?}",
            sum.field
        );
        if sum.is_there(before) {
            assert_eq!(
                sum.error(before),
                sum.error(after),
                "error of the checksum at {}: {before:02x?} became {after:02x?}",
                sum.field
            );
        }
        sum.blank(&mut expected);
        sum.blank(&mut rest);
    }
    assert_eq!(expected, rest, "bytes beside the checksums");
}

/// Those of a quoted packet. Of its payload not all is there: addresses, ports and the
/// checksum must keep their sum.
fn quoted(headers: &Headers, sums: &mut Vec<Sum>) {
    let (l3, l4) = (headers.quoted_l3(), headers.quoted_l4());
    let family = headers.quoted.family();
    let (offset, optional) = place(headers.quoted.protocol);
    if let Some(offset) = offset
        && l4 + offset + 2 <= headers.end()
    {
        let field = l4 + offset;
        sums.push(Sum {
            field,
            covered: vec![addresses(l3, family), l4..l4 + 4, field..field + 2],
            constant: 0,
            optional,
        });
    }
    if family == Family::V4 {
        sums.push(header(l3, l4));
    }
}

fn header(l3: usize, l4: usize) -> Sum {
    Sum {
        field: l3 + 10,
        covered: vec![l3..l4; 1],
        constant: 0,
        optional: false,
    }
}

fn addresses(l3: usize, family: Family) -> Range<usize> {
    match family {
        Family::V4 => l3 + 12..l3 + 20,
        Family::V6 => l3 + 8..l3 + 40,
    }
}

/// Where a transport header has its checksum, and whether it may be left out.
fn place(protocol: u8) -> (Option<usize>, bool) {
    match Protocol::from_number(protocol) {
        Some(Protocol::Tcp) => (Some(16), false),
        Some(Protocol::Udp) => (Some(6), true),
        // SCTP's covers neither addresses nor anything else that changes.
        Some(Protocol::Sctp) | None => (None, false),
    }
}
