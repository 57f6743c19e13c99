//! The frames here are written by hand from RFC 826 ("Packet format") and RFC 5227.

use proptest::prelude::*;

use super::*;

const OURS: Mac = Mac([0x02, 0, 0, 0, 0, 0x0a]);
const PEER: Mac = Mac([0x02, 0, 0, 0, 0, 0x0b]);
const VIP: Ipv4Addr = Ipv4Addr::new(192, 168, 56, 11);
const CLIENT: Ipv4Addr = Ipv4Addr::new(192, 168, 56, 100);

/// "Who has 192.168.56.11? Tell 192.168.56.100", to all.
#[rustfmt::skip]
const REQUEST: [u8; 42] = [
    0xff, 0xff, 0xff, 0xff, 0xff, 0xff,     // to all stations
    0x02, 0x00, 0x00, 0x00, 0x00, 0x0b,     // from the client
    0x08, 0x06,                             // ARP
    0x00, 0x01,                             // hardware: Ethernet
    0x08, 0x00,                             // protocol: IPv4
    6, 4,                                   // lengths of their addresses
    0x00, 0x01,                             // request
    0x02, 0x00, 0x00, 0x00, 0x00, 0x0b,     // sender
    192, 168, 56, 100,
    0x00, 0x00, 0x00, 0x00, 0x00, 0x00,     // target: wanted
    192, 168, 56, 11,
];

/// The reply to it.
#[rustfmt::skip]
const REPLY: [u8; 42] = [
    0x02, 0x00, 0x00, 0x00, 0x00, 0x0b,
    0x02, 0x00, 0x00, 0x00, 0x00, 0x0a,
    0x08, 0x06,
    0x00, 0x01,
    0x08, 0x00,
    6, 4,
    0x00, 0x02,
    0x02, 0x00, 0x00, 0x00, 0x00, 0x0a,
    192, 168, 56, 11,
    0x02, 0x00, 0x00, 0x00, 0x00, 0x0b,
    192, 168, 56, 100,
];

/// RFC 5227, section 2.3: an announcement.
#[rustfmt::skip]
const ANNOUNCEMENT: [u8; 42] = [
    0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
    0x02, 0x00, 0x00, 0x00, 0x00, 0x0a,
    0x08, 0x06,
    0x00, 0x01,
    0x08, 0x00,
    6, 4,
    0x00, 0x01,
    0x02, 0x00, 0x00, 0x00, 0x00, 0x0a,
    192, 168, 56, 11,
    0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
    192, 168, 56, 11,
];

/// RFC 5944, section 4.6: the same as a reply.
#[rustfmt::skip]
const ANNOUNCEMENT_AS_REPLY: [u8; 42] = [
    0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
    0x02, 0x00, 0x00, 0x00, 0x00, 0x0a,
    0x08, 0x06,
    0x00, 0x01,
    0x08, 0x00,
    6, 4,
    0x00, 0x02,
    0x02, 0x00, 0x00, 0x00, 0x00, 0x0a,
    192, 168, 56, 11,
    0x02, 0x00, 0x00, 0x00, 0x00, 0x0a,
    192, 168, 56, 11,
];

fn arp() -> Arp {
    Arp::new(OURS)
}

/// The request with some bytes replaced, from `offset` on.
fn request_with(offset: usize, bytes: &[u8]) -> [u8; 42] {
    let mut frame = REQUEST;
    frame[offset..offset + bytes.len()].copy_from_slice(bytes);
    frame
}

#[test]
fn who_asks_says_whose_his_own_address_is() {
    let heard = arp().hear(&REQUEST).unwrap();
    assert_eq!(
        heard,
        Heard {
            sender: PEER,
            sender_addr: CLIENT,
        }
    );
}

#[test]
fn reads_padded_frames_and_those_to_the_own_address() {
    let mut padded = REQUEST.to_vec();
    padded.resize(60, 0x5a);
    assert_eq!(arp().hear(&padded), arp().hear(&REQUEST));
    assert_eq!(
        arp().hear(&request_with(0, &OURS.0)),
        arp().hear(&REQUEST),
        "a neighbour that refreshes its entry asks by unicast"
    );
}

#[test]
fn a_probe_says_nothing_and_a_reply_who_uses_an_address() {
    assert_eq!(arp().hear(&request_with(28, &[0, 0, 0, 0])), None);
    let heard = Arp::new(PEER).hear(&REPLY).unwrap();
    assert_eq!(
        heard,
        Heard {
            sender: OURS,
            sender_addr: VIP,
        }
    );
}

#[test]
fn what_is_not_for_us_is_not_heard() {
    let cases: [(&str, usize, &[u8]); 9] = [
        ("to another station", 0, &[0x02, 0, 0, 0, 0, 0x0c]),
        ("to a group", 0, &[0x01, 0, 0x5e, 0, 0, 1]),
        ("not ARP", 12, &[0x08, 0x00]),
        ("not Ethernet", 14, &[0, 6]),
        ("not IPv4", 16, &[0x86, 0xdd]),
        ("a wrong length of hardware addresses", 18, &[8]),
        ("a wrong length of protocol addresses", 19, &[16]),
        ("sent by a group", 22, &[0xff; 6]),
        ("sent by nobody", 22, &[0; 6]),
    ];
    for (what, offset, bytes) in cases {
        assert_eq!(arp().hear(&request_with(offset, bytes)), None, "{what}");
    }
    for cut in 0..REQUEST.len() {
        assert_eq!(arp().hear(&REQUEST[..cut]), None, "cut to {cut} bytes");
    }
}

#[test]
fn announces_as_request_and_as_reply() {
    assert_eq!(
        arp().announcement(VIP),
        [ANNOUNCEMENT.to_vec(), ANNOUNCEMENT_AS_REPLY.to_vec()]
    );
}

#[test]
fn needs_broadcast_and_arp() {
    let good = Link {
        broadcast: true,
        ..Link::default()
    };
    assert_eq!(Arp::refuses(&good), None);
    assert_eq!(
        Arp::refuses(&Link::default()),
        Some(SkipReason::NoBroadcast)
    );
    let noarp = Link {
        noarp: true,
        ..good
    };
    assert_eq!(Arp::refuses(&noarp), Some(SkipReason::NoArp));
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_panic(frame in proptest::collection::vec(any::<u8>(), 0..200)) {
        arp().hear(&frame);
    }

    /// Bytes changed anywhere in a request: what is still heard is what the frame says,
    /// of a real station.
    #[test]
    fn what_is_heard_stands_in_the_frame(
        frame in Just(REQUEST.to_vec()),
        changes in proptest::collection::vec((0usize..42, any::<u8>()), 0..6),
    ) {
        let mut frame = frame;
        for (at, byte) in changes {
            frame[at] = byte;
        }
        if let Some(heard) = arp().hear(&frame) {
            prop_assert!(heard.sender.is_station());
            prop_assert_eq!(&heard.sender.0[..], &frame[22..28]);
            prop_assert_eq!(&heard.sender_addr.octets()[..], &frame[28..32]);
        }
    }
}
