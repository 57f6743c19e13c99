//! Next hops that were looked up a moment ago.

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

#[cfg(test)]
mod tests {
    use super::*;

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
