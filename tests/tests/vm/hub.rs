//! The LAN: a hub that hands every frame to everybody else, as Unix datagrams, so that it
//! is no part of the host's network.

use std::{
    io::ErrorKind,
    os::unix::net::UnixDatagram,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

/// The longest frame that QEMU hands over.
const LONGEST: usize = 1 << 16;
/// How long a frame waits for a machine that does not take it; after that it is lost, as
/// on a real cable.
const PATIENCE: Duration = Duration::from_millis(50);

/// The ends of a cable: the machine's, and the hub's.
pub(crate) struct Cable {
    pub(crate) machine: PathBuf,
    pub(crate) hub: PathBuf,
}

/// Starts a hub with so many cables. It runs until the process ends.
pub(crate) fn start(dir: &Path, count: usize) -> Vec<Cable> {
    let cables: Vec<Cable> = (0..count)
        .map(|number| Cable {
            machine: dir.join(format!("machine{number}")),
            hub: dir.join(format!("hub{number}")),
        })
        .collect();
    let sockets: Vec<UnixDatagram> = cables
        .iter()
        .map(|cable| UnixDatagram::bind(&cable.hub).expect("a socket of the hub"))
        .collect();
    for (number, socket) in sockets.into_iter().enumerate() {
        let others: Vec<PathBuf> = (0..count)
            .filter(|other| *other != number)
            .map(|other| dir.join(format!("machine{other}")))
            .collect();
        thread::spawn(move || carry(&socket, &others));
    }
    cables
}

/// Hands on what comes in by one cable.
fn carry(from: &UnixDatagram, to: &[PathBuf]) {
    from.set_write_timeout(Some(PATIENCE))
        .expect("a bound for writing");
    let mut frame = vec![0; LONGEST];
    loop {
        let length = match from.recv(&mut frame) {
            Ok(length) => length,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => panic!("the hub: {error}"),
        };
        for machine in to {
            // Who is not there, or not any more, or too slow, gets nothing.
            let _ = from.send_to(&frame[..length], machine);
        }
    }
}
