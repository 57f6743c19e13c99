//! Fragments: the later ones have the ports of the first.

use super::{
    State,
    parse::{Body, Fragment, Packet},
    records::{FRAGMENT_TICKS, Note},
};
use crate::wire::Tuple;

/// Gives a later fragment the ports of the first; false where that was not seen.
pub(super) fn reassemble(state: &State, packet: &mut Packet, now: u32) -> bool {
    if packet.fragment != Fragment::Later {
        return true;
    }
    let note = state.fragments.get(&fragment_key(packet));
    let Some(note) = note.filter(|note| now <= note.expires) else {
        return false;
    };
    if let Body::Ports { sport, dport, .. } = &mut packet.body {
        (*sport, *dport) = (note.sport, note.dport);
    }
    true
}

/// Notes the ports of a first fragment that goes on.
pub(super) fn remember(state: &mut State, packet: &Packet, now: u32) {
    if packet.fragment == Fragment::First {
        let Tuple { sport, dport, .. } = packet.tuple();
        let expires = now + FRAGMENT_TICKS;
        let note = Note {
            sport,
            dport,
            expires,
        };
        state.fragments.insert(fragment_key(packet), note);
    }
}

fn fragment_key(packet: &Packet) -> Tuple {
    Tuple {
        sport: packet.id as u16,
        dport: (packet.id >> 16) as u16,
        ..packet.tuple()
    }
}
