//! Work that keeps all cores busy, for as long as it is wanted and no longer.

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle, available_parallelism};

/// A thread on every core that never rests, until this is dropped.
#[derive(Debug)]
pub struct Burners {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Burners {
    /// One for each core.
    pub fn start() -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let cores = available_parallelism().map_or(2, usize::from);
        let burn = |_| {
            let stop = Arc::clone(&stop);
            thread::spawn(move || {
                let mut number = 0_u64;
                while !stop.load(Ordering::Relaxed) {
                    number = black_box(number.wrapping_add(1));
                }
            })
        };
        let threads = (0..cores).map(burn).collect();
        Self { stop, threads }
    }
}

impl Drop for Burners {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}
