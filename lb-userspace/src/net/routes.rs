//! Routes that were asked for, until something about the network changes.
//!
//! To ask the kernel takes longer than all else about an endpoint, and of thousands a change of
//! the source leaves all but one where they are.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use super::{NetError, Network, Route};

/// The routes to some addresses.
#[derive(Debug, Default)]
pub struct Routes {
    known: BTreeMap<IpAddr, Arc<Route>>,
    /// The same without repetition: thousands of pods are behind one router.
    different: BTreeSet<Arc<Route>>,
}

impl Routes {
    /// Asks for those of these addresses that are not known, and forgets those to others.
    ///
    /// # Errors
    /// Where the kernel does not answer about an address; what is known stays so.
    pub async fn look_up(
        &mut self,
        network: &Network,
        addresses: BTreeSet<IpAddr>,
    ) -> Result<(), NetError> {
        let mut before = std::mem::take(&mut self.known).into_iter().peekable();
        for ip in addresses {
            while before.next_if(|(known, _)| *known < ip).is_some() {}
            let route = match before.next_if(|(known, _)| *known == ip) {
                Some((_, route)) => route,
                None => match network.route_to(ip).await {
                    Ok(route) => self.shared(route),
                    Err(error) => {
                        self.known.extend(before);
                        return Err(error);
                    }
                },
            };
            self.known.insert(ip, route);
        }
        Ok(())
    }

    /// The one to this address, asked for where it is not known.
    ///
    /// # Errors
    /// Where the kernel does not answer about it.
    pub async fn to(&mut self, network: &Network, ip: IpAddr) -> Result<Arc<Route>, NetError> {
        if let Some(route) = self.known.get(&ip) {
            return Ok(Arc::clone(route));
        }
        let route = network.route_to(ip).await?;
        let route = self.shared(route);
        self.known.insert(ip, Arc::clone(&route));
        Ok(route)
    }

    /// Those that were looked up last.
    pub fn iter(&self) -> impl Iterator<Item = (IpAddr, &Route)> {
        self.known.iter().map(|(&ip, route)| (ip, &**route))
    }

    fn shared(&mut self, route: Route) -> Arc<Route> {
        let route = Arc::new(route);
        match self.different.get(&route) {
            Some(known) => Arc::clone(known),
            None => {
                self.different.insert(Arc::clone(&route));
                route
            }
        }
    }
}
