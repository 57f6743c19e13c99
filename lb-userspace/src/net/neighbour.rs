//! Neighbours whose link addresses the kernel keeps.

use std::net::IpAddr;

use rtnetlink::{
    NeighbourAddRequest,
    packet_route::neighbour::{
        NeighbourAddress, NeighbourAttribute, NeighbourExtFlags, NeighbourFlags, NeighbourMessage,
        NeighbourState,
    },
};

/// Whether a neighbour's link address is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// It is, or was a moment ago.
    Yes,
    /// It is being asked for.
    Asked,
    /// It does not answer.
    Silent,
}

/// An entry of the kernel's.
pub(super) struct Entry {
    /// The interface's index, and the address.
    pub(super) key: (u32, IpAddr),
    pub(super) known: Known,
    /// It is being asked whether it is still there.
    pub(super) probed: bool,
    /// It stays as it is: by hand, or since the kernel was asked to keep it so.
    pub(super) kept: bool,
    /// Its link address, where the kernel would ask whether that is right if it sent there itself.
    pub(super) stale: Option<[u8; 6]>,
}

/// Reads an entry.
pub(super) fn entry(message: &NeighbourMessage) -> Option<Entry> {
    let managed = message.attributes.iter().any(|attribute| match attribute {
        NeighbourAttribute::ExtFlags(flags) => flags.contains(NeighbourExtFlags::Managed),
        _ => false,
    });
    let known = match message.header.state {
        NeighbourState::Failed => Known::Silent,
        NeighbourState::None | NeighbourState::Incomplete => Known::Asked,
        _ => Known::Yes,
    };
    let by_hand = matches!(
        message.header.state,
        NeighbourState::Permanent | NeighbourState::Noarp
    );
    let addr = message
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(ip)) => Some(IpAddr::V4(*ip)),
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(ip)) => Some(IpAddr::V6(*ip)),
            _ => None,
        })?;
    let link = message
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            NeighbourAttribute::LinkLayerAddress(link) => link.as_slice().try_into().ok(),
            _ => None,
        });
    Some(Entry {
        stale: link.filter(|_| message.header.state == NeighbourState::Stale),
        key: (message.header.ifindex, addr),
        known,
        probed: message.header.state == NeighbourState::Probe,
        kept: managed || by_hand,
    })
}

/// Makes a request for a neighbour one to ask it, now, whether it is still there: it is given
/// up within three seconds where it is not. The kernel does not keep it from then on.
pub(super) fn doubted(mut request: NeighbourAddRequest) -> NeighbourAddRequest {
    request.message_mut().header.state = NeighbourState::Probe;
    request
}

/// Makes a request for a neighbour one to take note that somebody sends there: the kernel asks for
/// its link address where it has not been heard of for a while, as if it sent something itself.
pub(super) fn used(mut request: NeighbourAddRequest) -> NeighbourAddRequest {
    let message = request.message_mut();
    message.header.state = NeighbourState::None;
    message.header.flags = NeighbourFlags::Use;
    request
}

/// Makes a request for a neighbour one to resolve it now and for good.
pub(super) fn managed(request: NeighbourAddRequest) -> NeighbourAddRequest {
    let mut request = used(request);
    let flags = NeighbourAttribute::ExtFlags(NeighbourExtFlags::Managed);
    request.message_mut().attributes.push(flags);
    request
}
