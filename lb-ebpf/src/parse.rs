//! Packet → headers: where they are and what the later stages need of them.

use lb_common::{Addr, Family, Verdict};

use crate::{
    frame::Context,
    headers::{Fragment, Headers, Payload},
    packet::View,
    transport,
};

/// Length of an Ethernet header.
pub const ETH_LEN: usize = 14;
/// Length of an IPv4 header without options.
pub const IPV4_LEN: usize = 20;
/// Length of an IPv6 header without extensions.
pub const IPV6_LEN: usize = 40;
pub const ETHERTYPE_IPV4: u16 = 0x0800_u16.to_be();
pub const ETHERTYPE_IPV6: u16 = 0x86dd_u16.to_be();
const ETHERTYPE_VLAN: u16 = 0x8100_u16.to_be();
const ETHERTYPE_QINQ: u16 = 0x88a8_u16.to_be();
/// VLAN tags that are read: a service provider's and a customer's.
const MAX_TAGS: usize = 2;
/// IPv6 extension headers that are read.
const MAX_EXTENSIONS: usize = 4;
/// Longest chain of IPv6 extension headers in bytes.
const MAX_EXTENSION_BYTES: usize = 256;
/// More fragments follow (RFC 791), native word.
pub const MORE_V4: u16 = 0x2000_u16.to_be();
/// Where in the whole packet a fragment lies, native word.
pub const OFFSET_V4: u16 = 0x1fff_u16.to_be();
/// Do not fragment, native word.
const WHOLE_V4: u16 = 0x4000_u16.to_be();
/// The same two in IPv6's fragment header (RFC 8200 section 4.5).
const MORE_V6: u16 = 0x0001_u16.to_be();
/// See [`MORE_V6`].
const OFFSET_V6: u16 = 0xfff8_u16.to_be();

/// IPv6 next-header numbers of extension headers.
mod next {
    pub(super) const HOP_BY_HOP: u8 = 0;
    pub(super) const ROUTING: u8 = 43;
    pub(super) const FRAGMENT: u8 = 44;
    pub(super) const DESTINATION: u8 = 60;
}

/// Reads the headers of a frame, or tells why it does not.
#[inline(always)]
pub fn parse(ctx: Context<'_>, headers: &mut Headers) -> Result<(), Verdict> {
    let view = ctx.view;
    let mut l3 = ETH_LEN;
    let mut ethertype: u16 = view.load(12).ok_or(Verdict::Truncated)?;
    for _ in 0..MAX_TAGS {
        if ethertype != ETHERTYPE_VLAN && ethertype != ETHERTYPE_QINQ {
            break;
        }
        ethertype = view.load(l3 + 2).ok_or(Verdict::Truncated)?;
        l3 += 4;
    }
    let family = match ethertype {
        ETHERTYPE_IPV4 => {
            ipv4(view, headers, l3)?;
            Family::V4
        }
        ETHERTYPE_IPV6 => {
            ipv6(view, headers, l3)?;
            Family::V6
        }
        ETHERTYPE_VLAN | ETHERTYPE_QINQ => return Err(Verdict::Unparsed),
        _ => return Err(Verdict::NotIp),
    };
    let headers = headers.sealed();
    if view.len() < headers.end() && ctx.frame_len() < headers.end() {
        return Err(Verdict::BadLength);
    }
    transport::parse(view, headers, family);
    Ok(())
}

#[inline(always)]
fn ipv4(view: View<'_>, headers: &mut Headers, l3: usize) -> Result<(), Verdict> {
    let words: [u32; 5] = view.load(l3).ok_or(Verdict::Truncated)?;
    let [version, tos, len_high, len_low] = words[0].to_ne_bytes();
    let [id_high, id_low, fragment_high, fragment_low] = words[1].to_ne_bytes();
    let [ttl, protocol, ..] = words[2].to_ne_bytes();
    let header_len = usize::from(version & 0x0f) * 4;
    if version >> 4 != 4 || header_len < IPV4_LEN {
        return Err(Verdict::BadHeader);
    }
    let ip_len = u16::from_be_bytes([len_high, len_low]);
    if usize::from(ip_len) < header_len {
        return Err(Verdict::BadLength);
    }
    headers.begin(
        Addr::from_v4_word(words[3]),
        Addr::from_v4_word(words[4]),
        protocol,
        l3,
        l3 + header_len,
    );
    headers.ip_len = ip_len.into();
    headers.ttl = ttl;
    headers.tos = tos;
    let bits = u16::from_ne_bytes([fragment_high, fragment_low]);
    headers.whole = bits & WHOLE_V4 != 0;
    headers.fragment_id = u16::from_ne_bytes([id_high, id_low]).into();
    headers.fragment = fragment(bits & OFFSET_V4, bits & MORE_V4);
    Ok(())
}

