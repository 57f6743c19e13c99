//! Next hops that were looked up a moment ago.

use crate::{Port, Tuple, hash};

/// Entry of map `HOPS` (index: [`crate::BackendId::index`]), two words: how frames of map
/// `BACKENDS`' entry leave, by the interface that they came by.
///
/// Word 0 is the link address (bits 0–47) and the lower half of a [`tag`] (48–63); word 1 the
/// interface's index (0–15), the MTU in bytes (16–31) and the whole tag (32–63). Whoever reads
/// half of a change finds tags that differ.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hop(pub [u64; 2]);

/// What must be as it was when a [`Hop`] was found: the time in ticks of about a second, so that
/// it never counts for longer than that lasts, and the agent's count of changes of the network.
#[inline(always)]
pub const fn tag(now: u32, epoch: u64) -> u32 {
    now.wrapping_add((epoch as u32).wrapping_mul(0x9e37_79b1))
}

impl Hop {
    /// By interface `ifindex`, to the link address `mac` (six bytes, the first one lowest), in
    /// packets of up to `mtu` bytes; none where the words have no room for it.
    #[inline(always)]
    pub const fn new(mac: u64, ifindex: u32, mtu: u32, tag: u32) -> Option<Self> {
        if ifindex > 0xffff {
            return None;
        }
        let mtu = if mtu > 0xffff { 0xffff } else { mtu };
        let whole = ifindex as u64 | (mtu as u64) << 16 | (tag as u64) << 32;
        Some(Self([mac | (tag as u64) << 48, whole]))
    }

    /// The link address, where this was found under the very `tag`, by `ifindex`, and packets of
    /// `len` bytes fit.
    #[inline(always)]
    pub const fn leads(self, tag: u32, ifindex: u32, len: u32) -> Option<u64> {
        let [mac, whole] = self.0;
        let same = (whole >> 32) as u32 == tag && (mac >> 48) as u16 == tag as u16;
        let fits = len <= (whole >> 16) as u16 as u32;
        if same && fits && whole as u16 as u32 == ifindex && ifindex != 0 {
            Some(mac & ((1 << 48) - 1))
        } else {
            None
        }
    }
}

/// Entry of map `CLIENT_HOPS`, three words: how frames to a client leave, and which one that is.
///
/// All CPUs write it, each its words one after the other: whoever reads words of two of them finds
/// a check that is of neither.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClientHop {
    hop: Hop,
    check: u64,
}

/// Entries of map `CLIENT_HOPS`: 96 kB, which stay in the cache where they are of use.
pub const CLIENT_HOPS: usize = 1 << 12;

impl ClientHop {
    /// The way of frames to the client that `key` tells from others, see [`client_key`].
    #[inline(always)]
    pub const fn new(key: u64, hop: Hop) -> Self {
        let [one, other] = hop.0;
        let check = key ^ one ^ other.rotate_left(32);
        Self { hop, check }
    }

    /// The link address, as [`Hop::leads`] says, where this is of that client.
    #[inline(always)]
    pub const fn leads(self, key: u64, tag: u32, ifindex: u32, len: u32) -> Option<u64> {
        if Self::new(key, self.hop).check != self.check {
            return None;
        }
        self.hop.leads(tag, ifindex, len)
    }
}

/// What tells the way of a packet from others: all that rules may choose a route by, but the client's
/// port; under a secret of the node's, so that clients cannot tell who shares one.
#[inline(always)]
pub const fn client_key(packet: &Tuple, tos: u8, secret: u64) -> u64 {
    let tos = Port::from_word(tos as u16);
    let way = Tuple::new(
        packet.src,
        packet.src_port,
        packet.dst,
        tos,
        packet.protocol,
    );
    hash::tuple_hash(&way, secret)
}

#[cfg(test)]
mod tests {
    use core::net::Ipv4Addr;

    use super::*;
    use crate::Addr;

    const MAC: u64 = 0x0201_0000_0065;

    #[test]
    fn what_was_found_leads_there_for_a_tick_and_until_the_network_changes() {
        let hop = Hop::new(MAC, 7, 1500, tag(100, 3)).expect("it fits");
        assert_eq!(hop.leads(tag(100, 3), 7, 1500), Some(MAC));
        assert_eq!(hop.leads(tag(101, 3), 7, 40), None, "a tick later");
        assert_eq!(hop.leads(tag(100, 4), 7, 40), None, "after a change");
        assert_eq!(hop.leads(tag(100, 3), 7, 1501), None, "too long");
        assert_eq!(hop.leads(tag(100, 3), 8, 40), None, "by another interface");
        assert_eq!(Hop::default().leads(tag(0, 0), 0, 0), None, "nothing");
        assert_eq!(Hop::new(MAC, 1 << 16, 1500, 1), None);
    }

    #[test]
    fn a_clients_way_is_nobody_elses_and_parts_of_two_are_nobodys() {
        let hop = |mac| Hop::new(mac, 7, 1500, tag(100, 3)).expect("it fits");
        let key = |client: Ipv4Addr| {
            let [vip, client] = [Ipv4Addr::new(192, 168, 56, 11), client].map(Addr::from);
            client_key(
                &Tuple::new(vip, Port::new(80), client, Port::new(9), 6),
                0,
                7,
            )
        };
        let [first, second] = [1, 2].map(|last| key(Ipv4Addr::new(192, 168, 56, last)));
        let (one, other) = (
            ClientHop::new(first, hop(MAC)),
            ClientHop::new(second, hop(MAC + 1)),
        );
        let leads = |it: ClientHop, key| it.leads(key, tag(100, 3), 7, 1500);
        assert_eq!((leads(one, first), leads(one, second)), (Some(MAC), None));
        assert_eq!(leads(ClientHop::default(), first), None);
        let [mac, _] = other.hop.0;
        let [_, whole] = one.hop.0;
        let mixed = [
            ClientHop {
                check: other.check,
                ..one
            },
            ClientHop {
                hop: Hop([mac, whole]),
                ..one
            },
        ];
        for mixed in mixed {
            assert_eq!((leads(mixed, first), leads(mixed, second)), (None, None));
        }
    }

    #[test]
    fn half_of_a_change_leads_nowhere() {
        let old = Hop::new(MAC, 7, 1500, tag(100, 3)).expect("it fits");
        for (now, epoch) in [(101, 3), (100, 4), (160, 3), (99, 5)] {
            let new = Hop::new(MAC + 1, 7, 1500, tag(now, epoch)).expect("it fits");
            let mixed = [Hop([old.0[0], new.0[1]]), Hop([new.0[0], old.0[1]])];
            for mixed in mixed {
                assert_eq!(mixed.leads(tag(now, epoch), 7, 40), None);
                assert_eq!(mixed.leads(tag(100, 3), 7, 40), None);
            }
        }
    }
}
