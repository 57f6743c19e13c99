//! What need not be worked out again.

use crate::{ipam::Assignment, source::cluster::Scene};

/// Who has which address, and of what that was worked out.
pub(super) struct Settled {
    scene: Scene,
    assignment: Assignment,
}

impl Settled {
    /// What `scene` came to, all of which is written down.
    pub(super) fn new(scene: Scene, assignment: Assignment) -> Self {
        Self { scene, assignment }
    }

    /// Whether it is the same of this scene, in which endpoints alone may be others: they come and go
    /// all day. It is of that one then.
    pub(super) fn holds(&mut self, scene: &Scene) -> bool {
        if !self.scene.is_of_same_objects(scene) {
            return false;
        }
        let (Ok(before), Ok(now)) = (&mut self.scene.outcome, &scene.outcome) else {
            return false;
        };
        let holds =
            before.notes == now.notes && self.assignment.follow(&before.desired, &now.desired);
        before.desired.clone_from(&now.desired);
        holds
    }
}

#[cfg(test)]
mod tests {
    use std::{net::SocketAddr, sync::Arc};

    use serde_json::json;

    use super::*;
    use crate::{
        desired::{Condition, Endpoint},
        ipam::{self, Authority, Ledger},
        source::{
            Note, Origin,
            kubernetes::{self, Known, Objects, Sourced, Terms},
        },
    };

    fn scene() -> Scene {
        fn sourced<T: serde::de::DeserializeOwned>(
            value: serde_json::Value,
        ) -> Vec<Arc<Sourced<T>>> {
            vec![Arc::new(Sourced {
                origin: Origin::Cluster,
                object: serde_json::from_value(value).unwrap(),
            })]
        }
        let service = json!({
            "metadata": { "namespace": "default", "name": "web" },
            "spec": {
                "type": "LoadBalancer",
                "clusterIP": "10.96.0.10",
                "ports": [{ "port": 80, "protocol": "TCP" }],
            },
        });
        let pool = json!({
            "apiVersion": "metallb.io/v1beta1",
            "kind": "IPAddressPool",
            "metadata": { "namespace": "naru-system", "name": "pool" },
            "spec": { "addresses": ["192.168.56.10-192.168.56.20"] },
        });
        let objects = Objects {
            services: sourced(service),
            pools: sourced(pool),
            ..Objects::default()
        };
        let terms = Terms {
            pooled: true,
            ..Terms::default()
        };
        let outcome = kubernetes::translate(objects.clone(), &terms, &mut Known::default());
        Scene {
            outcome,
            services: objects.services,
            pools: objects.pools,
            advertisements: Vec::new(),
        }
    }

    fn with_pod(scene: &Scene, at: &str) -> Scene {
        let mut scene = scene.clone();
        let at: SocketAddr = at.parse().unwrap();
        let endpoint = Endpoint {
            weight: 1,
            condition: Condition::Ready,
            node: None,
            name: None,
        };
        let services = &mut scene.outcome.as_mut().unwrap().desired.services;
        services.change(
            |_, _| true,
            |_, it| drop(it.endpoints.insert(at, endpoint.clone())),
        );
        scene
    }

    fn settled(scene: &Scene) -> Settled {
        let desired = &scene.outcome.as_ref().unwrap().desired;
        let assignment = ipam::assign(desired, &Ledger::default(), Authority::This);
        assert_eq!(assignment.addresses.len(), 1);
        Settled::new(scene.clone(), assignment)
    }

    #[test]
    fn pods_that_come_are_no_matter_of_addresses_unless_they_have_one_of_a_pool() {
        let scene = scene();
        let mut settled = settled(&scene);
        let one = with_pod(&scene, "10.244.1.2:8080");
        assert!(settled.holds(&scene) && settled.holds(&one));
        let two = with_pod(&one, "10.244.1.3:8080");
        assert!(
            settled.holds(&two) && settled.holds(&one),
            "from where it is"
        );
        assert!(!settled.holds(&with_pod(&one, "192.168.56.10:80")));
    }

    #[test]
    fn objects_that_were_read_anew_and_notes_are_looked_at() {
        let scene = scene();
        assert!(
            !settled(&scene).holds(&self::scene()),
            "it may say something else"
        );
        let mut noted = scene.clone();
        noted.outcome.as_mut().unwrap().notes.push(Note {
            origin: Origin::Cluster,
            object: "Service default/web".to_owned(),
            what: "is odd".to_owned(),
            refused: true,
        });
        assert!(!settled(&scene).holds(&noted));
    }
}
