//! The items of the set-up.

use std::{env, fs, path::Path};

use super::{
    go,
    item::{Get, Item, Need, Probe, Remedy, Step},
    kernel_part::{
        bpf_linker, ebpf_clippy, ebpf_compiler, get_bpf_linker, get_ebpf_clippy, get_ebpf_compiler,
    },
};
use crate::{controlplane::ASSETS, host, image};

const CARGO_DEB: &str = "3.8.0";
const CARGO_DENY: &str = "0.20.2";
const CARGO_FUZZ: &str = "0.13.2";
const BPFFS: &str = "/sys/fs/bpf";

const BUILD: &[Need] = &[Need::Build];
const LAB: &[Need] = &[Need::Lab];
const STYLE: &[Need] = &[Need::Style];
const LINT: &[Need] = &[Need::Lint];
const FUZZ: &[Need] = &[Need::Fuzz];
/// Both run kernels of Debian in virtual machines.
const GUESTS: &[Need] = &[Need::Kernel, Need::Vm];
const PACKAGE: &[Need] = &[Need::Package];
const IMAGE: &[Need] = &[Need::Image];
const VM: &[Need] = &[Need::Vm];
const BENCH: &[Need] = &[Need::Bench];
const CONTROL_PLANE: &[Need] = &[Need::ControlPlane];

