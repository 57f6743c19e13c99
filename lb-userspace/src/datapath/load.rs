//! Loading the programs over new or pinned maps.

use std::{
    fs::{self, DirBuilder},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use aya::{
    Ebpf, EbpfLoader,
    maps::{Array, HashMap, LpmTrie, MapData, PerCpuArray, lpm_trie::Key},
    programs::{Program, SchedClassifier, Xdp},
};
use lb_common::{
    ABI_VERSION, Addr, AddressUse, Affinity, Backend, Bucket, Claim, ClaimCount, Client, Device,
    Direct, Ends, Entry, Frontend, Near, NearFrontend, Peer, Primary, ReplyBucket, Socket, Stats,
    Trace, Tuple, VerdictCount,
    cell::{self, WAYS, reply_buckets},
    config, exceptions, filter, flow, hop,
};

use super::{
    DatapathError, GoneFlows, Options,
    apply::Live,
    causes, hops,
    records::{self, Records},
    words::Words,
};

/// Directory of the pinned links, below the pin directory; it has no ABI version, since
/// links are handed from one version's programs to the next one's.
pub(super) const LINKS: &str = "links";
/// Programs by name, the reverse path first: the order in which they are replaced.
pub(super) const TC_EGRESS: &str = "naru_tc_egress";
/// See [`TC_EGRESS`].
pub(super) const TC_INGRESS: &str = "naru_tc_ingress";
/// See [`TC_EGRESS`].
pub(super) const XDP: &str = "naru_xdp";
/// The same for interfaces whose driver has no XDP; loaded where one is met.
pub(super) const XDP_GENERIC: &str = "naru_xdp_generic";

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/naru-ebpf"));

/// The maps that are pinned, with key size, value size and capacity (`None`: the tables of
/// flows, whose capacity is the operator's choice).
const PINNED: [(&str, usize, usize, Option<usize>); 31] = [
    (
        "ADDRESSES",
        size_of::<Addr>(),
        size_of::<AddressUse>(),
        Some(config::MAX_ADDRESSES),
    ),
    (
        "FRONTENDS",
        size_of::<Frontend>(),
        4,
        Some(config::MAX_FRONTENDS),
    ),
    ("NEAR_FRONTENDS", 4, 8 * NearFrontend::WORDS, Some(1)),
    (
        "INTERNAL",
        size_of::<Frontend>(),
        4,
        Some(config::MAX_INTERNAL),
    ),
    ("SERVICES", 4, 8 * config::MAX_TABLES, Some(1)),
    ("SLOTS", 4, 8 * config::MAX_SLOTS, Some(1)),
    ("TURNS", 4, 8, Some(config::MAX_TURNS)),
    ("AFFINITY_TICKS", 4, 4, Some(config::MAX_SERVICES)),
    (
        "AFFINITY",
        size_of::<Client>(),
        size_of::<Affinity>(),
        Some(config::MAX_AFFINE_CLIENTS),
    ),
    (
        "SOCKETS",
        size_of::<Socket>(),
        size_of::<Peer>(),
        Some(config::MAX_SOCKETS),
    ),
    (
        "SOURCES",
        size_of::<Key<Client>>(),
        4,
        Some(config::MAX_SOURCES),
    ),
    (
        "BACKENDS",
        4,
        size_of::<Backend>(),
        Some(config::MAX_BACKENDS),
    ),
    (
        "PRIMARIES",
        size_of::<Frontend>(),
        size_of::<Primary>(),
        Some(config::MAX_PRIMARIES),
    ),
    (
        "DIRECT",
        size_of::<Tuple>(),
        size_of::<Direct>(),
        Some(config::MAX_DIRECT),
    ),
    ("DEVICES", 4, size_of::<Device>(), Some(config::MAX_DEVICES)),
    ("EXCEPTIONS", 4, exceptions::LEN, Some(1)),
    ("ROUND", 4, 8, Some(1)),
    ("FILTER", 4, 8 * filter::LEN, Some(1)),
    ("NEAR", 4, size_of::<Near>() * Near::LEN, Some(1)),
    (
        "NEAR_SOURCES",
        4,
        size_of::<Addr>() * flow::SOURCES,
        Some(1),
    ),
    (
        "CLAIMS",
        size_of::<Claim>(),
        size_of::<ClaimCount>(),
        Some(config::MAX_CLAIMS),
    ),
    (
        "FORMERS",
        size_of::<Addr>(),
        size_of::<Addr>(),
        Some(config::MAX_FORMERS),
    ),
    ("LEASE", 4, 8, Some(1)),
    ("FLOWS", 4, size_of::<Bucket>(), None),
    ("ENDS", 4, size_of::<Ends>(), None),
    ("REPLIES", 4, size_of::<ReplyBucket>(), None),
    ("SECRET", 4, 8, Some(1)),
    (
        "FRAGMENTS",
        size_of::<Tuple>(),
        8,
        Some(config::MAX_FRAGMENTED),
    ),
    (
        "VERDICTS",
        4,
        size_of::<VerdictCount>(),
        Some(lb_common::Verdict::COUNTERS),
    ),
    (
        "SERVICE_STATS",
        4,
        size_of::<Stats>(),
        Some(config::MAX_SERVICES),
    ),
    (
        "BACKEND_STATS",
        4,
        size_of::<Stats>(),
        Some(config::MAX_BACKENDS),
    ),
];

/// The loaded programs and their maps.
pub struct Datapath {
    pub(super) options: Options,
    pub(super) ebpf: Ebpf,
    /// The dry-run twin of the XDP program, over the same maps.
    pub(super) twin: Ebpf,
    pub(super) maps: Maps,
    pub(super) records: Arc<Records>,
    pub(super) live: Live,
    _lock: super::Lock,
}

pub(super) struct Maps {
    pub(super) addresses: HashMap<MapData, Addr, AddressUse>,
    pub(super) frontends: HashMap<MapData, Frontend, Entry>,
    pub(super) near_frontends: Words,
    pub(super) internal: HashMap<MapData, Frontend, u32>,
    pub(super) sources: LpmTrie<MapData, Client, u32>,
    pub(super) affinity: HashMap<MapData, Client, Affinity>,
    pub(super) affinity_ticks: Array<MapData, u32>,
    pub(super) services: Words,
    pub(super) slots: Words,
    pub(super) turns: Array<MapData, u64>,
    pub(super) backends: Array<MapData, Backend>,
    pub(super) primaries: HashMap<MapData, Frontend, Primary>,
    pub(super) devices: HashMap<MapData, u32, Device>,
    pub(super) filter: Words,
    pub(super) near: Words,
    pub(super) near_sources: Words,
    pub(super) epoch: Words,
    pub(super) hops: Words,
    pub(super) client_hops: Words,
    pub(super) claims: HashMap<MapData, Claim, ClaimCount>,
    pub(super) formers: HashMap<MapData, Addr, Addr>,
    pub(super) verdicts: PerCpuArray<MapData, VerdictCount>,
    pub(super) service_stats: PerCpuArray<MapData, Stats>,
    pub(super) backend_stats: PerCpuArray<MapData, Stats>,
    pub(super) trace: Array<MapData, Trace>,
}

impl Datapath {
    /// Loads the programs over the maps pinned below `options.pin_dir`, new ones where
    /// there are none, without attaching anything.
    ///
    /// Call [`super::preflight`] first.
    pub fn open(options: Options) -> Result<Self, DatapathError> {
        let lock = super::lock(&options.pin_dir)?;
        let dir = maps_dir(&options.pin_dir);
        for dir in [&dir, &options.pin_dir.join(LINKS)] {
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(dir)
                .map_err(DatapathError::file(dir))?;
        }
        check_pinned(&dir)?;
        let new = records::pinned_buckets(&dir)?.is_none();
        if new {
            // Of a start that failed half-way: they would be of another size.
            records::unpin(&dir)?;
        }
        let loaded = load(&options, &dir, false);
        if new && loaded.is_err() {
            // Or the next start would want as much memory again.
            records::unpin(&dir)?;
        }
        let mut ebpf = loaded?;
        let mut twin = load(&options, &dir, true)?;
        for name in [TC_EGRESS, TC_INGRESS] {
            let classifier: &mut SchedClassifier = program(&mut ebpf, name)?;
            classifier.load().map_err(refused(name))?;
        }
        for object in [&mut ebpf, &mut twin] {
            let xdp: &mut Xdp = program(object, XDP)?;
            xdp.load().map_err(refused(XDP))?;
        }
        let maps = Maps::take(&mut ebpf, &mut twin)?;
        let records = Arc::new(Records::open(&options.pin_dir)?);
        draw_secret(&dir)?;
        let live = Live::read(&maps)?;
        let mut datapath = Self {
            options,
            ebpf,
            twin,
            maps,
            records,
            live,
            _lock: lock,
        };
        datapath.close_filter();
        datapath.set_near();
        datapath.set_near_frontends(None);
        datapath.doubt_replies()?;
        Ok(datapath)
    }

    /// Removes the maps of other ABI versions: call it once the links run this
    /// version's programs, since nothing reads the old ones any more.
    pub fn remove_other_versions(&self) -> Result<(), DatapathError> {
        let own = maps_dir(&self.options.pin_dir);
        let dir = &self.options.pin_dir;
        for entry in fs::read_dir(dir).map_err(DatapathError::file(dir))? {
            let path = entry.map_err(DatapathError::file(dir))?.path();
            if path != own && is_maps_dir(&path) {
                super::remove_tree(&path, &mut Vec::new())?;
                tracing::info!("removed {}, maps of another version", path.display());
            }
        }
        Ok(())
    }

    /// The packet log, where it was asked for: drain it to keep its buffer from filling.
    pub fn packet_log(
        &mut self,
    ) -> Result<Option<aya_log::EbpfLogger<&'static dyn log::Log>>, DatapathError> {
        if !self.options.log_packets {
            return Ok(None);
        }
        aya_log::EbpfLogger::init(&mut self.ebpf)
            .map(Some)
            .map_err(|error| DatapathError::Map {
                map: "AYA_LOGS",
                reason: causes(&error),
            })
    }
}

