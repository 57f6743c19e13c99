//! Refusals: TCP RST (RFC 9293 section 3.10.7.1) and ICMP port unreachable (RFC 792),
//! made out of the refused packet itself.

use lb_common::{Addr, Tuple, Verdict, checksum, flow::tcp_flag};

use crate::{
    count, flow,
    frame::Frame,
    parse::{ETH_LEN, ETHERTYPE_IPV4, Headers, ICMP_LEN, IPV4_LEN, TCP_LEN},
};

/// TTL of what the program itself originates.
const TTL: u8 = 64;
/// Bytes of the refused packet's payload that ICMP quotes: the ports at least.
const QUOTED: usize = 8;
/// Most 32-bit words of an ICMP quote: an IPv4 header with all options, and the payload.
const QUOTE_WORDS: usize = (60 + QUOTED) / 4;

/// Answers the packet and gives verdict and action.
#[inline(always)]
pub fn refuse<F: Frame>(frame: &mut F, headers: &Headers) -> Result<(Verdict, i32), Verdict> {
    if headers.tcp_flags & tcp_flag::RST != 0 || !is_unicast(&headers.tuple.src) {
        return Err(Verdict::RefusalSuppressed);
    }
    if !count::may_refuse(flow::now()) {
        return Err(Verdict::RefusalLimited);
    }
    let verdict = if headers.is_tcp() {
        reset(frame, headers)?;
        Verdict::RefusedReset
    } else {
        unreachable(frame, headers)?;
        Verdict::RefusedUnreachable
    };
    Ok((verdict, frame.send_back()))
}

/// Whether an answer may be sent there: not multicast, broadcast, class E or "this host".
#[inline(always)]
fn is_unicast(addr: &Addr) -> bool {
    let [first, ..] = addr.v4_word().to_ne_bytes();
    first != 0 && first != 127 && first < 224
}

/// Link addresses of the packet as the answer carries them: to its sender, from here.
#[inline(always)]
fn answer_link<F: Frame>(frame: &F) -> Result<[[u8; 6]; 2], Verdict> {
    let [dst, src]: [[u8; 6]; 2] = frame.context().view.load(0).ok_or(Verdict::EmitFailed)?;
    Ok([src, dst])
}

/// An IPv4 header without options around `len` bytes, checksum included, as memory words.
#[inline(always)]
fn ipv4_header(tuple: &Tuple, protocol: u8, len: usize) -> [u32; 5] {
    let [high, low] = ((IPV4_LEN + len) as u16).to_be_bytes();
    let mut words = [
        u32::from_ne_bytes([0x45, 0, high, low]),
        u32::from_ne_bytes([0, 0, 0x40, 0]),
        u32::from_ne_bytes([TTL, protocol, 0, 0]),
        tuple.src.v4_word(),
        tuple.dst.v4_word(),
    ];
    let [a, b] = checksum::finish(sum(&words)).to_ne_bytes();
    words[2] = u32::from_ne_bytes([TTL, protocol, a, b]);
    words
}

#[inline(always)]
fn sum(words: &[u32; 5]) -> u64 {
    words.iter().map(|&word| u64::from(word)).sum()
}

#[inline(always)]
fn reset<F: Frame>(frame: &mut F, headers: &Headers) -> Result<(), Verdict> {
    let link = answer_link(frame)?;
    let refused: [u32; 4] = frame
        .context()
        .view
        .load(headers.l4)
        .ok_or(Verdict::EmitFailed)?;
    let answer = headers.tuple.reversed();
    let flags = headers.tcp_flags;
    let (seq, ack, answer_flags) = if flags & tcp_flag::ACK != 0 {
        (refused[2], 0, tcp_flag::RST)
    } else {
        // Acknowledges everything that the segment occupies, SYN and FIN included.
        let [data_offset, ..] = refused[3].to_ne_bytes();
        let headers_len = headers.l4 - headers.l3 + usize::from(data_offset >> 4) * 4;
        let payload = u32::from(headers.ip_len).saturating_sub(headers_len as u32);
        let length =
            payload + u32::from(flags & tcp_flag::SYN != 0) + u32::from(flags & tcp_flag::FIN != 0);
        let ack = u32::from_be(refused[1]).wrapping_add(length).to_be();
        (0, ack, tcp_flag::RST | tcp_flag::ACK)
    };
    let [a, b] = answer.src_port.word().to_ne_bytes();
    let [c, d] = answer.dst_port.word().to_ne_bytes();
    let mut tcp = [
        u32::from_ne_bytes([a, b, c, d]),
        seq,
        ack,
        u32::from_ne_bytes([(TCP_LEN as u8 / 4) << 4, answer_flags, 0, 0]),
        0,
    ];
    let pseudo = u64::from(answer.src.v4_word())
        + u64::from(answer.dst.v4_word())
        + u64::from(u16::from_ne_bytes([0, answer.protocol]))
        + u64::from((TCP_LEN as u16).to_be());
    let [high, low] = checksum::finish(sum(&tcp) + pseudo).to_ne_bytes();
    tcp[4] = u32::from_ne_bytes([high, low, 0, 0]);

    let l4 = ETH_LEN + IPV4_LEN;
    frame.reshape(0, l4 + TCP_LEN)?;
    frame.store(0, link)?;
    frame.store(ETH_LEN, ipv4_header(&answer, answer.protocol, TCP_LEN))?;
    frame.store(l4, tcp)
}

#[inline(always)]
fn unreachable<F: Frame>(frame: &mut F, headers: &Headers) -> Result<(), Verdict> {
    const TYPE_CODE: u32 = u32::from_ne_bytes([3, 3, 0, 0]);
    const QUOTE: usize = ETH_LEN + IPV4_LEN + ICMP_LEN;

    let link = answer_link(frame)?;
    let quoted = headers.l4 - headers.l3 + QUOTED;
    // New headers go in front; the refused packet's own stay where they are.
    frame.reshape(IPV4_LEN + ICMP_LEN, QUOTE + quoted)?;
    let mut icmp_sum = u64::from(TYPE_CODE);
    for word in 0..QUOTE_WORDS {
        if word * 4 >= quoted {
            break;
        }
        let bytes: u32 = frame
            .context()
            .view
            .load(QUOTE + word * 4)
            .ok_or(Verdict::EmitFailed)?;
        icmp_sum += u64::from(bytes);
    }
    let [a, b] = checksum::finish(icmp_sum).to_ne_bytes();
    let header = ipv4_header(&headers.tuple.reversed(), 1, ICMP_LEN + quoted);
    frame.store(0, link)?;
    frame.store(12, ETHERTYPE_IPV4)?;
    frame.store(ETH_LEN, header)?;
    frame.store(ETH_LEN + IPV4_LEN, [u32::from_ne_bytes([3, 3, a, b]), 0])
}
