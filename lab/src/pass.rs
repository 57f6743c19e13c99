//! The XDP program on the switch's ports, which lets everything pass.
//!
//! A veth end that has NAPI takes the frames that an XDP program on the other end sends
//! back (XDP_TX), but it is woken for them only where it has a program itself: else they
//! wait in its ring until an ordinary packet happens to come (Linux 6.18). A real switch
//! needs no such help.

use std::path::Path;
use std::{fs, io};

use object::write::{Object, Symbol, SymbolSection};
use object::{
    Architecture, BinaryFormat, Endianness, SectionKind, SymbolFlags, SymbolKind, SymbolScope,
};

use crate::error::{Error, Result};
use crate::netns::NetNs;
use crate::tool::{feed, tool};

/// `r0 = XDP_PASS; exit`
const CODE: [u8; 16] = [0xb7, 0, 0, 0, 2, 0, 0, 0, 0x95, 0, 0, 0, 0, 0, 0, 0];

/// The section that holds the program, by which loaders know its kind.
const SECTION: &str = "xdp";

/// Writes the program.
pub(crate) fn write(file: &Path) -> Result<()> {
    let failed = || Error::io(file.display().to_string());
    let bytes = object().map_err(|error| failed()(io::Error::other(error)))?;
    fs::write(file, bytes).map_err(failed())
}

/// Attaches the program in `file` to devices of a namespace.
pub(crate) fn attach(namespace: &NetNs, file: &Path, devices: &[String]) -> Result<()> {
    // `ip` wants a BPF file system, and would leave directories in the first one that
    // it finds. Where it sees none it mounts its own, which ends with it.
    const SCRIPT: &str = "umount --all --types bpf; exec ip -n \"$0\" -batch -";
    let mut command = tool("unshare");
    command.args(["--mount", "sh", "-c", SCRIPT, namespace.name()]);
    let lines = devices.iter().map(|device| {
        let file = file.display();
        format!("link set {device} xdpdrv object {file} section {SECTION}\n")
    });
    feed(&mut command, &lines.collect::<String>()).map(drop)
}

fn object() -> std::result::Result<Vec<u8>, object::write::Error> {
    let mut object = Object::new(BinaryFormat::Elf, Architecture::Bpf, Endianness::Little);
    let section = object.add_section(Vec::new(), SECTION.into(), SectionKind::Text);
    let symbol = object.add_symbol(Symbol {
        name: "pass".into(),
        value: 0,
        size: 0,
        kind: SymbolKind::Text,
        scope: SymbolScope::Dynamic,
        weak: false,
        section: SymbolSection::Section(section),
        flags: SymbolFlags::None,
    });
    object.add_symbol_data(symbol, section, &CODE, 8);
    let license = object.add_section(Vec::new(), "license".into(), SectionKind::Data);
    object.append_section_data(license, b"Dual MIT/GPL\0", 1);
    object.write()
}