pub(super) fn maps_dir(pin_dir: &Path) -> PathBuf {
    pin_dir.join(format!("v{ABI_VERSION}"))
}

/// Whether a path below the pin directory is one version's maps.
pub(super) fn is_maps_dir(path: &Path) -> bool {
    path.is_dir()
        && path
            .file_name()
            .and_then(|name| name.to_str())
            .and_then(|name| name.strip_prefix('v'))
            .is_some_and(|version| version.parse::<u32>().is_ok())
}

/// The XDP program for one kind of interface, loaded.
pub(super) fn xdp_program(ebpf: &mut Ebpf, native: bool) -> Result<&mut Xdp, DatapathError> {
    let name = if native { XDP } else { XDP_GENERIC };
    let xdp: &mut Xdp = program(ebpf, name)?;
    if xdp.fd().is_err() {
        xdp.load().map_err(refused(name))?;
    }
    Ok(xdp)
}

pub(super) fn program<'a, T>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut T, DatapathError>
where
    &'a mut T: TryFrom<&'a mut Program>,
{
    ebpf.program_mut(name)
        .and_then(|program| program.try_into().ok())
        .ok_or_else(|| DatapathError::Object {
            what: format!("program {name}"),
        })
}

fn refused(program: &'static str) -> impl FnOnce(aya::programs::ProgramError) -> DatapathError {
    move |error| DatapathError::Load {
        program: program.into(),
        reason: causes(&error),
    }
}

