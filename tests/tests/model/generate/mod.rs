//! Random scenes: services, and packets that mostly concern them.

mod build;
mod decorate;
mod errors;
mod mutate;
mod packets;
mod questions;
mod worlds;

use crate::{
    reference::State,
    rng::Rng,
    scene::{Service, Step},
};

/// What packets of a scene are drawn from.
pub(crate) struct Generator {
    rng: Rng,
    services: Vec<Service>,
    /// Recent clients with their ports, so that flows go on.
    clients: Vec<(std::net::IpAddr, u16)>,
    /// Identifications of recent fragments.
    ids: Vec<u32>,
}

impl Generator {
    pub(crate) fn new(mut rng: Rng) -> Self {
        let services = worlds::services(&mut rng);
        let clients = worlds::clients(&mut rng);
        Self {
            ids: (0..3).map(|_| rng.next() as u32).collect(),
            rng,
            services,
            clients,
        }
    }

    /// How many steps the scene has.
    pub(crate) fn length(&mut self) -> usize {
        50 + self.rng.below(350)
    }

    /// The services that the scene begins with.
    pub(crate) fn first(&self) -> Step {
        Step::Services(self.services.clone())
    }

    /// The next step, given what both sides remember by now.
    pub(crate) fn next(&mut self, state: &State) -> Step {
        match self.rng.below(300) {
            0..=4 => {
                worlds::change(&mut self.rng, &mut self.services);
                return Step::Services(self.services.clone());
            }
            5..=7 => return Step::Window,
            8..=11 => return Step::Scan,
            12..=13 => return Step::TakeOver,
            _ => {}
        }
        if self.rng.percent(4) {
            return questions::question(&mut self.rng);
        }
        packets::packet(self, state)
    }
}
