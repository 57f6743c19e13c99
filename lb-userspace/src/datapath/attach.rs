//! Links: programs on interfaces, pinned so that they outlive the agent.

use std::{collections::BTreeSet, fs, path::PathBuf};

use aya::programs::{
    ProgramError, XdpMode,
    links::{FdLink, LinkError, PinnedLink},
    xdp::XdpLink,
};
use nix::errno::Errno;
use serde::{Deserialize, Serialize};

use super::{
    Datapath, DatapathError, causes,
    load::{LINKS, TC_EGRESS, TC_INGRESS, XDP, xdp_program},
    tc::TcKind,
    unpin,
};

/// Which kind of XDP the operator asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum AttachMode {
    /// Native where the driver can and XDP sees packets as they are on a wire, generic
    /// otherwise.
    #[default]
    Auto,
    /// In the driver, or not at all.
    Native,
    /// In the kernel's receive path: any interface, slower.
    Generic,
}

/// How the programs run on an interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    /// The interface's name.
    pub interface: String,
    /// Its index.
    pub ifindex: u32,
    /// Whether XDP runs in the driver (`native`) or in the receive path (`generic`).
    pub native: bool,
    /// How the classifiers are attached.
    pub tc: TcKind,
}

/// Why XDP could not be attached, as far as the agent acts on it.
enum XdpFailure {
    /// The driver cannot; generic XDP may.
    Unsupported(String),
    /// Another program is there.
    Occupied,
    /// Anything else.
    Other(String),
}

impl Datapath {
    /// Attaches the programs to an interface, or replaces those of an earlier agent
    /// there without losing a packet. The reverse path comes first.
    pub fn attach(
        &mut self,
        interface: &str,
        ifindex: u32,
        mode: AttachMode,
    ) -> Result<Attachment, DatapathError> {
        let tc = self.attach_classifiers(interface, ifindex)?;
        let native = self.attach_xdp(interface, ifindex, mode)?;
        Ok(Attachment {
            interface: interface.to_owned(),
            ifindex,
            native,
            tc,
        })
    }

    /// Whether all links of an attachment are still pinned.
    pub fn is_attached(&self, attachment: &Attachment) -> bool {
        let index = attachment.ifindex;
        let tc = |name| self.tc_pin(name, index, attachment.tc).exists();
        tc(TC_EGRESS) && tc(TC_INGRESS) && self.xdp_pin(index, attachment.native).exists()
    }

    /// Takes the programs off every interface whose index is not in `keep`, and removes
    /// the pins of interfaces that are gone. Gives the indices.
    pub fn detach_others(&mut self, keep: &BTreeSet<u32>) -> Result<BTreeSet<u32>, DatapathError> {
        let dir = self.options.pin_dir.join(LINKS);
        let mut detached = BTreeSet::new();
        for entry in fs::read_dir(&dir).map_err(DatapathError::file(&dir))? {
            let path = entry.map_err(DatapathError::file(&dir))?.path();
            let index = path
                .file_name()
                .and_then(|name| name.to_str())
                .and_then(|name| name.split_once('@')?.1.parse().ok());
            if let Some(index) = index.filter(|index| !keep.contains(index)) {
                unpin::link(&path)?;
                detached.insert(index);
            }
        }
        Ok(detached)
    }

    /// Links are pinned by interface index: a name may be given to another device.
    pub(super) fn pin(&self, kind: &str, ifindex: u32) -> PathBuf {
        self.options
            .pin_dir
            .join(LINKS)
            .join(format!("{kind}@{ifindex}"))
    }