fn load(options: &Options, dir: &Path, dry_run: bool) -> Result<Ebpf, DatapathError> {
    let fast = u8::from(!dry_run && !options.log_packets);
    let dry_run = u8::from(dry_run);
    let leave_gone = u8::from(options.gone_flows == GoneFlows::Leave);
    let log_level = if options.log_packets { u8::MAX } else { 0 };
    let pinned = records::pinned_buckets(dir)?;
    let buckets = pinned.unwrap_or_else(|| cell::buckets(options.max_flows));
    let mut loader = EbpfLoader::new();
    loader
        .override_global(config::DRY_RUN, &dry_run, true)
        .override_global(config::FAST, &fast, true)
        .override_global(config::LEAVE_GONE, &leave_gone, true)
        .override_global(config::BUCKETS, &buckets, true)
        .override_global(config::SEED, &options.seed, true)
        .override_global("AYA_LOG_LEVEL", &log_level, true);
    for (name, _, _, capacity) in PINNED {
        loader.map_pin_path(name, dir.join(name));
        if capacity.is_none() {
            let entries = match name {
                "ENDS" => buckets * WAYS,
                "REPLIES" => reply_buckets(buckets),
                _ => buckets,
            };
            loader.map_max_entries(name, entries);
        }
    }
    loader.load(OBJECT).map_err(|error| DatapathError::Load {
        program: "object".into(),
        reason: causes(&error),
    })
}

