//! The interfaces that Naru is attached to.

use crate::{Addr, Family};

/// Value of map `DEVICES` (key: interface index as `u32`), 52 bytes: an interface that Naru
/// is attached to.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Device {
    /// Source of IPv4 `nat` flows that leave here.
    pub snat_v4: SnatSource,
    /// Source of IPv6 `nat` flows that leave here.
    pub snat_v6: SnatSource,
    /// 1 where XDP may redirect to the device (it runs a native XDP program of ours), else 0.
    pub xdp_redirect: u32,
    /// Its hardware address. XDP takes only frames sent to it: a switch that floods
    /// shows every node the others' frames too.
    pub mac: [u8; 6],
    /// 1 for a tunnel that puts packets into others, which the kernel cuts where they are
    /// larger than the MTU, else 0.
    pub tunnel: u8,
    pad: u8,
}

/// Entry of map `NEAR` (index: the interface's modulo [`Self::LEN`]), one word: what most frames
/// ask of an interface that Naru is attached to.
///
/// Bits 0–47 are its hardware address, the first byte lowest; bit 48 is set where its driver has
/// XDP; 49–63 are its index without the lowest eight bits. Of two interfaces at one key one has
/// none.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Near(pub u64);

impl Near {
    /// Entries of the map.
    pub const LEN: usize = 256;
    const NATIVE: u64 = 1 << 48;

    /// The interface with this index, if its driver has XDP; none where the word has no room.
    pub const fn new(ifindex: u32, device: &Device) -> Self {
        if device.xdp_redirect == 0 || ifindex >> 23 != 0 {
            return Self(0);
        }
        Self(word(device.mac) | Self::NATIVE | (ifindex as u64 >> 8) << 49)
    }

    /// Whether a frame to the hardware address `mac` that came by `ifindex` may be changed
    /// where it is.
    #[inline(always)]
    pub const fn takes(self, ifindex: u32, mac: u64) -> bool {
        self.0 == mac | Self::NATIVE | (ifindex as u64 >> 8) << 49
    }
}

/// A hardware address in one word, the first byte lowest.
#[inline(always)]
pub const fn word([a, b, c, d, e, f]: [u8; 6]) -> u64 {
    u64::from_le_bytes([a, b, c, d, e, f, 0, 0])
}

/// Whether a frame with this source hardware address, as a [`word`], was handed over by a peer.
#[inline(always)]
pub const fn is_handed(mac: u64) -> bool {
    mac & MARK == word([HANDOVER[0], HANDOVER[1], HANDOVER[2], 0, 0, 0])
}

/// The address of which frames come that an interface with hardware address `mac` hands over,
/// both as a [`word`]; see [`Device::handover_mac`].
#[inline(always)]
pub const fn handing(mac: u64) -> u64 {
    mac & !MARK | word([HANDOVER[0], HANDOVER[1], HANDOVER[2], 0, 0, 0])
}

/// The bytes of a hardware address that say what a frame is.
const MARK: u64 = 0xff_ffff;

/// Where the `nat` flows that leave by a device come from, as the backends see them.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SnatSource {
    /// The address; unspecified where there is none.
    pub addr: Addr,
    /// The first of its ports that flows may take, in host byte order.
    pub first_port: u16,
    /// How many they are.
    pub ports: u16,
}

impl SnatSource {
    /// No source.
    pub const NONE: Self = Self {
        addr: Addr::UNSPECIFIED,
        first_port: 0,
        ports: 0,
    };
}

impl Device {
    /// A device with its padding zeroed.
    pub const fn new(
        snat_v4: SnatSource,
        snat_v6: SnatSource,
        mac: [u8; 6],
        xdp_redirect: bool,
    ) -> Self {
        Self {
            snat_v4,
            snat_v6,
            xdp_redirect: xdp_redirect as u32,
            mac,
            tunnel: 0,
            pad: 0,
        }
    }

    /// The same device, said to be a tunnel or not to be one.
    #[must_use]
    pub const fn tunnel(self, tunnel: bool) -> Self {
        Self {
            tunnel: tunnel as u8,
            ..self
        }
    }

    /// The SNAT source of flows to `dst`.
    #[inline(always)]
    pub const fn snat_source(&self, dst: &Addr) -> &SnatSource {
        match dst.family() {
            Family::V4 => &self.snat_v4,
            Family::V6 => &self.snat_v6,
        }
    }

    /// The source hardware address of frames that this device hands over to a peer.
    ///
    /// It differs from node to node, since switches learn where it is.
    #[inline(always)]
    pub const fn handover_mac(&self) -> [u8; 6] {
        self.marked(HANDOVER)
    }

    /// The source hardware address of frames that go back by this device to the node that
    /// had the VIP before, and that have gone back `times` before: 0 or 1.
    #[inline(always)]
    pub const fn return_mac(&self, times: u32) -> [u8; 6] {
        self.marked(if times == 0 { RETURN } else { LAST_RETURN })
    }

    #[inline(always)]
    const fn marked(&self, [a, b, c]: [u8; 3]) -> [u8; 6] {
        let [_, _, _, d, e, f] = self.mac;
        [a, b, c, d, e, f]
    }
}

/// How the source hardware address of a frame begins that a peer handed over: locally
/// administered (IEEE 802), and the letters `nar`.
///
/// It is the same for all, so that a node never sends on what any peer handed to it,
/// whatever it knows of that peer.
const HANDOVER: [u8; 3] = *b"nar";
/// The same of a frame for the node that had the VIP before: the letters `nas`. That one may
/// return it once more, to whoever had it still earlier, as [`LAST_RETURN`].
const RETURN: [u8; 3] = *b"nas";
/// The same of a frame that no node may return any more, so that none goes in circles: the
/// letters `nat`.
const LAST_RETURN: [u8; 3] = *b"nat";

/// Whether a frame with this source hardware address was handed over by a peer.
#[inline(always)]
pub const fn is_handover(mac: [u8; 6]) -> bool {
    is_marked(mac, HANDOVER)
}

/// How often a frame with this source hardware address has gone back from a node to the one
/// that had the VIP before: 0, 1 or 2.
#[inline(always)]
pub const fn returns(mac: [u8; 6]) -> u32 {
    if is_marked(mac, RETURN) {
        1
    } else if is_marked(mac, LAST_RETURN) {
        2
    } else {
        0
    }
}

#[inline(always)]
const fn is_marked(mac: [u8; 6], mark: [u8; 3]) -> bool {
    mac[0] == mark[0] && mac[1] == mark[1] && mac[2] == mark[2]
}

const _: () = assert!(HANDOVER[0] & 3 == 2, "unicast, locally administered");
const _: () = assert!(RETURN[0] & 3 == 2, "unicast, locally administered");
const _: () = assert!(LAST_RETURN[0] & 3 == 2, "unicast, locally administered");