pub(super) const ITEMS: &[Item] = &[
    Item {
        name: "C compiler",
        purpose: "build what the agent links to",
        needs: BUILD,
        probe: Probe::Program("cc"),
        get: Get::Packages(&["gcc", "libc6-dev"]),
    },
    Item {
        name: "pkg-config",
        purpose: "build what the agent links to",
        needs: BUILD,
        probe: Probe::Program("pkg-config"),
        get: Get::Packages(&["pkg-config"]),
    },
    Item {
        name: "eBPF compiler",
        purpose: "build the kernel part",
        needs: BUILD,
        probe: Probe::Call(ebpf_compiler),
        get: Get::Choice(get_ebpf_compiler),
    },
    Item {
        name: "bpf-linker",
        purpose: "link the kernel part",
        needs: BUILD,
        probe: Probe::Call(bpf_linker),
        get: Get::Choice(get_bpf_linker),
    },
    Item {
        needs: &[Need::Lab, Need::Kernel],
        ..tool("ip", &["iproute2"], "make the lab's network")
    },
    tool(
        "ethtool",
        &["ethtool"],
        "set the offloads of the lab's devices",
    ),
    tool(
        "nft",
        &["nftables"],
        "put rules of a CNI on the lab's nodes",
    ),
    tool(
        "iptables",
        &["iptables"],
        "put rules of a CNI on the lab's nodes",
    ),
    tool(
        "conntrack",
        &["conntrack"],
        "look at what the kernel tracks in the lab",
    ),
    tool(
        "tcpdump",
        &["tcpdump"],
        "see that a client meets the virtual IP alone",
    ),
    tool(
        "dnsmasq",
        &["dnsmasq-base"],
        "serve UDP from the lab's pods",
    ),
    tool("dig", &["bind9-dnsutils"], "ask the lab's pods over UDP"),
    tool("wrk", &["wrk"], "load the lab's services"),
    tool("ab", &["apache2-utils"], "load the lab's services"),
    tool("curl", &["curl"], "ask the lab's pods over TCP"),
    tool(
        "arping",
        &["iputils-arping"],
        "see who answers for a virtual IP",
    ),
    tool(
        "ping",
        &["iputils-ping"],
        "see that the lab's network is whole",
    ),
    tool(
        "nsenter",
        &["util-linux"],
        "run commands on the lab's nodes",
    ),
    Item {
        name: "libfaketime",
        purpose: "let the clock of a lab's node jump",
        needs: LAB,
        probe: Probe::Call(|| {
            let path = "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1";
            Path::new(path).is_file().then(|| path.to_owned())
        }),
        get: Get::Packages(&["libfaketime"]),
    },
    Item {
        name: "BPF file system",
        purpose: "keep programs and maps while the agent restarts",
        needs: LAB,
        probe: Probe::Call(bpffs),
        get: Get::Steps(|| {
            Remedy::step(Step::new(&["mount", "-t", "bpf", "bpf", BPFFS]).by_root())
        }),
    },
    Item {
        name: "rustfmt",
        purpose: "check the format",
        needs: STYLE,
        probe: Probe::Call(|| version("cargo", &["fmt", "--version"])),
        get: Get::Steps(|| component("rustfmt")),
    },
    Item {
        name: "clippy",
        purpose: "lint the host part",
        needs: STYLE,
        probe: Probe::Call(|| version("cargo", &["clippy", "--version"])),
        get: Get::Steps(|| component("clippy")),
    },
    Item {
        name: "eBPF clippy",
        purpose: "lint the kernel part",
        needs: LINT,
        probe: Probe::Call(ebpf_clippy),
        get: Get::Choice(get_ebpf_clippy),
    },
    Item {
        name: "cargo-deny",
        purpose: "check licences, sources and advisories",
        needs: LINT,
        probe: Probe::Call(|| version("cargo", &["deny", "--version"])),
        get: Get::Steps(|| cargo_tool("cargo-deny", CARGO_DENY)),
    },
    Item {
        name: "cargo-fuzz",
        purpose: "run the fuzz targets",
        needs: FUZZ,
        probe: Probe::Call(|| version("cargo", &["fuzz", "--version"])),
        get: Get::Steps(|| cargo_tool("cargo-fuzz", CARGO_FUZZ)),
    },
    Item {
        name: "C++ compiler",
        purpose: "build what the fuzz targets link to",
        // Clippy runs the script that builds it.
        needs: &[Need::Fuzz, Need::Lint],
        probe: Probe::Program("c++"),
        get: Get::Packages(&["g++"]),
    },
    Item {
        name: "Go",
        purpose: "build a control plane out of Kubernetes' modules",
        needs: CONTROL_PLANE,
        probe: Probe::Call(|| match go::find() {
            Some(go) => version(go.to_str()?, &["version"]),
            None => env::var(ASSETS).ok(),
        }),
        get: Get::Choice(go::get),
    },
    Item {
        needs: CONTROL_PLANE,
        get: Get::Choice(|| daemon(&["prometheus"])),
        ..tool("prometheus", &[], "read metrics, and check the rules")
    },
    Item {
        needs: GUESTS,
        ..tool(
            "qemu-system-x86_64",
            &["qemu-system-x86"],
            "run virtual machines",
        )
    },
    Item {
        needs: GUESTS,
        ..tool(
            "busybox",
            &["busybox-static"],
            "bring the kernels up in virtual machines",
        )
    },
    Item {
        needs: GUESTS,
        ..tool(
            "depmod",
            &["kmod"],
            "find the modules that the kernels need",
        )
    },
    Item {
        name: "Debian's keys",
        purpose: "trust the kernels that are downloaded",
        needs: GUESTS,
        probe: Probe::Call(|| {
            let path = "/usr/share/keyrings/debian-archive-keyring.gpg";
            Path::new(path).is_file().then(|| path.to_owned())
        }),
        get: Get::Packages(&["debian-archive-keyring"]),
    },
    Item {
        name: "cargo-deb",
        purpose: "build the Debian package",
        needs: PACKAGE,
        probe: Probe::Call(|| version("cargo", &["deb", "--version"])),
        get: Get::Steps(|| cargo_tool("cargo-deb", CARGO_DEB)),
    },
    Item {
        needs: PACKAGE,
        ..tool(
            "dpkg-shlibdeps",
            &["dpkg-dev"],
            "find which packages the agent needs",
        )
    },
    Item {
        needs: IMAGE,
        ..tool("musl-gcc", &["musl-tools"], "link a static binary")
    },
    Item {
        name: "Rust for musl",
        purpose: "build a static binary",
        needs: IMAGE,
        probe: Probe::Call(|| {
            let installed = host::output("rustup", &["target", "list", "--installed"])?;
            let target = image::target();
            installed.lines().any(|it| it == target).then_some(target)
        }),
        get: Get::Steps(|| rustup(&["target", "add", &image::target()])),
    },
    Item {
        needs: IMAGE,
        ..tool("buildah", &["buildah"], "build the container image")
    },
    Item {
        needs: VM,
        ..tool(
            "mmdebstrap",
            &["mmdebstrap"],
            "build the disk of the testbed's machines",
        )
    },
    Item {
        needs: VM,
        ..tool(
            "genext2fs",
            &["genext2fs"],
            "build the disk of the testbed's machines",
        )
    },
    Item {
        needs: VM,
        ..tool(
            "resize2fs",
            &["e2fsprogs"],
            "give the disk of the testbed's machines room",
        )
    },
    Item {
        needs: VM,
        ..tool(
            "newuidmap",
            &["uidmap"],
            "build the disk of the testbed's machines without being root",
        )
    },
    Item {
        needs: &[Need::Bench, Need::ControlPlane],
        get: Get::Choice(|| daemon(&["nginx"])),
        ..tool("nginx", &[], "serve HTTP from pods")
    },
    Item {
        name: "nginx' stream module",
        purpose: "pass plain TCP through an ingress controller",
        needs: CONTROL_PLANE,
        probe: Probe::Call(|| {
            let path = "/usr/lib/nginx/modules/ngx_stream_module.so";
            Path::new(path).is_file().then(|| path.to_owned())
        }),
        get: Get::Packages(&["libnginx-mod-stream"]),
    },
    Item {
        name: "PostgreSQL",
        purpose: "keep sessions of a database behind a balancer",
        needs: CONTROL_PLANE,
        probe: Probe::Call(|| {
            let path = "/usr/lib/postgresql";
            (Path::new(path).is_dir() && host::find("psql").is_some()).then(|| path.to_owned())
        }),
        get: Get::Choice(|| daemon(&["postgresql"])),
    },
    Item {
        needs: CONTROL_PLANE,
        ..tool("hey", &["hey"], "load a cluster's services")
    },
    Item {
        needs: CONTROL_PLANE,
        ..tool(
            "openssl",
            &["openssl"],
            "make certificates for Ingress objects",
        )
    },
    Item {
        needs: BENCH,
        get: Get::Choice(|| daemon(&["haproxy"])),
        ..tool("haproxy", &[], "measure beside another balancer")
    },
    Item {
        needs: VM,
        ..tool("vagrant", &["vagrant"], "check the Vagrantfile")
    },
    Item {
        needs: VM,
        ..tool(
            "shellcheck",
            &["shellcheck"],
            "check the scripts of the testbed",
        )
    },
];

