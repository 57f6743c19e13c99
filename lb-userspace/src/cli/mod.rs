//! The command line: what `naru` understands, and what people get to see.

mod agent;
mod controller;
mod dirs;
mod owner;
mod pools;
mod show;
mod top;

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{CommandFactory, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use lb_common::Protocol;
use tracing_subscriber::EnvFilter;

use crate::{
    control::{self, Question, Request, client::ClientError},
    datapath,
    source::{Source, check, flags::Vip, metallb::crd},
};

/// What the client of a cluster says of each attempt is told once, by whoever asked.
const DEFAULT_LOG: &str = "info,kube_client=off";

const EXAMPLES: &str = "\
Examples:
  Balance one address over two servers, on the interface eth0:
    naru agent --vip 192.168.56.11:80 --backend 10.0.0.11:8080 --backend 10.0.0.12:8080 --interface eth0
  Serve the Services and EndpointSlices in a directory, and follow its changes:
    naru agent --manifests /etc/naru/manifests --interface eth0
  Validate them first, without touching the kernel:
    naru check /etc/naru/manifests
  See what is in force, and where a client's packet would go:
    naru status
    naru top
    naru explain 192.168.56.1:40000 192.168.56.11:80
  Take a server out before its maintenance, and put it back:
    naru drain 10.0.0.11
    naru drain 10.0.0.11 --undo
  Take everything away again:
    naru detach

Exit status:
  0  success
  1  failure, or what was checked is invalid
  2  the command line is not understood
  3  no agent is running";

/// An L4 load balancer in the Linux kernel, for bare-metal Kubernetes and for plain Linux.
#[derive(Debug, Parser)]
#[command(name = "naru", version, after_help = EXAMPLES, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    dirs: dirs::Dirs,
}

/// How to print.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people.
    #[default]
    Table,
    /// For programs.
    Json,
}

#[derive(Debug, clap::Args)]
struct Output {
    /// Print a table for people or JSON for programs
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    output: Format,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the balancer: fill the kernel's maps, attach, claim the virtual IPs
    Agent(Box<agent::Args>),
    /// In a cluster: give addresses to Services of type LoadBalancer
    Controller(controller::Args),
    /// Validate manifests or a configuration file without touching the kernel
    Check {
        /// Directory of Kubernetes YAML, or a configuration file
        path: PathBuf,
        #[command(flatten)]
        output: Output,
    },
    /// How the agent is: source, interfaces, announced addresses, packets by verdict
    Status(Output),
    /// The services in force, with their counters
    Services(Output),
    /// The backends in force, with their mode and counters
    Backends(Output),
    /// Services, backends, rates, owners and verdicts, live in the terminal
    Top(top::Args),
    /// The flows that are recorded
    #[command(after_help = "\
Flows of Maglev services need no record while nothing changes, so most of them are not shown.
What is: flows by round robin, of services with session affinity, by nat, of UDP to pods of this
node, and those that began before or while a backend came, went or changed, or while the address
came from another node (state returned: those go back to it). `naru services` counts all that
begin. IDLE counts from the last packet that was noted: of what only the backend sends that may be
some 70 s too much.

Examples:
  naru flows --limit 20
  naru flows -o json")]
    Flows {
        /// Show so many at most
        #[arg(long, value_name = "N", default_value_t = 1000)]
        limit: usize,
        #[command(flatten)]
        output: Output,
    },
    /// What would become of a client's first packet: runs the loaded program on it
    #[command(after_help = "\
Examples:
  naru explain 192.168.56.1:40000 192.168.56.11:80
  naru explain 192.168.56.1:40000 192.168.56.11:53/udp -o json")]
    Explain {
        /// Address and port of the client
        #[arg(value_name = "CLIENT:PORT")]
        client: SocketAddr,
        /// Virtual IP and port
        #[arg(value_name = "VIP:PORT[/udp]")]
        frontend: Vip,
        /// The interface that the packet comes in by
        #[arg(long, value_name = "IF")]
        interface: Option<String>,
        #[command(flatten)]
        output: Output,
    },
    /// Take a backend out of all services: it gets no new flows, those that it has go on
    #[command(after_help = "\
Holds until it is undone, also over a restart of the agent.

Examples:
  naru drain 10.0.0.11:8080          one port of a server
  naru drain 10.0.0.11               all its ports
  naru drain default/web-0           a pod, whatever its address; the namespace may be left out
  naru drain 10.0.0.11 --undo")]
    Drain {
        /// Address and port, address, or name of a pod
        backend: String,
        /// Put it back in
        #[arg(long)]
        undo: bool,
        #[command(flatten)]
        output: Output,
    },
    /// The pools of addresses: how full they are, and who has which
    #[command(after_help = "\
Examples:
  naru pools                                  those of the running agent
  naru pools --manifests /etc/naru/manifests  those in a directory, and what they would give")]
    Pools {
        /// Look at a directory of Kubernetes YAML instead of asking the agent
        #[arg(long, value_name = "DIR")]
        manifests: Option<PathBuf>,
        #[command(flatten)]
        output: Output,
    },
    /// Who announces a virtual IP, in which order the others would, and why
    Owner(owner::Args),
    /// Turn the ConfigMap of MetalLB up to 0.12 into the custom resources of later ones
    #[command(after_help = "\
Prints IPAddressPools, L2Advertisements and the resources that are about BGP as YAML. The
ConfigMap itself may also stay among the manifests: it is read as what it is turned into.

Examples:
  naru convert metallb-config.yaml > pools.yaml
  kubectl -n metallb-system get configmap config -o yaml | naru convert - | kubectl apply -f -")]
    Convert {
        /// A file with the ConfigMap, or with its `config` text alone; - for standard input
        file: PathBuf,
    },
    /// Print the CustomResourceDefinitions of pools and advertisements, where MetalLB's are not
    /// installed
    #[command(after_help = "Example:\n  naru crds | kubectl apply -f -")]
    Crds,
    /// Remove programs, maps and pins from the kernel
    Detach,
    /// Print completions for a shell
    #[command(after_help = "Example:\n  naru completions bash > /etc/bash_completion.d/naru")]
    Completions {
        /// The shell
        shell: Shell,
    },
}

