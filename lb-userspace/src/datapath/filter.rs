//! What spares packets a lookup: addresses that concern nobody here, frontends and
//! interfaces by short keys, and next hops while the network stays as it is.

use aya::maps::MapData;
use lb_common::{
    Addr, AddressUse, Frontend, Hook, Near, NearFrontend, exceptions, filter, flow, near::Place,
};

use super::{
    Datapath, DatapathError, apply::Change, difference::differing, load::maps_dir, words::Words,
};
use crate::compile::image::MapImage;

impl Datapath {
    /// Lets packets of these addresses through to the lookups, beside those that are let through
    /// already: before anything is known of them.
    pub(super) fn open_filter(&mut self, Change { before, image }: &Change<'_>) {
        let addresses = differing(&before.addresses, &image.addresses);
        let primaries = differing(&before.primaries, &image.primaries);
        let uses = addresses.iter().map(|(addr, usage)| (addr, *usage));
        for (index, bit) in places(uses, primaries.iter().map(|(backend, _)| backend)) {
            let word = self.maps.filter.get(index);
            self.maps.filter.set(index, word | bit);
        }
        // What goes is let through for a moment more, and looked up in vain.
        self.live.filter_is_wide = true;
    }

    /// Lets those through alone of which anything is known.
    pub(super) fn close_filter(&mut self) {
        if !std::mem::take(&mut self.live.filter_is_wide) {
            return;
        }
        let mut words = vec![0; filter::LEN];
        let uses = self.live.addresses.iter();
        let uses = uses.map(|(addr, usage)| (addr, *usage));
        for (index, bit) in places(uses, self.live.primaries.keys()) {
            words[index] |= bit;
        }
        for (index, word) in words.into_iter().enumerate() {
            self.maps.filter.set(index, word);
        }
    }

    /// Has the frontends that are known found by their short keys; where an `image` is to follow,
    /// only those that it has the same of.
    pub(super) fn set_near_frontends(&mut self, image: Option<&MapImage>) {
        let mut near = vec![NearFrontend::default(); NearFrontend::LEN];
        for (frontend, &entry) in &self.live.frontends {
            if image.is_none_or(|it| it.frontends.get(frontend) == Some(&entry)) {
                let place = Place::new(frontend);
                near[place.index as usize].add(&place, entry);
            }
        }
        for (index, NearFrontend(words)) in near.into_iter().enumerate() {
            // In whichever order: nobody takes the entry of one for that of another's key, see
            // `near::Place`.
            for (word, &value) in words.iter().enumerate() {
                self.maps
                    .near_frontends
                    .set(index * words.len() + word, value);
            }
        }
    }

    /// Says of the interfaces that are known what most frames ask.
    pub(super) fn set_near(&mut self) {
        let mut words = [0; Near::LEN];
        for (&ifindex, device) in &self.live.devices {
            words[ifindex as usize % Near::LEN] = Near::new(ifindex, device).0;
        }
        for (index, word) in words.into_iter().enumerate() {
            self.maps.near.set(index, word);
        }
    }

    /// Has the addresses that `nat` flows will come from found by flows' cells, as far as no other
    /// one stands in their place: that one may have flows yet.
    pub(super) fn set_near_sources(&self, image: &MapImage) {
        let devices = image.devices.values();
        for source in devices.flat_map(|it| [it.snat_v4, it.snat_v6]) {
            let place = 2 * usize::from(flow::source(&source.addr));
            let [a, b, c, d] = source.addr.words().map(u64::from);
            let words = [a | b << 32, c | d << 32];
            let free = (0..2).all(|word| self.maps.near_sources.get(place + word) == 0);
            for (word, &value) in words.iter().enumerate().filter(|_| free) {
                self.maps.near_sources.set(place + word, value);
            }
        }
    }

    /// Has records of all replies looked for until the next sweep: an earlier agent may have
    /// hashed them by another seed.
    pub(super) fn doubt_replies(&self) -> Result<(), DatapathError> {
        let path = maps_dir(&self.options.pin_dir).join("EXCEPTIONS");
        let data = MapData::from_pin(path).map_err(DatapathError::map("EXCEPTIONS"))?;
        let words = Words::new("EXCEPTIONS", data, exceptions::LEN / size_of::<u64>())?;
        let noted = [exceptions::noted(0); size_of::<u64>()];
        for index in 0..exceptions::LEN / size_of::<u64>() {
            words.set(index, u64::from_ne_bytes(noted));
        }
        Ok(())
    }

    /// Has next hops looked up anew: routes, neighbours or interfaces may be others now.
    pub fn forget_hops(&mut self) {
        let epoch = &self.maps.epoch;
        epoch.set(0, epoch.get(0).wrapping_add(1));
    }
}

/// Where packets are let through that concern these addresses, and these backends' replies.
fn places<'a>(
    addresses: impl Iterator<Item = (&'a Addr, AddressUse)>,
    primaries: impl Iterator<Item = &'a Frontend>,
) -> impl Iterator<Item = (usize, u64)> {
    let coming = addresses.flat_map(|(addr, usage)| {
        let client = (usage != AddressUse::LOCAL_BACKEND).then_some((Hook::TcIngress, addr));
        [Some((Hook::Xdp, addr)), client]
    });
    let going = primaries.map(|it| Some((Hook::TcEgress, &it.addr)));
    coming.chain(going).flatten().map(|(hook, addr)| {
        let (index, bit) = filter::place(hook, addr);
        (index as usize, bit)
    })
}
