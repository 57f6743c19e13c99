//! `naru controller`: from flags to the controller's options.

use std::{net::SocketAddr, path::PathBuf, process::ExitCode};

use anyhow::Context;

use crate::{
    controller::{self, Options},
    source::cluster::Cluster,
};

const EXAMPLES: &str = "\
Run one or several in a cluster (deploy/); of several one works, and the others wait. The nodes'
agents serve what it has written, also while no controller runs.

Examples:
  naru controller --kubeconfig ~/.kube/config
  naru controller --load-balancer-class naru.dev/naru   beside another load balancer";

/// The flags of `naru controller`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// How to reach the API server [default: $KUBECONFIG, ~/.kube/config, or what a pod finds]
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// Give addresses to Services of this loadBalancerClass alone [default: to those without one,
    /// and of naru.dev/naru]
    #[arg(long, value_name = "CLASS")]
    load_balancer_class: Option<String>,
    /// Serve metrics for Prometheus at http://IP:PORT/metrics; whoever reaches that may read them
    #[arg(long, value_name = "IP:PORT")]
    metrics: Option<SocketAddr>,
    /// The namespace of the Lease that tells which one works [default: its own]
    #[arg(long, value_name = "NAME")]
    lease_namespace: Option<String>,
    /// What this one is called in the Lease and in events [default: the host's name, and a number]
    #[arg(long, value_name = "NAME")]
    identity: Option<String>,
}

pub(super) fn run(args: Args) -> anyhow::Result<ExitCode> {
    super::log_to_stderr(super::DEFAULT_LOG);
    let identity = match args.identity {
        Some(identity) => identity,
        None => {
            let host = nix::unistd::gethostname().context("the host's name; give --identity")?;
            format!("{}-{}", host.to_string_lossy(), std::process::id())
        }
    };
    let options = Options {
        cluster: Cluster {
            kubeconfig: args.kubeconfig,
            class: args.load_balancer_class,
            // Their frontends are taken, whoever serves them.
            beside_kube_proxy: false,
        },
        namespace: args.lease_namespace,
        metrics: args.metrics,
        identity,
    };
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("starting the runtime")?
        .block_on(controller::run(options))?;
    Ok(ExitCode::SUCCESS)
}
