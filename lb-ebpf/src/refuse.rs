//! Answers to packets that cannot go on: TCP RST (RFC 9293 section 3.10.7.1), ICMP and
//! ICMPv6 errors (RFC 792, RFC 4443), made out of the packet itself.

use lb_common::{Addr, Family, Tuple, Verdict, checksum, flow::tcp_flag};

use crate::{
    count::{self, Answer},
    flow,
    frame::Frame,
    headers::{Fragment, Headers, Payload},
    icmp::TTL,
    parse::{IPV4_LEN, IPV6_LEN},
    transport::{ICMP_LEN, TCP_LEN, icmp_of},
    work::Work,
};

/// Longest network header that an ICMP error quotes, extensions included.
const MAX_QUOTED: usize = 128;
/// Most 32-bit words of a quote: a network header, and a TCP header without options.
const QUOTE_WORDS: usize = (MAX_QUOTED + TCP_LEN) / 4;
/// Most 16-bit words of a link header behind the addresses: two tags and the EtherType.
const LINK_WORDS: usize = 5;

/// Turns a packet that nobody serves into the answer to it.
#[inline(always)]
pub fn refuse<F: Frame>(frame: &mut F, headers: &Headers) -> Result<(), Verdict> {
    may_answer(headers, Answer::Refusal)?;
    if headers.is_tcp() {
        return reset(frame, headers);
    }
    let type_code = match headers.tuple.family() {
        Family::V4 => [3, 3],
        Family::V6 => [1, 4],
    };
    error(frame, headers, type_code, 0)
}

/// Turns a packet into the answer that tells its sender the MTU that it does not fit.
#[inline(always)]
pub fn too_big<F: Frame>(frame: &mut F, headers: &Headers, work: &Work) -> Result<(), Verdict> {
    may_answer(headers, Answer::TooBig)?;
    // SAFETY: the kernel wrote it, since the packet is too big; any number is valid.
    let mtu = unsafe { work.fib.__bindgen_anon_1.mtu_result };
    // Both families have it in the low half of the word behind the checksum.
    let type_code = match headers.tuple.family() {
        Family::V4 => [3, 4],
        Family::V6 => [2, 0],
    };
    error(frame, headers, type_code, u32::from(mtu).to_be())
}

/// Whether this packet may be answered at all, and now. An ICMP error is never, nor an RST.
#[inline(always)]
fn may_answer(headers: &Headers, what: Answer) -> Result<(), Verdict> {
    if headers.payload != Payload::Ports
        || headers.tcp_flags & tcp_flag::RST != 0
        || headers.fragment == Fragment::Later
        || !is_unicast(&headers.tuple.src)
        || headers.l4() - headers.l3() > MAX_QUOTED
    {
        return Err(Verdict::RefusalSuppressed);
    }
    if !count::may_answer(what, flow::now()) {
        return Err(Verdict::RefusalLimited);
    }
    Ok(())
}

/// Whether an answer may be sent there: not multicast, broadcast, class E or "this host".
#[inline(always)]
pub fn is_unicast(addr: &Addr) -> bool {
    match addr.family() {
        Family::V4 => {
            let [first, ..] = addr.v4_word().to_ne_bytes();
            first != 0 && first != 127 && first < 224
        }
        Family::V6 => {
            let words = addr.words();
            let [first, ..] = words[0].to_ne_bytes();
            // Neither multicast, nor :: or ::1.
            first != 0xff && words[0] | words[1] | words[2] != 0
        }
    }
}

const fn header_len(family: Family) -> usize {
    match family {
        Family::V4 => IPV4_LEN,
        Family::V6 => IPV6_LEN,
    }
}

/// Writes a network header without options around `len` bytes.
#[inline(always)]
fn network<F: Frame>(
    frame: &mut F,
    at: usize,
    tuple: &Tuple,
    protocol: u8,
    len: usize,
) -> Result<(), Verdict> {
    match tuple.family() {
        Family::V4 => {
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
            frame.store(at, words)
        }
        Family::V6 => {
            let [high, low] = (len as u16).to_be_bytes();
            let first = u32::from_ne_bytes([0x60, 0, 0, 0]);
            let second = u32::from_ne_bytes([high, low, protocol, TTL]);
            frame.store(at, [first, second])?;
            frame.store(at + 8, tuple.src.words())?;
            frame.store(at + 24, tuple.dst.words())
        }
    }
}

