//! The node's own sockets: the programs on a cgroup, whose links are pinned like those of
//! interfaces, and the frontends that they know.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
};

use aya::programs::{CgroupAttachMode, CgroupSockAddr, links::FdLink};

use super::{
    Datapath, DatapathError,
    apply::{Applied, Change},
    causes,
    difference::{absent, differing, put, take},
    load::{LINKS, program},
    unpin,
};

/// What answers a call comes first: where nothing was translated it does nothing.
const PROGRAMS: [&str; 8] = [
    "naru_getpeername4",
    "naru_getpeername6",
    "naru_recvmsg4",
    "naru_recvmsg6",
    "naru_sendmsg4",
    "naru_sendmsg6",
    "naru_connect4",
    "naru_connect6",
];

impl Datapath {
    /// Attaches the socket programs to a cgroup (version 2), in the place of those of an
    /// earlier agent; without one takes such away.
    ///
    /// For a moment old and new both run: what one has translated is no frontend to the
    /// other.
    pub fn attach_sockets(&mut self, cgroup: Option<&Path>) -> Result<(), DatapathError> {
        let Some(path) = cgroup else {
            return PROGRAMS
                .iter()
                .try_for_each(|name| unpin::link(&self.socket_pin(name)));
        };
        let cgroup = File::open(path).map_err(DatapathError::file(path))?;
        for name in PROGRAMS {
            let failed = |reason: String| DatapathError::Cgroup {
                path: path.to_owned(),
                program: name,
                reason,
            };
            let pin = self.socket_pin(name);
            let socket: &mut CgroupSockAddr = program(&mut self.ebpf, name)?;
            if socket.fd().is_err() {
                socket.load().map_err(|error| DatapathError::Load {
                    program: name.into(),
                    reason: causes(&error),
                })?;
            }
            // Links always go beside others; the kernel refuses to be told so.
            let id = socket
                .attach(&cgroup, CgroupAttachMode::Single)
                .map_err(|error| failed(causes(&error)))?;
            let link = socket
                .take_link(id)
                .map_err(|error| failed(causes(&error)))?;
            // A BPF file system takes no dots in names.
            let fresh = self.socket_pin(&format!("{name}-new"));
            if fresh.exists() {
                unpin::link(&fresh)?;
            }
            FdLink::try_from(link)
                .map_err(|error| failed(causes(&error)))?
                .pin(&fresh)
                .map_err(|error| failed(causes(&error)))?;
            unpin::link(&pin)?;
            fs::rename(&fresh, &pin).map_err(DatapathError::file(&pin))?;
        }
        Ok(())
    }

    /// Makes sockets find the services of an image, whose slots are in place.
    pub(super) fn exchange_internal(
        &mut self,
        change: &Change<'_>,
        applied: &mut Applied,
    ) -> Result<(), DatapathError> {
        let Change { before, image } = change;
        let entries = differing(&before.internal, &image.internal);
        let gone = absent(&before.internal, &image.internal);
        let (map, live) = (&mut self.maps.internal, &mut self.live.internal);
        applied.frontends += put("INTERNAL", map, live, entries)?;
        applied.frontends += take("INTERNAL", map, live, gone)?;
        Ok(())
    }

    fn socket_pin(&self, name: &str) -> PathBuf {
        self.options.pin_dir.join(LINKS).join(name)
    }
}
