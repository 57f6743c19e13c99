//! How a lab is, for people.

use comfy_table::{Table, presets::NOTHING};
use naru_lab::{Cluster, Role, ServiceSpec};

use super::kept::Kept;
use super::record::Record;

/// Machines, and what they serve.
pub(super) fn status(kept: &dyn Kept) -> naru_lab::Result<String> {
    let (lab, topology) = (kept.lab(), kept.lab().topology());
    let mut machines = table(&["MACHINE", "ADDRESS", "CABLE", "AGENT", "PODS"]);
    for node in &topology.nodes {
        let agent = kept.agent(&node.name)?;
        let doing = match (kept.is_off(&node.name), agent.pid()) {
            (true, _) => "no power".to_owned(),
            (_, Some(pid)) => format!("runs, pid {pid}"),
            (_, None) => "has ended".to_owned(),
        };
        let pods = lab.pods().iter().filter(|it| it.spec().node == node.name);
        let pods = pods.filter(|it| it.is_running()).map(|it| it.name());
        let role = match node.role {
            Role::ControlPlane => " (control plane)",
            Role::Worker => "",
        };
        machines.add_row([
            format!("{}{role}", node.name),
            node.address.to_string(),
            cable(lab.is_cabled(&node.name)?),
            doing,
            pods.collect::<Vec<_>>().join(" "),
        ]);
    }
    for client in &topology.clients {
        machines.add_row([
            client.name.clone(),
            client.address.to_string(),
            cable(lab.is_cabled(&client.name)?),
            String::new(),
            String::new(),
        ]);
    }
    Ok(format!("{machines}\n\n{}", kept.services()?))
}

/// Addresses with their owners.
pub(super) fn services(cluster: &Cluster) -> naru_lab::Result<String> {
    let mut addresses = table(&["SERVICE", "ADDRESS", "OWNER"]);
    for service in cluster.services() {
        let owners = cluster.owners(service.address)?;
        let owners = match owners.is_empty() {
            true => "nobody".to_owned(),
            false => owners.join(" and "),
        };
        addresses.add_row([service.name.clone(), frontend(service), owners]);
    }
    Ok(addresses.to_string())
}

/// What to try in a lab that has just come up.
pub(super) fn hints(record: &Record) -> String {
    let url = record.served.first().map_or("", String::as_str);
    let address = url.split(':').next().unwrap_or_default();
    let of_kubernetes = [
        ("exec nuc01 kubectl get pods -o wide", "as on any cluster"),
        (
            "exec nuc01 kubectl scale deployment nest-server --replicas=10",
            "more of them",
        ),
    ];
    let of_kubernetes = of_kubernetes
        .into_iter()
        .filter(|_| record.kubeconfig.is_some())
        .map(|(words, what)| (words.to_owned(), what));
    let tries = [
        (
            format!("exec client curl -s {url}"),
            "a pod's name, another each time",
        ),
        (
            format!("exec client arping -I eth0 -c 3 {address}"),
            "who owns the address",
        ),
        ("exec nuc01 naru status".to_owned(), "the agent of nuc01"),
        (
            "off nuc02".to_owned(),
            "a node without power; `on nuc02` ends it",
        ),
        (
            "cut nuc03".to_owned(),
            "a cable that is pulled; `heal nuc03` ends it",
        ),
        ("status".to_owned(), "how it is now"),
        ("down".to_owned(), "removes everything"),
    ];
    let tries = of_kubernetes.chain(tries);
    let lines = tries.map(|(words, what)| format!("  cargo xtask lab {words:<46} {what}"));
    let lines: Vec<String> = lines.collect();
    let kubernetes = record.kubeconfig.as_ref().map(|it| {
        format!(
            "The API server is on the LAN, where `lab exec` runs commands, with\n  \
             KUBECONFIG={}\n\n",
            it.display()
        )
    });
    format!(
        "{}Try:\n{}",
        kubernetes.unwrap_or_default(),
        lines.join("\n")
    )
}

fn table(head: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(NOTHING).set_header(head);
    table
}

fn cable(plugged: bool) -> String {
    if plugged { "in" } else { "out" }.to_owned()
}

fn frontend(service: &ServiceSpec) -> String {
    let udp = match service.protocol {
        naru_lab::Protocol::Tcp => "",
        naru_lab::Protocol::Udp => "/udp",
    };
    format!("{}:{}{udp}", service.address, service.port)
}