/// Runs what the command line asks for. Errors are printed; the exit status tells.
pub fn run(cli: Cli) -> ExitCode {
    let stays = match &cli.command {
        Command::Agent(_) | Command::Controller(_) => true,
        Command::Top(args) => !args.once,
        _ => false,
    };
    if !stays {
        // `naru flows | head` ends as it would with any other tool.
        sigpipe::reset();
    }
    let run_dir = cli.dirs.run_dir();
    let outcome = match cli.command {
        Command::Agent(args) => agent::run(*args, cli.dirs),
        Command::Controller(args) => controller::run(args),
        Command::Check { path, output } => Ok(check(path, output.output)),
        Command::Pools {
            manifests: Some(dir),
            output,
        } => pools::offline(dir, output.output),
        Command::Pools { output, .. } => ask(run_dir, &Request::Pools, output.output),
        Command::Owner(args) => owner::run(args, run_dir),
        Command::Convert { file } => pools::convert(&file),
        Command::Crds => crds(),
        Command::Detach => detach(run_dir, &cli.dirs.pin_dir),
        Command::Completions { shell } => {
            clap_complete::generate(
                shell,
                &mut Cli::command(),
                "naru",
                &mut std::io::stdout().lock(),
            );
            Ok(ExitCode::SUCCESS)
        }
        Command::Status(output) => ask(run_dir, &Request::Status, output.output),
        Command::Services(output) => ask(run_dir, &Request::Services, output.output),
        Command::Backends(output) => ask(run_dir, &Request::Backends, output.output),
        Command::Top(args) => top::run(&args, run_dir),
        Command::Flows { limit, output } => ask(run_dir, &Request::Flows(limit), output.output),
        Command::Drain {
            backend,
            undo,
            output,
        } => ask(run_dir, &Request::Drain { backend, undo }, output.output),
        Command::Explain {
            client,
            frontend,
            interface,
            output,
        } => {
            let Vip(frontend) = frontend;
            let protocol: Protocol = frontend.protocol;
            let question = Question {
                client,
                frontend: frontend.addr,
                protocol,
                interface,
            };
            ask(run_dir, &Request::Explain(question), output.output)
        }
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("naru: {error:#}");
        match error.downcast_ref() {
            Some(ClientError::NotRunning { .. }) => ExitCode::from(3),
            _ => ExitCode::FAILURE,
        }
    })
}

/// Logs to standard error, what RUST_LOG says or else this.
fn log_to_stderr(default: &str) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_target(false)
        .with_writer(std::io::stderr)
        .init();
}

fn ask(run_dir: &Path, request: &Request, format: Format) -> anyhow::Result<ExitCode> {
    let reply = control::client::call(run_dir, request)?;
    show::reply(&reply, format)?;
    Ok(ExitCode::SUCCESS)
}

fn crds() -> anyhow::Result<ExitCode> {
    print!("{}", crd::yaml()?);
    Ok(ExitCode::SUCCESS)
}

fn check(path: PathBuf, format: Format) -> ExitCode {
    let source = if path.is_file() {
        Source::Config(path)
    } else {
        Source::Manifests(path)
    };
    let report = check::check(&source);
    match format {
        Format::Table => print!("{report}"),
        Format::Json => println!("{}", report.json()),
    }
    if report.is_valid() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn detach(run_dir: &Path, pin_dir: &Path) -> anyhow::Result<ExitCode> {
    // A running agent would go on announcing addresses that nothing serves any more.
    let _lock = control::server::RunDir::lock(run_dir)?;
    let removed = datapath::detach(pin_dir)?;
    if removed.is_empty() {
        println!("nothing is attached: no pins in {}", pin_dir.display());
    } else {
        println!(
            "removed {} pins from {}: {}",
            removed.len(),
            pin_dir.display(),
            removed.join(", ")
        );
    }
    Ok(ExitCode::SUCCESS)
}
