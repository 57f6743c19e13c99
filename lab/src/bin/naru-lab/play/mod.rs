//! `lab`: a LAN to play in, which stays until it is taken down.
//!
//! A process of its own, the keeper, owns the lab and does what it is told over a
//! socket. Where it dies, nothing is left that the next lab, or `lab down`, does not
//! remove.

mod ask;
mod keeper;
mod kept;
mod record;
mod show;

use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use naru_lab::{OwnerChoice, Topology};

use ask::Request;
use record::Record;

/// How long a lab may take to be there: a node is several seconds of a core.
const PATIENCE: Duration = Duration::from_secs(300);

/// What to do with the lab.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The `naru` that runs on the nodes
    #[arg(long, value_name = "PATH")]
    naru: PathBuf,
    /// What control planes of clusters run
    #[arg(long, value_name = "PATH", hide = true)]
    control_plane: Option<PathBuf>,
    /// Which lab, where there are several
    #[arg(long, value_name = "NAME")]
    lab: Option<String>,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(clap::Subcommand)]
enum Verb {
    /// Make a LAN with an agent on every node, and leave it there
    Up(Wanted),
    /// Run a command on a machine: a node, a client or a pod; a shell, where none is named
    Exec {
        /// The machine
        node: String,
        /// The command; `naru` reaches that node's agent
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<String>,
    },
    /// Pull a machine's cable
    Cut {
        /// The machine
        node: String,
    },
    /// Plug a machine's cable in
    Heal {
        /// The machine
        node: String,
    },
    /// Take a node's power away: agent and pods are gone, and nobody says goodbye
    Off {
        /// The node
        node: String,
    },
    /// Switch a node on again
    On {
        /// The node
        node: String,
    },
    /// What there is, how it is, and who owns which address
    Status,
    /// What a node's agent, or a pod, has logged
    Logs {
        /// The node or pod
        node: String,
        /// Go on with what comes
        #[arg(short, long)]
        follow: bool,
    },
    /// Remove the lab
    Down,
}

/// A lab that is to be made.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Wanted {
    /// The topology, by which the lab is known: nuc, or vxlan with pods behind VXLAN
    name: Name,
    /// So many nodes
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=50))]
    nodes: u8,
    /// The first node owns everything: without membership
    #[arg(long)]
    static_owner: bool,
    /// A cluster of Kubernetes on them: API server, controllers, kubelets, DNS
    #[arg(long, conflicts_with = "static_owner")]
    kubernetes: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Name {
    Nuc,
    Vxlan,
}

/// Arguments of the keeper, which `lab up` starts.
#[derive(clap::Args)]
pub(crate) struct KeeperArgs {
    #[arg(long)]
    naru: PathBuf,
    #[arg(long)]
    control_plane: Option<PathBuf>,
    #[command(flatten)]
    wanted: Wanted,
}

// === impl Wanted ===

impl Wanted {
    fn topology(&self) -> Topology {
        let mut topology = self.nodes();
        let pods = usize::from(self.nodes) + 2;
        topology.add_pods("nest-server", naru_lab::PodKind::Echo, 3000, pods);
        topology
    }

    /// The machines, without pods.
    fn nodes(&self) -> Topology {
        let topology = Topology::nuc_of(self.nodes);
        match self.name {
            Name::Nuc => topology,
            Name::Vxlan => topology.with_vxlan(),
        }
    }

    fn owner(&self) -> OwnerChoice {
        match self.static_owner {
            true => OwnerChoice::First,
            false => OwnerChoice::Elected,
        }
    }
}

// === impl Name ===

impl Name {
    fn text(self) -> &'static str {
        match self {
            Self::Nuc => "nuc",
            Self::Vxlan => "vxlan",
        }
    }
}

/// The process that owns a lab.
pub(crate) fn keep(args: &KeeperArgs) -> anyhow::Result<()> {
    keeper::run(&args.naru, args.control_plane.as_deref(), &args.wanted)
}

/// One verb; says whether it went well.
pub(crate) fn run(args: &Args) -> anyhow::Result<bool> {
    if let Verb::Up(wanted) = &args.verb {
        return up(args, wanted).map(|()| true);
    }
    let record = Record::find(args.lab.as_deref())?;
    if let Verb::Down = args.verb {
        return down(&record).map(|()| true);
    }
    if !record.is_kept()? {
        bail!(
            "lab {} has lost its keeper: `cargo xtask lab down` removes what is left",
            record.name
        );
    }
    let tell = |request: &Request| -> anyhow::Result<bool> {
        println!("{}", ask::keeper(&record, request)?.text);
        Ok(true)
    };
    match &args.verb {
        Verb::Exec { node, command } => Err(exec(&record, node, command)),
        Verb::Logs { node, follow } => Err(logs(&record, node, *follow)),
        Verb::Cut { node } => tell(&Request::Cut(node.clone())),
        Verb::Heal { node } => tell(&Request::Heal(node.clone())),
        Verb::Off { node } => tell(&Request::Off(node.clone())),
        Verb::On { node } => tell(&Request::On(node.clone())),
        Verb::Status => tell(&Request::Status),
        // Both were dealt with above.
        Verb::Up(_) | Verb::Down => Ok(true),
    }
}

