//! Worlds of manifests, and who has which address in them.

mod rules;
mod stays;

use super::{Assignment, Authority, Ledger, assign};
use crate::{desired::BalancerName, source::manifest};

/// Manifests in one text, a line an object.
#[derive(Clone, Default)]
struct World(Vec<String>);

impl World {
    fn with(mut self, object: String) -> Self {
        self.0.push(object);
        self
    }

    fn pool(self, name: &str, spec: &str) -> Self {
        self.with(format!(
            "apiVersion: metallb.io/v1beta1\nkind: IPAddressPool\nmetadata: {{name: {name}, \
             namespace: metallb-system}}\nspec: {{{spec}}}\n"
        ))
    }

    fn service(self, name: &str) -> Self {
        self.service_with(name, "", "")
    }

    /// `spec` follows a comma.
    fn service_with(self, name: &str, metadata: &str, spec: &str) -> Self {
        let ports = match spec.contains("ports:") {
            true => "",
            false => ", ports: [{port: 80}]",
        };
        self.with(format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}{metadata}}}\n\
             spec: {{type: LoadBalancer{ports}{spec}}}\n"
        ))
    }

    fn without(mut self, name: &str) -> Self {
        self.0.retain(|it| !it.contains(&format!("{{name: {name}")));
        self
    }

    fn assign(&self, ledger: &Ledger) -> Assignment {
        self.assign_by(ledger, Authority::This)
    }

    fn assign_by(&self, ledger: &Ledger, authority: Authority<'_>) -> Assignment {
        let loaded = manifest::parse("world.yaml", &self.0.join("---\n"));
        let desired = loaded.unwrap_or_else(|error| panic!("{error}")).desired;
        let assignment = assign(&desired, ledger, authority);
        if authority == Authority::This {
            let again = assign(&desired, &assignment.ledger, authority);
            assert_eq!(
                again.ledger, assignment.ledger,
                "a second run changes nothing"
            );
            assert_eq!(again.addresses, assignment.addresses);
            assert_eq!(again.changes, []);
        }
        assignment
    }
}

/// A world with the pool of the tutorials.
fn tutorial() -> World {
    World::default().pool("first", "addresses: [192.168.56.11-192.168.56.13]")
}

fn name(text: &str) -> BalancerName {
    BalancerName(format!("default/{text}"))
}

/// What a service has, with a space between; or why it has nothing.
fn has(assignment: &Assignment, service: &str) -> String {
    let name = name(service);
    match assignment.addresses.get(&name) {
        Some(addresses) => {
            let all: Vec<_> = addresses.iter().map(ToString::to_string).collect();
            all.join(" ")
        }
        None => assignment.refused[&name].to_string(),
    }
}

fn sharing(key: &str) -> String {
    format!(", annotations: {{metallb.io/allow-shared-ip: {key}}}")
}

fn asking(pool: &str) -> String {
    format!(", annotations: {{metallb.io/address-pool: {pool}}}")
}
