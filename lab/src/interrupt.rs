//! SIGINT and SIGTERM: whatever the lab is doing, it is taken down before the process
//! ends.
//!
//! A thread waits for the signals. It cannot stop the others, so everything that makes
//! a namespace or a process holds the [`gate`] while it does; the thread closes the gate
//! for good, removes what the process's labs have made, and exits.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, Once, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};

use crate::ownership;

/// The exit code after an interrupt, as shells report it for SIGINT.
pub const EXIT_CODE: i32 = 130;

static GATE: RwLock<()> = RwLock::new(());
static CATCHING: AtomicBool = AtomicBool::new(false);
static CAUGHT: (Mutex<bool>, Condvar) = (Mutex::new(false), Condvar::new());

/// Held while something is made that the clean-up would have to know of. Must not be
/// taken twice by one thread.
pub(crate) fn gate() -> RwLockReadGuard<'static, ()> {
    GATE.read().unwrap_or_else(PoisonError::into_inner)
}

/// Starts the thread that waits for the signals; once for the process.
pub(crate) fn watch() {
    static STARTED: Once = Once::new();
    STARTED.call_once(|| {
        let ready = std::sync::Arc::new(std::sync::Barrier::new(2));
        let there = ready.clone();
        std::thread::spawn(move || wait_for_signals(&there));
        // A signal that comes after this is ours already.
        ready.wait();
    });
}

fn wait_for_signals(ready: &std::sync::Barrier) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let Ok(runtime) = runtime else {
        eprintln!("lab: signals cannot be watched; after an interrupt the next lab cleans up");
        ready.wait();
        return;
    };
    runtime.block_on(async {
        let signals = (
            signal(SignalKind::interrupt()),
            signal(SignalKind::terminate()),
        );
        ready.wait();
        let (Ok(mut interrupt), Ok(mut terminate)) = signals else {
            return;
        };
        loop {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            if CATCHING.swap(false, Ordering::SeqCst) {
                *CAUGHT.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
                CAUGHT.1.notify_all();
                continue;
            }
            let _closed = GATE.write().unwrap_or_else(PoisonError::into_inner);
            eprintln!("\nlab: interrupted, cleaning up");
            ownership::clean_all();
            std::process::exit(EXIT_CODE);
        }
    });
}

/// While this lives, the first interrupt is an ordinary event to wait for; the next one
/// ends the process as usual.
#[derive(Debug)]
pub struct Catch(());

/// Makes the next interrupt an ordinary event, for a display that runs until Ctrl-C.
pub fn catch() -> Catch {
    watch();
    *CAUGHT.0.lock().unwrap_or_else(PoisonError::into_inner) = false;
    CATCHING.store(true, Ordering::SeqCst);
    Catch(())
}

impl Catch {
    /// Waits at most so long; says whether the interrupt has come.
    pub fn wait(&self, at_most: Duration) -> bool {
        let caught = CAUGHT.0.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = CAUGHT
            .1
            .wait_timeout_while(caught, at_most, |caught| !*caught);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

impl Drop for Catch {
    fn drop(&mut self) {
        CATCHING.store(false, Ordering::SeqCst);
    }
}