fn up(args: &Args, wanted: &Wanted) -> anyhow::Result<()> {
    let name = wanted.name.text();
    if let Some(record) = Record::read(name)? {
        if record.is_kept()? {
            bail!("there is a lab {name} already: `cargo xtask lab down` removes it");
        }
        record.remove()?;
    }
    naru_lab::sweep()?;
    let log = record::log(name);
    let file = record::create(&log)?;
    let naru = args.naru.canonicalize();
    let naru = naru.with_context(|| args.naru.display().to_string())?;
    let own = std::env::current_exe().context("the running program")?;
    println!(
        "A LAN of {} nodes with an agent on each: some seconds a node …",
        wanted.nodes
    );
    let began = Instant::now();
    // A session of its own: it outlives this command and its terminal.
    let mut command = Command::new("setsid");
    command.arg(own).args(["keep", "--naru"]).arg(naru);
    command.args([name, "--nodes", &wanted.nodes.to_string()]);
    if wanted.static_owner {
        command.arg("--static-owner");
    }
    if wanted.kubernetes {
        command.arg("--kubernetes");
    }
    if let Some(plane) = &args.control_plane {
        command.arg("--control-plane").arg(plane);
    }
    command.current_dir("/").stdin(Stdio::null());
    command.stdout(file.try_clone()?).stderr(file);
    let mut keeper = command.spawn().context("cannot run setsid (util-linux)")?;
    let said = || std::fs::read_to_string(&log).unwrap_or_default();
    let record = loop {
        if let Some(record) = Record::read(name)? {
            break record;
        }
        if let Some(status) = keeper.try_wait()? {
            bail!("the lab did not come up ({status}):\n{}", said());
        }
        if began.elapsed() > PATIENCE {
            keeper.kill()?;
            keeper.wait()?;
            naru_lab::sweep()?;
            bail!("no lab after {} s:\n{}", PATIENCE.as_secs(), said());
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    println!(
        "It is there after {:.0} s.\n",
        began.elapsed().as_secs_f64()
    );
    println!("{}\n", ask::keeper(&record, &Request::Status)?.text);
    println!("{}", show::hints(&record));
    Ok(())
}

fn down(record: &Record) -> anyhow::Result<()> {
    if record.is_kept()? {
        println!("{}", ask::keeper(record, &Request::Down)?.text);
        // It holds its lock until it has ended.
        let began = Instant::now();
        while record.is_kept()? && began.elapsed() < Duration::from_secs(10) {
            std::thread::sleep(Duration::from_millis(20));
        }
    } else {
        naru_lab::sweep()?;
        println!(
            "lab {} had lost its keeper; what was left is removed",
            record.name
        );
    }
    record.remove()?;
    let left = naru_lab::left_of(&record.id)?;
    if !left.is_empty() {
        bail!("still there: {left:?}");
    }
    Ok(())
}

/// Becomes a command on a machine; comes back where that fails.
fn exec(record: &Record, node: &str, words: &[String]) -> anyhow::Error {
    let machine = match record.machine(node) {
        Ok(machine) => machine,
        Err(error) => return error,
    };
    let shell = std::env::var("SHELL").unwrap_or_else(|_| "/bin/sh".to_owned());
    let mut command = Command::new("nsenter");
    command.arg(format!("--net=/run/netns/{}", machine.namespace));
    command.arg("--");
    match words {
        [] => command.arg(shell).env("PS1", format!("{node}:\\w# ")),
        words => command.args(words),
    };
    let path = std::env::var("PATH").unwrap_or_default();
    let dirs = record.program_dirs.iter();
    let dirs: String = dirs.map(|dir| format!("{}:", dir.display())).collect();
    command.env(
        "PATH",
        format!("{dirs}/usr/local/sbin:/usr/sbin:/sbin:{path}"),
    );
    if let Some(kubeconfig) = &record.kubeconfig {
        command.env("KUBECONFIG", kubeconfig);
    }
    // The machine's proxy is not the lab's.
    command.env("no_proxy", "*").env("NO_PROXY", "*");
    if let Some(agent) = &machine.agent {
        command.env("NARU_STATE_DIR", &agent.state_dir);
        command.env("NARU_PIN_DIR", &agent.pin_dir);
    }
    let error = command.exec();
    anyhow::Error::new(error).context("cannot run nsenter (util-linux)")
}

/// Becomes a command that shows a log.
fn logs(record: &Record, node: &str, follow: bool) -> anyhow::Error {
    let log = match record.machine(node) {
        Ok(machine) => machine.log.clone(),
        Err(error) => return error,
    };
    let Some(log) = log else {
        return anyhow::anyhow!("{node} logs nothing: it only asks");
    };
    let mut command = Command::new(if follow { "tail" } else { "cat" });
    if follow {
        command.args(["-n", "50", "-F"]);
    }
    anyhow::Error::new(command.arg(log).exec()).context("cannot show the log")
}
