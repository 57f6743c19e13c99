//! A [`MapImage`] as text, for people and for golden files.

use std::{
    collections::BTreeMap,
    fmt::{self, Write},
};

use lb_common::{Addr, AddressUse, BackendId, Protocol, Slot, config::MAX_SERVICES};

use super::image::MapImage;

/// Tables of more slots are shown by how many slots each backend has.
const LISTED_SLOTS: usize = 64;

/// Shows an image: `println!("{}", Dump(&image))`.
#[derive(Clone, Copy, Debug)]
pub struct Dump<'a>(pub &'a MapImage);

impl fmt::Display for Dump<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let image = self.0;
        f.write_str("addresses\n")?;
        for (addr, what) in &image.addresses {
            writeln!(f, "  {addr}{}", uses(*what))?;
        }
        f.write_str("services\n")?;
        for (index, table) in &image.services {
            let name = match index.checked_sub(MAX_SERVICES as u32) {
                Some(service) => format!("handed over to {service}"),
                None => (image.names.get(index)).map_or_else(|| "?".into(), ToString::to_string),
            };
            writeln!(f, "  {index} {name} {table:?}")?;
            let frontends = image.frontends.iter();
            for (frontend, entry) in frontends.filter(|(_, entry)| entry.service() == *index) {
                let protocol = protocol(frontend.protocol);
                let guarded = if entry.is_guarded() { " guarded" } else { "" };
                let recorded = if entry.is_recorded() { " recorded" } else { "" };
                writeln!(
                    f,
                    "    frontend {}/{protocol}{guarded}{recorded}",
                    socket(&frontend.addr, frontend.port)
                )?;
            }
            for frontend in image.internal_of(*index) {
                let addr = socket(&frontend.addr, frontend.port);
                writeln!(f, "    internal {addr}/{}", protocol(frontend.protocol))?;
            }
            for network in &image.sources {
                if network.client.service == *index {
                    writeln!(f, "    open to {}", network.net())?;
                }
            }
            if let Some(ticks) = image.affinity.get(index) {
                writeln!(f, "    affinity {ticks} ticks")?;
            }
            match image.tables.get(&table.offset()) {
                Some(slots) if !table.is_empty() => show_slots(f, slots)?,
                _ => f.write_str("    no usable backend\n")?,
            }
        }
        f.write_str("backends\n")?;
        for backend in image.backends.values() {
            let addr = socket(&backend.addr, backend.port);
            let protocol = protocol(backend.protocol);
            write!(f, "  {} {addr}/{protocol} {}", backend.id, backend.mode())?;
            if !backend.via.is_unspecified() {
                write!(f, " by {}", backend.via)?;
            }
            for primary in image.primaries.values() {
                if primary.backend == backend.id && !primary.is_none() {
                    write!(f, " as {}", socket(&primary.addr, primary.port))?;
                }
            }
            f.write_char('\n')?;
        }
        f.write_str("devices\n")?;
        for (index, device) in &image.devices {
            write!(f, "  {index}")?;
            for source in [device.snat_v4, device.snat_v6] {
                if source.ports > 0 {
                    let last = source.first_port + (source.ports - 1);
                    write!(f, " snat {} {}-{last}", source.addr, source.first_port)?;
                }
            }
            f.write_str(if device.xdp_redirect == 0 {
                "\n"
            } else {
                " xdp-redirect\n"
            })?;
        }
        Ok(())
    }
}

fn show_slots(f: &mut fmt::Formatter<'_>, slots: &[Slot]) -> fmt::Result {
    if slots.len() <= LISTED_SLOTS {
        f.write_str("    slots")?;
        for slot in slots {
            write!(f, " {slot:?}")?;
        }
        return f.write_char('\n');
    }
    let mut shares: BTreeMap<BackendId, usize> = BTreeMap::new();
    for slot in slots {
        *shares.entry(slot.current()).or_default() += 1;
    }
    f.write_str("    share")?;
    for (id, share) in shares {
        write!(f, " {id}:{share}")?;
    }
    writeln!(f, "\n    hash {:016x}", fnv(slots))
}

/// FNV-1a, 64 bit, of the slots' bytes: tells whether two long tables are equal.
fn fnv(slots: &[Slot]) -> u64 {
    let bytes = slots.iter().flat_map(|slot| slot.0.to_le_bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

fn uses(what: AddressUse) -> String {
    let names = [
        (AddressUse::VIP, " vip"),
        (AddressUse::HOST, " host"),
        (AddressUse::SNAT, " snat"),
        (AddressUse::LOCAL_BACKEND, " local-backend"),
        (AddressUse::ANNOUNCED, " announced"),
    ];
    let set = names.into_iter().filter(|(bit, _)| what.contains(*bit));
    set.map(|(_, name)| name).collect()
}

fn socket(addr: &Addr, port: lb_common::Port) -> std::net::SocketAddr {
    std::net::SocketAddr::new(addr.to_ip(), port.get())
}

fn protocol(number: u8) -> &'static str {
    Protocol::from_number(number).map_or("?", Protocol::name)
}
