//! Hashes: of a 5-tuple, which slot of a Maglev table it falls on; of addresses, where what is
//! known of them stands.

use crate::{Addr, Family, Tuple};

const K: u64 = 0x9e37_79b9_7f4a_7c15;
const FINAL: u64 = 0xbf58_476d_1ce4_e5b9;

/// One multiply-xorshift round; the kernel's JIT makes four instructions of it.
#[inline(always)]
const fn mix(hash: u64, word: u64) -> u64 {
    let x = (hash ^ word).wrapping_mul(K);
    x ^ (x >> 32)
}

/// A 64-bit hash of the 5-tuple under a seed that the whole cluster shares.
///
/// Not keyed against an adversary beyond the secrecy of `seed`; every bit of the
/// result depends on every bit of the input.
#[inline(always)]
pub const fn tuple_hash(tuple: &Tuple, seed: u64) -> u64 {
    let s = tuple.src.words();
    let d = tuple.dst.words();
    let mut h = seed;
    // What all IPv4 addresses have in common tells nothing apart.
    if matches!(tuple.dst.family(), Family::V6) {
        h = mix(h, s[0] as u64 | (s[1] as u64) << 32);
        h = mix(h, d[0] as u64 | (d[1] as u64) << 32);
        h = mix(h, s[2] as u64 | (d[2] as u64) << 32);
    }
    h = mix(h, s[3] as u64 | (d[3] as u64) << 32);
    h = mix(
        h,
        tuple.src_port.word() as u64
            | (tuple.dst_port.word() as u64) << 16
            | (tuple.protocol as u64) << 32,
    );
    finish(h)
}

/// A hash of an address that the node alone chooses, its upper bits the best: what a
/// multiplication makes of a word's last byte stands in the upper byte alone.
#[inline(always)]
pub const fn addr_hash(addr: &Addr) -> u64 {
    let [a, b, c, d] = addr.words();
    let high = (a as u64 | (b as u64) << 32).wrapping_mul(FINAL);
    let low = c as u64 | (d as u64) << 32;
    (high ^ high >> 32 ^ low).wrapping_mul(K)
}

/// The same of an address with a number beside it, every bit of it as good as any other.
#[inline(always)]
pub const fn addr_and_number_hash(addr: &Addr, number: u64) -> u64 {
    let sum = addr_hash(addr) ^ number.wrapping_mul(K);
    (sum ^ sum >> 32).wrapping_mul(FINAL)
}

/// A 64-bit hash of bytes, for the permutations of a Maglev table. Host side only.
pub fn bytes_hash(bytes: &[u8], seed: u64) -> u64 {
    let mut h = mix(seed, bytes.len() as u64);
    for chunk in bytes.chunks(8) {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        h = mix(h, u64::from_le_bytes(word));
    }
    finish(h)
}

#[inline(always)]
const fn finish(h: u64) -> u64 {
    let x = (h ^ (h >> 30)).wrapping_mul(FINAL);
    x ^ (x >> 31)
}

/// Maps a hash to `0..len` without division: the high half times `len`, divided by 2³².
#[inline(always)]
pub const fn reduce(hash: u64, len: u32) -> u32 {
    (((hash >> 32) * len as u64) >> 32) as u32
}

#[cfg(test)]
mod tests {
    use core::net::Ipv4Addr;

    use super::*;
    use crate::Port;

    fn tuple(client: u32, port: u16) -> Tuple {
        Tuple::new(
            Ipv4Addr::from(client).into(),
            Port::new(port),
            Addr::from(Ipv4Addr::new(192, 168, 56, 11)),
            Port::new(80),
            6,
        )
    }

    #[test]
    fn neighbouring_flows_spread_evenly() {
        // The worst realistic input: few clients, consecutive ports.
        const BUCKETS: usize = 97;
        let mut counts = [0_u32; BUCKETS];
        for client in 0..16 {
            for port in 32_768..60_999 {
                let hash = tuple_hash(&tuple(0x0a00_0001 + client, port), 7);
                counts[reduce(hash, BUCKETS as u32) as usize] += 1;
            }
        }
        let mean = 16.0 * 28_231.0 / BUCKETS as f64;
        let chi2: f64 = counts
            .iter()
            .map(|&n| (f64::from(n) - mean).powi(2) / mean)
            .sum();
        // 96 degrees of freedom: 157 is exceeded by chance once in 10,000.
        assert!(chi2 < 157.0, "chi² {chi2}");
    }

    #[test]
    fn every_input_bit_flips_about_half_of_the_output() {
        let base = tuple(0x0a00_0001, 40_000);
        let hash = tuple_hash(&base, 7);
        for bit in 0..32 {
            let other = tuple_hash(&tuple(0x0a00_0001 ^ (1 << bit), 40_000), 7);
            let flipped = (hash ^ other).count_ones();
            assert!((12..=52).contains(&flipped), "address bit {bit}: {flipped}");
        }
        for bit in 0..16 {
            let other = tuple_hash(&tuple(0x0a00_0001, 40_000 ^ (1 << bit)), 7);
            let flipped = (hash ^ other).count_ones();
            assert!((12..=52).contains(&flipped), "port bit {bit}: {flipped}");
        }
    }
}