#[inline(always)]
fn ipv6(view: View<'_>, headers: &mut Headers, l3: usize) -> Result<(), Verdict> {
    let words: [u32; 10] = view.load(l3).ok_or(Verdict::Truncated)?;
    let [version, class, ..] = words[0].to_ne_bytes();
    let [len_high, len_low, mut protocol, ttl] = words[1].to_ne_bytes();
    if version >> 4 != 6 {
        return Err(Verdict::BadHeader);
    }
    let src = Addr::from_words([words[2], words[3], words[4], words[5]]);
    let dst = Addr::from_words([words[6], words[7], words[8], words[9]]);
    // IPv4 addresses have no business in an IPv6 header, and would be taken for such.
    if src.family() == Family::V4 || dst.family() == Family::V4 {
        return Err(Verdict::Unparsed);
    }
    let ip_len = IPV6_LEN as u32 + u32::from(u16::from_be_bytes([len_high, len_low]));
    let mut l4 = l3 + IPV6_LEN;
    let mut part = Fragment::No;
    let mut id = 0;
    for _ in 0..MAX_EXTENSIONS {
        // A later fragment's bytes are no headers, whatever their kind is said to be.
        if part == Fragment::Later || !is_extension(protocol) {
            break;
        }
        let [kind_len, word]: [u32; 2] = view.load(l4).ok_or(Verdict::Truncated)?;
        let [following, len, high, low] = kind_len.to_ne_bytes();
        if protocol == next::FRAGMENT {
            let bits = u16::from_ne_bytes([high, low]);
            part = fragment(bits & OFFSET_V6, bits & MORE_V6);
            id = word;
            l4 += 8;
        } else {
            l4 += (usize::from(len) + 1) * 8;
        }
        if l4 > l3 + IPV6_LEN + MAX_EXTENSION_BYTES {
            return Err(Verdict::Unparsed);
        }
        protocol = following;
    }
    if part != Fragment::Later && is_extension(protocol) {
        return Err(Verdict::Unparsed);
    }
    headers.begin(src, dst, protocol, l3, l4);
    headers.ip_len = ip_len;
    headers.ttl = ttl;
    headers.tos = version << 4 | class >> 4;
    headers.whole = true;
    headers.fragment_id = id;
    headers.fragment = part;
    if l4 > headers.end() {
        return Err(Verdict::BadLength);
    }
    Ok(())
}

#[inline(always)]
const fn is_extension(protocol: u8) -> bool {
    matches!(
        protocol,
        next::HOP_BY_HOP | next::ROUTING | next::FRAGMENT | next::DESTINATION
    )
}

/// A fragment by its offset and its "more" bit; an IPv6 packet with a fragment header
/// may be whole (RFC 6946).
#[inline(always)]
const fn fragment(offset: u16, more: u16) -> Fragment {
    if offset != 0 {
        Fragment::Later
    } else if more != 0 {
        Fragment::First
    } else {
        Fragment::No
    }
}

impl Payload {
    /// Why a packet to a VIP with such a payload is dropped.
    #[inline(always)]
    pub const fn dropped(self) -> Verdict {
        match self {
            Self::Ports => Verdict::VipPort,
            Self::Error => Verdict::VipError,
            Self::Echo => Verdict::VipEcho,
            Self::BadTcp => Verdict::BadTcp,
            Self::BadUdp => Verdict::BadUdp,
            Self::Short => Verdict::Short,
            Self::Other | Self::Neighbour => Verdict::VipProtocol,
        }
    }
}
