//! The classifiers on an interface: TCX links, or on older kernels filters of the
//! `clsact` qdisc.
//!
//! A filter is not a thing that can be pinned, and stays by itself. What is pinned in
//! its place is its program, under a name that says so: that is how the next agent, and
//! `naru detach`, know of it.

use std::path::{Path, PathBuf};

use aya::programs::{
    SchedClassifier,
    links::{FdLink, Link},
    tc::{self, NlOptions, SchedClassifierLink, TcAttachOptions, TcAttachType, TcHandle},
};
use nix::{errno::Errno, net::if_::if_indextoname};
use serde::{Deserialize, Serialize};

use super::{
    Datapath, DatapathError,
    attach::{device_is_gone, errno, pinned},
    causes,
    load::{TC_EGRESS, TC_INGRESS, program},
    preflight::kernel_version,
    unpin,
};

/// How TC programs are attached, as the operator asks for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum TcMode {
    /// TCX where the kernel has it, filters otherwise.
    #[default]
    Auto,
    /// TCX links, which kernel 6.6 brought.
    Tcx,
    /// Filters of the clsact qdisc.
    Clsact,
}

/// How TC programs are attached to an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TcKind {
    /// By TCX links.
    Tcx,
    /// As filters of the clsact qdisc.
    Clsact,
}

/// Naru's filters among others of an interface: before those that asked for no place
/// (tc counts down from 49152), after those that asked to be first.
const PRIORITY: u16 = 10;
/// The letters of `naru`.
const HANDLE: TcHandle = TcHandle::new(0x6e61, 0x7275);
/// The end of a pin's kind where it stands for a filter.
const FILTER: &str = "-clsact";

// === impl TcMode ===

impl TcMode {
    /// What to do on this kernel.
    fn kind(self) -> TcKind {
        match self {
            Self::Tcx => TcKind::Tcx,
            Self::Clsact => TcKind::Clsact,
            Self::Auto if kernel_version() >= (6, 6) => TcKind::Tcx,
            Self::Auto => TcKind::Clsact,
        }
    }
}

impl Datapath {
    /// Attaches both classifiers, the reverse path first, in the place of those of an
    /// earlier agent.
    pub(super) fn attach_classifiers(
        &mut self,
        interface: &str,
        ifindex: u32,
    ) -> Result<TcKind, DatapathError> {
        let kind = self.options.tc.kind();
        for (name, direction) in [
            (TC_EGRESS, TcAttachType::Egress),
            (TC_INGRESS, TcAttachType::Ingress),
        ] {
            let failed = |reason: String| DatapathError::Attach {
                interface: interface.to_owned(),
                program: name,
                reason,
            };
            let pin = self.tc_pin(name, ifindex, kind);
            let other = self.tc_pin(name, ifindex, kind.other());
            let classifier: &mut SchedClassifier = program(&mut self.ebpf, name)?;
            match kind {
                TcKind::Tcx => link(classifier, interface, direction, &pin),
                TcKind::Clsact => filter(classifier, interface, direction, &pin),
            }
            .map_err(failed)?;
            // Only now, so that there is no moment without either. What both meet is
            // changed once: a packet that was rewritten is no service's any more.
            unpin::link(&other)?;
        }
        Ok(kind)
    }

    /// Where the link or the filter of a classifier is pinned.
    pub(super) fn tc_pin(&self, name: &str, ifindex: u32, kind: TcKind) -> PathBuf {
        match kind {
            TcKind::Tcx => self.pin(name, ifindex),
            TcKind::Clsact => self.pin(&format!("{name}{FILTER}"), ifindex),
        }
    }
}

// === impl TcKind ===

impl TcKind {
    /// As the CLI prints it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tcx => "tcx",
            Self::Clsact => "clsact",
        }
    }

    fn other(self) -> Self {
        match self {
            Self::Tcx => Self::Clsact,
            Self::Clsact => Self::Tcx,
        }
    }
}

