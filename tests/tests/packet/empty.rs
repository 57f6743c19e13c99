//! Emptying maps, whatever they hold: by their file descriptors and sizes alone, so that
//! a map that the program gains is emptied too.
#![allow(
    unsafe_code,
    reason = "bpf(2) has no safe face that takes keys of any size"
)]

use std::{
    collections::BTreeSet,
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd},
    path::PathBuf,
    ptr,
};

use aya::{
    maps::{MapInfo, MapType},
    programs::loaded_programs,
};
use nix::{errno::Errno, libc};

/// Entries of an array that are looked at by one call.
const BATCH: u32 = 4096;

/// Entries of arrays that are looked at from the first to the last one.
const ALL: u32 = 1 << 16;

/// The commands of bpf(2) that are used here.
#[derive(Clone, Copy)]
#[repr(i64)]
enum Command {
    Update = 2,
    Delete = 3,
    NextKey = 4,
    LookupBatch = 24,
}

/// `union bpf_attr` for one element.
#[repr(C)]
struct Element {
    map: u32,
    _pad: u32,
    key: u64,
    /// The value, or the next key.
    value: u64,
    flags: u64,
}

/// `union bpf_attr` for many elements.
#[repr(C)]
struct Batch {
    after: u64,
    last: u64,
    keys: u64,
    values: u64,
    count: u32,
    map: u32,
    element_flags: u64,
    flags: u64,
}

/// Pinned maps, and all others of the programs that use any of them.
pub(crate) fn maps_of_programs_that_use(pins: &[PathBuf]) -> Vec<MapInfo> {
    let pinned = pins.iter().map(|pin| MapInfo::from_pin(pin).unwrap().id());
    let pinned: BTreeSet<u32> = pinned.collect();
    let mut maps = pinned.clone();
    // Programs of others may go away meanwhile.
    for program in loaded_programs().flatten() {
        if let Ok(Some(ids)) = program.map_ids()
            && ids.iter().any(|id| pinned.contains(id))
        {
            maps.extend(ids);
        }
    }
    let maps = maps.into_iter().map(MapInfo::from_id);
    maps.map(Result::unwrap).collect()
}

pub(crate) fn empty(map: &MapInfo) {
    let fd = map.fd().unwrap();
    let fd = fd.as_fd();
    let name = map.name_as_str().unwrap_or_default();
    match map.map_type().unwrap() {
        // Constants, what programs say for people to read, and what is drawn once.
        _ if name.contains(".rodata") || ["AYA_LOGS", "SECRET"].contains(&name) => {}
        MapType::Hash | MapType::LruHash | MapType::LpmTrie => empty_hash(fd, map.key_size()),
        MapType::Array => empty_array(fd, map.value_size(), map.max_entries()),
        MapType::PerCpuArray => {
            let cpus = aya::util::nr_cpus().unwrap() as u32;
            let size = map.value_size().next_multiple_of(8) * cpus;
            empty_array(fd, size, map.max_entries());
        }
        other => panic!("map {name}: how is one of type {other:?} emptied?"),
    }
}

fn empty_hash(map: BorrowedFd<'_>, key_size: u32) {
    let mut key = vec![0_u8; key_size as usize];
    loop {
        match element(Command::NextKey, map, ptr::null(), key.as_mut_ptr()) {
            Err(Errno::ENOENT) => return,
            result => result.unwrap(),
        }
        match element(Command::Delete, map, key.as_ptr(), ptr::null_mut()) {
            // The table of an LRU map drops entries by itself.
            Err(Errno::ENOENT) => {}
            result => result.unwrap(),
        }
    }
}

/// Zeroes what is not zero. In the largest arrays places are given out from the lowest on, so
/// that a long stretch of zeros is the end: the whole of them would take seconds.
fn empty_array(map: BorrowedFd<'_>, value_size: u32, len: u32) {
    let size = value_size as usize;
    let mut zero = vec![0_u8; size];
    let mut values = vec![0_u8; size * BATCH.min(len) as usize];
    let mut after = None;
    let mut index = 0;
    while index < len {
        let (count, last) = lookup(map, after, &mut values, size);
        let mut dirty = false;
        for value in values.chunks(size).take(count as usize) {
            if value.iter().any(|&byte| byte != 0) {
                let key = u32::to_ne_bytes(index);
                element(Command::Update, map, key.as_ptr(), zero.as_mut_ptr()).unwrap();
                dirty = true;
            }
            index += 1;
        }
        if !dirty && len > ALL || count == 0 {
            return;
        }
        after = Some(last);
    }
}

/// Reads values that follow those of an earlier call, and says how many.
fn lookup(
    map: BorrowedFd<'_>,
    after: Option<u32>,
    values: &mut [u8],
    value_size: usize,
) -> (u32, u32) {
    let capacity = values.len() / value_size;
    let mut keys = vec![0_u32; capacity];
    let mut last = 0_u32;
    let mut batch = Batch {
        after: after.as_ref().map_or(0, |it| ptr::from_ref(it) as u64),
        last: ptr::from_mut(&mut last) as u64,
        keys: keys.as_mut_ptr() as u64,
        values: values.as_mut_ptr() as u64,
        count: capacity as u32,
        map: map.as_raw_fd().cast_unsigned(),
        element_flags: 0,
        flags: 0,
    };
    match bpf(Command::LookupBatch, &mut batch) {
        // Fewer were left than there is room for.
        Ok(()) | Err(Errno::ENOENT) => (batch.count, last),
        Err(error) => panic!("reading an array: {error}"),
    }
}

fn element(
    command: Command,
    map: BorrowedFd<'_>,
    key: *const u8,
    value: *mut u8,
) -> Result<(), Errno> {
    let mut element = Element {
        map: map.as_raw_fd().cast_unsigned(),
        _pad: 0,
        key: key as u64,
        value: value as u64,
        flags: 0,
    };
    bpf(command, &mut element)
}

fn bpf<T>(command: Command, attributes: &mut T) -> Result<(), Errno> {
    // SAFETY: both structures begin as `union bpf_attr` does for their commands, and the
    // callers' buffers have room for what the kernel reads and writes at their addresses.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command as i64,
            ptr::from_mut(attributes),
            size_of::<T>(),
        )
    };
    if result < 0 {
        let code = io::Error::last_os_error().raw_os_error();
        return Err(Errno::from_raw(code.unwrap_or_default()));
    }
    Ok(())
}