/// A program of the lab.
const fn tool(
    name: &'static str,
    packages: &'static [&'static str],
    purpose: &'static str,
) -> Item {
    Item {
        name,
        purpose,
        needs: LAB,
        probe: Probe::Program(name),
        get: Get::Packages(packages),
    }
}

/// Packages that bring a daemon of the same name, which is not to serve this machine.
fn daemon(packages: &'static [&'static str]) -> Remedy {
    let systemd = Path::new("/run/systemd/system").is_dir();
    let stop = |name: &&str| Step::new(&["systemctl", "disable", "--now", name]).by_root();
    Remedy {
        packages,
        steps: packages.iter().filter(|_| systemd).map(stop).collect(),
        ..Remedy::default()
    }
}

/// A tool of cargo's. Without optimisation, because building it would take longer than all else together,
/// and the few seconds that it runs hardly grow.
fn cargo_tool(name: &str, version: &str) -> Remedy {
    let words = [
        "cargo",
        "install",
        name,
        "--version",
        version,
        "--locked",
        "--debug",
    ];
    Remedy::step(Step::new(&words).env("CARGO_PROFILE_DEV_DEBUG", "false"))
}

/// A component of the Rust that runs this.
fn component(name: &str) -> Remedy {
    rustup(&["component", "add", name])
}

pub(super) fn rustup(args: &[&str]) -> Remedy {
    if host::find("rustup").is_none() {
        return Remedy::advice(&format!(
            "install rustup (https://rustup.rs), then: rustup {}",
            args.join(" ")
        ));
    }
    let mut words = vec!["rustup"];
    words.extend(args);
    Remedy::step(Step::new(&words))
}

fn bpffs() -> Option<String> {
    let mounts = fs::read_to_string("/proc/mounts").ok()?;
    mounts
        .lines()
        .map(|line| line.split(' ').collect::<Vec<_>>())
        .any(|fields| fields.get(1..3) == Some(&[BPFFS, "bpf"]))
        .then(|| format!("mounted at {BPFFS}"))
}

/// The first line that a command prints about itself.
pub(super) fn version(program: &str, args: &[&str]) -> Option<String> {
    host::output(program, args)?.lines().next().map(Into::into)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_need_has_items_and_every_item_a_name_of_its_own() {
        for need in Need::ALL {
            assert!(ITEMS.iter().any(|item| item.serves(&[need])), "{need:?}");
        }
        let mut names: Vec<_> = ITEMS.iter().map(|item| item.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), ITEMS.len());
    }
}
