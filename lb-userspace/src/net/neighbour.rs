//! Neighbours whose link addresses the kernel keeps.

use std::net::IpAddr;

use rtnetlink::{
    NeighbourAddRequest,
    packet_route::neighbour::{
        NeighbourAddress, NeighbourAttribute, NeighbourExtFlags, NeighbourFlags, NeighbourMessage,
        NeighbourState,
    },
};

/// Interface and address of an entry that stays resolved as it is: by hand, or since the
/// kernel was asked to. One that the kernel has given up is not: it would try again after
/// five seconds only.
pub(super) fn kept(message: &NeighbourMessage) -> Option<(u32, IpAddr)> {
    let managed = message.attributes.iter().any(|attribute| match attribute {
        NeighbourAttribute::ExtFlags(flags) => flags.contains(NeighbourExtFlags::Managed),
        _ => false,
    });
    let given_up = matches!(
        message.header.state,
        NeighbourState::Failed | NeighbourState::None
    );
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
    (managed && !given_up || by_hand).then_some((message.header.ifindex, addr))
}

/// Makes a request for a neighbour one to resolve it now and for good.
pub(super) fn managed(mut request: NeighbourAddRequest) -> NeighbourAddRequest {
    let message = request.message_mut();
    message.header.state = NeighbourState::None;
    message.header.flags = NeighbourFlags::Use;
    let flags = NeighbourAttribute::ExtFlags(NeighbourExtFlags::Managed);
    message.attributes.push(flags);
    request
}
