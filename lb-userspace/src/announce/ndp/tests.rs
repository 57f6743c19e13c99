//! The frames here are written by hand from RFC 4861, sections 4.3, 4.4 and 4.6.1.

use proptest::prelude::*;

use super::*;

const OURS: Mac = Mac([0x02, 0, 0, 0, 0, 0x0a]);
const PEER: Mac = Mac([0x02, 0, 0, 0, 0, 0x0b]);
const VIP: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 0x11);

/// "fd00::11 is at 02:00:00:00:00:0a", to all nodes.
#[rustfmt::skip]
const ADVERTISEMENT_TO_ALL: [u8; 86] = [
    0x33, 0x33, 0x00, 0x00, 0x00, 0x01,     // to all nodes
    0x02, 0x00, 0x00, 0x00, 0x00, 0x0a,
    0x86, 0xdd,                             // IPv6
    0x60, 0x00, 0x00, 0x00,
    0x00, 32, 58, 255,                      // length, ICMPv6, hop limit
    0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x11,
    0xff, 0x02, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1,
    136, 0, 0xbf, 0x1c,                     // advertisement, checksum
    0x20, 0, 0, 0,                          // Override
    0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x11,
    2, 1, 0x02, 0x00, 0x00, 0x00, 0x00, 0x0a,
];

fn ndp() -> Ndp {
    Ndp::new(OURS)
}

/// The advertisement as another station hears it, with some bytes replaced.
fn heard(changes: &[(usize, &[u8])]) -> Option<Heard<Ipv6Addr>> {
    let mut frame = ADVERTISEMENT_TO_ALL;
    for (offset, bytes) in changes {
        frame[*offset..offset + bytes.len()].copy_from_slice(bytes);
    }
    Ndp::new(PEER).hear(&frame)
}

#[test]
fn announces_to_all_nodes() {
    let frames = ndp().announcement(VIP);
    assert_eq!(frames.len(), 1);
    assert_eq!(frames[0][..56], ADVERTISEMENT_TO_ALL[..56]);
    assert_eq!(frames[0][58..], ADVERTISEMENT_TO_ALL[58..]);
    // RFC 4443, section 2.3, word by word.
    let [pseudo, message] = [&frames[0][22..54], &frames[0][54..]];
    let words = pseudo.chunks(2).chain(message.chunks(2));
    let mut sum: u32 = words.map(|w| u32::from(w[0]) << 8 | u32::from(w[1])).sum();
    sum += 32 + 58;
    sum = (sum & 0xffff) + (sum >> 16);
    assert_eq!((sum & 0xffff) + (sum >> 16), 0xffff);
}

#[test]
fn who_advertises_or_solicits_from_an_address_says_that_it_is_his() {
    let expected = Some(Heard {
        sender: OURS,
        sender_addr: VIP,
    });
    assert_eq!(heard(&[]), expected);
    assert_eq!(heard(&[(0, &PEER.0)]), expected, "by unicast");
    // A solicitation: from its source, whatever it asks for.
    let solicitation: [(usize, &[u8]); 3] = [(54, &[135]), (77, &[0x12]), (78, &[1])];
    assert_eq!(heard(&solicitation), expected);
    // Without the option, by whom the frame came from.
    assert_eq!(heard(&[(78, &[9])]), expected);
}

#[test]
fn what_says_of_no_address_whose_it_is_is_not_heard() {
    type Change = &'static [(usize, &'static [u8])];
    let cases: [(&str, Change); 10] = [
        ("to another station", &[(0, &[2, 0, 0, 0, 0, 0x0c])]),
        ("not IPv6", &[(12, &[0x08, 0x00])]),
        ("not ICMPv6", &[(20, &[17])]),
        ("through a router", &[(21, &[254])]),
        ("another type", &[(54, &[134])]),
        ("another code", &[(55, &[1])]),
        ("longer than the frame", &[(19, &[33])]),
        ("an option without a length", &[(79, &[0])]),
        ("an option beyond the end", &[(79, &[2])]),
        ("by a group", &[(80, &[0xff; 6])]),
    ];
    for (what, changes) in cases {
        assert_eq!(heard(changes), None, "{what}");
    }
    let probe: [(usize, &[u8]); 2] = [(54, &[135]), (22, &[0; 16])];
    assert_eq!(heard(&probe), None, "a probe has no address yet");
    for cut in 0..ADVERTISEMENT_TO_ALL.len() {
        assert_eq!(Ndp::new(PEER).hear(&ADVERTISEMENT_TO_ALL[..cut]), None);
    }
}

#[test]
fn the_group_has_the_last_three_bytes() {
    let vip = "2001:db8::1:2:a1b2:c3d4".parse().unwrap();
    let group = "ff02::1:ffb2:c3d4".parse().unwrap();
    assert_eq!(Ndp::group(vip), Some(group));
}

#[test]
fn needs_multicast_and_address_resolution() {
    let good = Link {
        multicast: true,
        ..Link::default()
    };
    assert_eq!(Ndp::refuses(&good), None);
    assert_eq!(
        Ndp::refuses(&Link::default()),
        Some(SkipReason::NoMulticast)
    );
    let noarp = Link {
        noarp: true,
        ..good
    };
    assert_eq!(Ndp::refuses(&noarp), Some(SkipReason::NoArp));
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_panic(
        changes in proptest::collection::vec((0usize..86, any::<u8>()), 0..6),
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        ndp().hear(&bytes);
        let mut frame = ADVERTISEMENT_TO_ALL;
        for (at, byte) in changes {
            frame[at] = byte;
        }
        if let Some(heard) = ndp().hear(&frame) {
            prop_assert!(heard.sender.is_station());
            prop_assert!(!heard.sender_addr.is_unspecified());
        }
    }
}