/// Attaches by a TCX link pinned at `pin`, or puts the program under the one there.
fn link(
    classifier: &mut SchedClassifier,
    interface: &str,
    direction: TcAttachType,
    pin: &Path,
) -> Result<(), String> {
    if let Some(old) = pinned(pin).map_err(|error| causes(&error))? {
        let link =
            SchedClassifierLink::try_from(FdLink::from(old)).map_err(|error| causes(&error))?;
        match classifier.attach_to_link(link) {
            // The pin stays; the link's handle closes with the program.
            Ok(_) => return Ok(()),
            Err(error) if device_is_gone(&error) => remove(pin)?,
            Err(error) => return Err(causes(&error)),
        }
    }
    let options = TcAttachOptions::TcxOrder(Default::default());
    let id = classifier
        .attach_with_options(interface, direction, options)
        .map_err(|error| causes(&error))?;
    let link = classifier.take_link(id).map_err(|error| causes(&error))?;
    FdLink::try_from(link)
        .map_err(|error| causes(&error))?
        .pin(pin)
        .map_err(|error| causes(&error))?;
    Ok(())
}

/// Attaches as a filter, or puts the program into the filter that is there; either way
/// the kernel exchanges it between two packets.
fn filter(
    classifier: &mut SchedClassifier,
    interface: &str,
    direction: TcAttachType,
    pin: &Path,
) -> Result<(), String> {
    match tc::qdisc_add_clsact(interface) {
        Err(error) if errno(&error) != Some(Errno::EEXIST) => return Err(causes(&error)),
        _ => {}
    }
    let existing = SchedClassifierLink::attached(interface, direction, PRIORITY, HANDLE, None)
        .map_err(|error| causes(&error))?;
    let id = match classifier.attach_to_link(existing) {
        Err(error) if errno(&error) == Some(Errno::ENOENT) => {
            let options = TcAttachOptions::Netlink(NlOptions {
                priority: PRIORITY,
                handle: HANDLE,
                classid: None,
            });
            classifier.attach_with_options(interface, direction, options)
        }
        result => result,
    }
    .map_err(|error| causes(&error))?;
    // Dropped, it would delete the filter, which is to outlive the agent.
    std::mem::forget(classifier.take_link(id).map_err(|error| causes(&error))?);
    if pin.exists() {
        remove(pin)?;
    }
    classifier.pin(pin).map_err(|error| causes(&error))
}

fn remove(pin: &Path) -> Result<(), String> {
    std::fs::remove_file(pin).map_err(|error| format!("{}: {error}", pin.display()))
}

/// The interface and direction of the filter that a pin stands for, if it does.
pub(super) fn filter_of(pin: &Path) -> Option<(u32, TcAttachType)> {
    let (kind, index) = pin.file_name()?.to_str()?.split_once('@')?;
    let direction = match kind.strip_suffix(FILTER)? {
        TC_EGRESS => TcAttachType::Egress,
        TC_INGRESS => TcAttachType::Ingress,
        _ => return None,
    };
    Some((index.parse().ok()?, direction))
}

/// Deletes Naru's filter. One that went with its interface, or by another's hand, is no
/// error; the qdisc stays, since others may have filters there.
pub(super) fn delete_filter(ifindex: u32, direction: TcAttachType) -> Result<(), String> {
    let Ok(name) = if_indextoname(ifindex) else {
        return Ok(());
    };
    let name = name.to_string_lossy();
    let link = SchedClassifierLink::attached(&name, direction, PRIORITY, HANDLE, None)
        .map_err(|error| causes(&error))?;
    match link.detach() {
        // The filter is gone already, or the qdisc with it.
        Err(error) if matches!(errno(&error), Some(Errno::ENOENT | Errno::EINVAL)) => Ok(()),
        Err(error) => Err(causes(&error)),
        Ok(()) => Ok(()),
    }
}