    /// Attaches XDP; true where it runs natively.
    fn attach_xdp(
        &mut self,
        interface: &str,
        ifindex: u32,
        mode: AttachMode,
    ) -> Result<bool, DatapathError> {
        let wanted: &[bool] = match mode {
            AttachMode::Auto => &[true, false],
            AttachMode::Native => &[true],
            AttachMode::Generic => &[false],
        };
        // An earlier agent's link cannot change its kind: go on with it where it will do.
        for native in [true, false] {
            if !wanted.contains(&native) {
                unpin::link(&self.xdp_pin(ifindex, native))?;
            } else if self.take_over_xdp(interface, ifindex, native)? {
                return Ok(native);
            }
        }
        for &native in wanted {
            match self.new_xdp_link(ifindex, native) {
                Ok(()) => return Ok(native),
                Err(XdpFailure::Unsupported(reason)) if mode == AttachMode::Auto && native => {
                    tracing::info!(
                        "{interface}: its driver has no native XDP ({reason}); using generic XDP"
                    );
                }
                Err(XdpFailure::Unsupported(reason)) => {
                    return Err(DatapathError::NoNativeXdp {
                        interface: interface.to_owned(),
                        reason,
                    });
                }
                Err(XdpFailure::Occupied) => {
                    return Err(DatapathError::Occupied {
                        interface: interface.to_owned(),
                    });
                }
                Err(XdpFailure::Other(reason)) => {
                    return Err(DatapathError::Attach {
                        interface: interface.to_owned(),
                        program: XDP,
                        reason,
                    });
                }
            }
        }
        unreachable!("every list of wanted kinds ends in a return")
    }

    fn xdp_pin(&self, ifindex: u32, native: bool) -> PathBuf {
        let kind = if native { "xdp-native" } else { "xdp-generic" };
        self.pin(kind, ifindex)
    }

    /// Puts this program under an earlier agent's link, if there is a live one.
    fn take_over_xdp(
        &mut self,
        interface: &str,
        ifindex: u32,
        native: bool,
    ) -> Result<bool, DatapathError> {
        let pin = self.xdp_pin(ifindex, native);
        let failed = |error: String| DatapathError::Attach {
            interface: interface.to_owned(),
            program: XDP,
            reason: error,
        };
        let Some(old) = pinned(&pin).map_err(|error| failed(causes(&error)))? else {
            return Ok(false);
        };
        let link = XdpLink::try_from(FdLink::from(old)).map_err(|error| failed(causes(&error)))?;
        let xdp = xdp_program(&mut self.ebpf, native)?;
        match xdp.attach_to_link(link) {
            Ok(_) => Ok(true),
            Err(error) if device_is_gone(&error) => {
                fs::remove_file(&pin).map_err(DatapathError::file(&pin))?;
                Ok(false)
            }
            Err(error) => Err(failed(causes(&error))),
        }
    }

    fn new_xdp_link(&mut self, ifindex: u32, native: bool) -> Result<(), XdpFailure> {
        let other = |error: &dyn std::error::Error| XdpFailure::Other(causes(error));
        let pin = self.xdp_pin(ifindex, native);
        let xdp = xdp_program(&mut self.ebpf, native).map_err(|error| other(&error))?;
        let mode = if native {
            XdpMode::Driver
        } else {
            XdpMode::Skb
        };
        let id = xdp
            .attach_to_if_index(ifindex, mode)
            .map_err(|error| match errno(&error) {
                Some(Errno::EBUSY | Errno::EEXIST) => XdpFailure::Occupied,
                Some(Errno::EOPNOTSUPP | Errno::ERANGE | Errno::EINVAL) => {
                    XdpFailure::Unsupported(causes(&error))
                }
                _ => other(&error),
            })?;
        let link = xdp.take_link(id).map_err(|error| other(&error))?;
        // aya falls back to netlink where links are refused; such an attachment cannot
        // be pinned and would end with the agent. Dropping it detaches.
        let link = FdLink::try_from(link)
            .map_err(|_| XdpFailure::Unsupported("the kernel refuses an XDP link".into()))?;
        link.pin(&pin).map_err(|error| other(&error))?;
        Ok(())
    }
}

/// The link pinned at `path`, if there is one.
pub(super) fn pinned(path: &std::path::Path) -> Result<Option<PinnedLink>, LinkError> {
    match PinnedLink::from_pin(path) {
        Ok(link) => Ok(Some(link)),
        Err(LinkError::SyscallError(error))
            if error.io_error.kind() == std::io::ErrorKind::NotFound =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

pub(super) fn device_is_gone(error: &ProgramError) -> bool {
    errno(error) == Some(Errno::ENOLINK)
}

/// The errno at the bottom of an error's causes.
pub(super) fn errno(error: &(dyn std::error::Error + 'static)) -> Option<Errno> {
    let mut current = Some(error);
    while let Some(error) = current {
        if let Some(code) = error
            .downcast_ref::<std::io::Error>()
            .and_then(std::io::Error::raw_os_error)
        {
            return Some(Errno::from_raw(code));
        }
        current = error.source();
    }
    None
}