/// Sees to it that clients do not know where their flows stand, from when on there are any.
fn draw_secret(dir: &Path) -> Result<(), DatapathError> {
    let data = MapData::from_pin(dir.join("SECRET")).map_err(DatapathError::map("SECRET"))?;
    let secret = Words::new("SECRET", data, 1)?;
    if secret.get(0) == 0 {
        secret.set(0, records::random());
    }
    Ok(())
}

/// aya reuses a pinned map whatever it is, so compare it first.
fn check_pinned(dir: &Path) -> Result<(), DatapathError> {
    for (name, key_size, value_size, capacity) in PINNED {
        let path = dir.join(name);
        if !path.exists() {
            continue;
        }
        let info = aya::maps::MapInfo::from_pin(&path).map_err(|error| DatapathError::Map {
            map: name,
            reason: causes(&error),
        })?;
        let capacity = capacity.unwrap_or(info.max_entries() as usize);
        let shape = |key, value, capacity| format!("{key}→{value} bytes × {capacity}");
        let found = shape(info.key_size(), info.value_size(), info.max_entries());
        let expected = shape(key_size as u32, value_size as u32, capacity as u32);
        if found != expected {
            return Err(DatapathError::ForeignMap {
                path,
                found,
                expected,
            });
        }
    }
    Ok(())
}

impl Maps {
    fn take(ebpf: &mut Ebpf, twin: &mut Ebpf) -> Result<Self, DatapathError> {
        fn typed<T: TryFrom<aya::maps::Map, Error = aya::maps::MapError>>(
            ebpf: &mut Ebpf,
            name: &'static str,
        ) -> Result<T, DatapathError> {
            ebpf.take_map(name)
                .ok_or_else(|| DatapathError::Object {
                    what: format!("map {name}"),
                })?
                .try_into()
                .map_err(DatapathError::map(name))
        }
        fn words(ebpf: &mut Ebpf, name: &'static str, len: usize) -> Result<Words, DatapathError> {
            match ebpf.take_map(name) {
                Some(aya::maps::Map::Array(data)) => Words::new(name, data, len),
                _ => Err(DatapathError::Object {
                    what: format!("array map {name}"),
                }),
            }
        }
        Ok(Self {
            addresses: typed(ebpf, "ADDRESSES")?,
            frontends: typed(ebpf, "FRONTENDS")?,
            near_frontends: words(ebpf, "NEAR_FRONTENDS", NearFrontend::WORDS)?,
            internal: typed(ebpf, "INTERNAL")?,
            sources: typed(ebpf, "SOURCES")?,
            affinity: typed(ebpf, "AFFINITY")?,
            affinity_ticks: typed(ebpf, "AFFINITY_TICKS")?,
            services: words(ebpf, "SERVICES", config::MAX_TABLES)?,
            slots: words(ebpf, "SLOTS", config::MAX_SLOTS)?,
            turns: typed(ebpf, "TURNS")?,
            backends: typed(ebpf, "BACKENDS")?,
            primaries: typed(ebpf, "PRIMARIES")?,
            devices: typed(ebpf, "DEVICES")?,
            filter: words(ebpf, "FILTER", filter::LEN)?,
            near: words(ebpf, "NEAR", Near::LEN)?,
            near_sources: words(ebpf, "NEAR_SOURCES", 2 * flow::SOURCES)?,
            epoch: words(ebpf, "EPOCH", 1)?,
            hops: words(ebpf, "HOPS", hops::HOP_WORDS * config::MAX_BACKENDS)?,
            client_hops: words(
                ebpf,
                "CLIENT_HOPS",
                hops::CLIENT_HOP_WORDS * hop::CLIENT_HOPS,
            )?,
            claims: typed(ebpf, "CLAIMS")?,
            formers: typed(ebpf, "FORMERS")?,
            verdicts: typed(ebpf, "VERDICTS")?,
            service_stats: typed(ebpf, "SERVICE_STATS")?,
            backend_stats: typed(ebpf, "BACKEND_STATS")?,
            trace: typed(twin, "TRACE")?,
        })
    }
}
