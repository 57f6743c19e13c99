//! What is served where not all has room.

use std::net::Ipv4Addr;

use ipnet::{IpNet, Ipv4Net};

use super::*;

/// Services of one endpoint each, by Maglev, with tables of which 31 have room.
fn large(numbers: impl Iterator<Item = u8>) -> Desired {
    let services = numbers.map(|n| {
        let frontend = desired::Frontend {
            addr: SocketAddr::from(([192, 0, 2, n], 80)),
            protocol: Protocol::Tcp,
        };
        let endpoint = Endpoint {
            weight: 1,
            condition: Condition::Ready,
            node: None,
            name: None,
        };
        let service = Service {
            frontends: BTreeSet::from([frontend]),
            algorithm: Algorithm::Maglev,
            maglev_slots: maglev::DEFAULT_SLOTS,
            endpoints: BTreeMap::from([(SocketAddr::from(([10, 0, 0, n], 8080)), endpoint)]),
            ..Service::default()
        };
        (ServiceName(format!("default/s{n:02}:80")), service)
    });
    Desired {
        services: services.collect(),
        ..Desired::default()
    }
}

fn lacking(fit: &Fit) -> Vec<&str> {
    fit.lacking.keys().map(|it| it.0.as_str()).collect()
}

#[test]
fn who_finds_no_room_is_served_by_a_smaller_table_and_displaces_nobody() {
    let around = Surroundings::default();
    let tables = &mut Memo::default();
    let in_use = InUse::default();
    let first = large(1..=32);
    let refused = compile(&first, &around, &in_use);
    assert!(matches!(refused, Err(CompileError::NoSlots { .. })));
    let (image, fit) = compile_fitting(None, (&first, &around), &in_use, tables).unwrap();
    assert_eq!(lacking(&fit), ["default/s32:80"]);
    assert!(
        fit.lacking
            .values()
            .all(|it| it.what.contains("by round robin"))
    );
    assert_eq!(image.frontends.len(), 32);
    let mut lens: Vec<u32> = image.services.values().map(|it| it.len()).collect();
    lens.sort_unstable();
    assert_eq!((lens[0], lens[1]), (1, maglev::DEFAULT_SLOTS));

    // One that comes first by its name has none either.
    let in_use = apply(&in_use, &image);
    let more = large(0..=32);
    let before = Some(((&fit, &around), &image));
    let (image, fit) = compile_fitting(before, (&more, &around), &in_use, tables).unwrap();
    assert_eq!(lacking(&fit), ["default/s00:80", "default/s32:80"]);
    assert_eq!(image.frontends.len(), 33);

    // Where another one goes there is room, once its table has gone.
    let in_use = apply(&in_use, &image);
    let fewer = large(2..=32);
    let before = Some(((&fit, &around), &image));
    let (image, fit) = compile_fitting(before, (&fewer, &around), &in_use, tables).unwrap();
    assert_eq!(lacking(&fit), ["default/s32:80"]);
    let in_use = apply(&in_use, &image);
    let (image, fit) = compile_fitting(None, (&fewer, &around), &in_use, tables).unwrap();
    assert_eq!((lacking(&fit).len(), image.frontends.len()), (0, 31));
    assert_eq!(image, compile(&fewer, &around, &in_use).unwrap());
}

#[test]
fn who_has_more_source_ranges_than_all_may_have_is_left_out_alone() {
    let mut desired = large(1..=3);
    let name = ServiceName("default/s02:80".to_owned());
    let all: Vec<IpNet> = (0..=MAX_SOURCES as u32)
        .map(|n| Ipv4Net::new(Ipv4Addr::from(0x0a00_0000 + n), 32).unwrap())
        .map(IpNet::V4)
        .collect();
    desired.services.get_mut(&name).unwrap().source_ranges = all.clone();
    let around = Surroundings::default();
    let (in_use, tables) = (InUse::default(), &mut Memo::default());
    let (image, fit) = compile_fitting(None, (&desired, &around), &in_use, tables).unwrap();
    assert_eq!(lacking(&fit), ["default/s02:80"]);
    assert!(fit.lacking[&name].what.contains("not served by its"));
    assert_eq!(image.frontends.len(), 2);

    // Of two that have too many together the one that comes later, though it has fewer.
    let guard = |desired: &mut Desired, name: &str, ranges: usize| {
        let service = desired.services.get_mut(&ServiceName(name.to_owned()));
        service.unwrap().source_ranges = all[..ranges].to_vec();
    };
    guard(&mut desired, "default/s02:80", MAX_SOURCES / 2 + 2);
    let (image, fit) = compile_fitting(None, (&desired, &around), &in_use, tables).unwrap();
    assert!(fit.lacking.is_empty());
    let in_use = apply(&in_use, &image);
    guard(&mut desired, "default/s01:80", MAX_SOURCES / 2);
    let before = Some(((&fit, &around), &image));
    let (image, fit) = compile_fitting(before, (&desired, &around), &in_use, tables).unwrap();
    assert_eq!(lacking(&fit), ["default/s01:80"]);
    // What is as large is not tried again with each change, and what has become smaller is.
    let in_use = apply(&in_use, &image);
    let before = Some(((&fit, &around), &image));
    let (_, again) = compile_fitting(before, (&desired, &around), &in_use, tables).unwrap();
    assert!(again.carried && again.lacking == fit.lacking);
    guard(&mut desired, "default/s01:80", 10);
    let (_, mended) = compile_fitting(before, (&desired, &around), &in_use, tables).unwrap();
    assert!(!mended.carried && mended.lacking.is_empty());
}