#[inline(always)]
fn sum(words: &[u32; 5]) -> u64 {
    words.iter().map(|&word| u64::from(word)).sum()
}

/// Sum of the pseudo-header (RFC 9293 section 3.1, RFC 8200 section 8.1). The prefix of
/// mapped addresses adds 2 × 0xffff: nothing, in one's complement.
#[inline(always)]
pub fn pseudo(tuple: &Tuple, protocol: u8, len: usize) -> u64 {
    let words = |addr: &Addr| -> u64 { addr.words().iter().map(|&word| u64::from(word)).sum() };
    words(&tuple.src)
        + words(&tuple.dst)
        + u64::from(u16::from_ne_bytes([0, protocol]))
        + u64::from((len as u16).to_be())
}

#[inline(always)]
fn reset<F: Frame>(frame: &mut F, headers: &Headers) -> Result<(), Verdict> {
    let view = frame.context().view;
    let [dst, src]: [[u8; 6]; 2] = view.load(0).ok_or(Verdict::EmitFailed)?;
    let refused: [u32; 4] = view.load(headers.l4()).ok_or(Verdict::EmitFailed)?;
    let answer = headers.tuple.reversed();
    let flags = headers.tcp_flags;
    let (seq, ack, answer_flags) = if flags & tcp_flag::ACK != 0 {
        (refused[2], 0, tcp_flag::RST)
    } else {
        // Acknowledges everything that the segment occupies, SYN and FIN included.
        let headers_len = headers.l4() - headers.l3() + usize::from(headers.transport_len);
        let payload = headers.ip_len.saturating_sub(headers_len as u32);
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
    let total = sum(&tcp) + pseudo(&answer, answer.protocol, TCP_LEN);
    let [high, low] = checksum::finish(total).to_ne_bytes();
    tcp[4] = u32::from_ne_bytes([high, low, 0, 0]);

    // The link header stays, tags included, but for the addresses.
    let l4 = headers.l3() + header_len(answer.family());
    frame.reshape(0, l4 + TCP_LEN)?;
    frame.store(0, [src, dst])?;
    network(frame, headers.l3(), &answer, answer.protocol, TCP_LEN)?;
    frame.store(l4, tcp)
}

/// Answers with an ICMP error of this type and code, `word` behind its checksum.
#[inline(always)]
fn error<F: Frame>(
    frame: &mut F,
    headers: &Headers,
    [kind, code]: [u8; 2],
    word: u32,
) -> Result<(), Verdict> {
    let answer = headers.tuple.reversed();
    let family = answer.family();
    let protocol = icmp_of(family);
    let (l3, new) = (headers.l3(), header_len(family) + ICMP_LEN);
    // Headers are always multiples of four bytes long.
    let quoted = headers.l4() - l3 + usize::from(headers.transport_len).min(TCP_LEN);
    // New headers go in front; the packet's own stay where they are.
    frame.reshape(new, l3 + new + quoted)?;
    link(frame, l3, new)?;
    let mut total = u64::from(u32::from_ne_bytes([kind, code, 0, 0])) + u64::from(word);
    if family == Family::V6 {
        total += pseudo(&answer, protocol, ICMP_LEN + quoted);
    }
    let quote = l3 + new;
    for word in 0..QUOTE_WORDS {
        if word * 4 >= quoted {
            break;
        }
        let bytes: u32 = frame
            .context()
            .view
            .load(quote + word * 4)
            .ok_or(Verdict::EmitFailed)?;
        total += u64::from(bytes);
    }
    let [a, b] = checksum::finish(total).to_ne_bytes();
    network(frame, l3, &answer, protocol, ICMP_LEN + quoted)?;
    let message = [u32::from_ne_bytes([kind, code, a, b]), word];
    frame.store(l3 + header_len(family), message)
}

/// Copies the link header of `len` bytes from `from` to the front, the addresses swapped.
#[inline(always)]
fn link<F: Frame>(frame: &mut F, len: usize, from: usize) -> Result<(), Verdict> {
    let [dst, src]: [[u8; 6]; 2] = frame.context().view.load(from).ok_or(Verdict::EmitFailed)?;
    frame.store(0, [src, dst])?;
    for word in 0..LINK_WORDS {
        let at = 12 + 2 * word;
        if at >= len {
            break;
        }
        let bytes: u16 = frame
            .context()
            .view
            .load(from + at)
            .ok_or(Verdict::EmitFailed)?;
        frame.store(at, bytes)?;
    }
    Ok(())
}
