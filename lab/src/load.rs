//! Requests in the background, and connections that stay open.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{JoinHandle, sleep};
use std::time::{Duration, Instant};

use crate::client::{Answer, Http, TIMEOUT, failed, pod_of};
use crate::error::{Error, Result};
use crate::netns::NetNs;

/// How many failures a tally tells in full.
const TOLD: usize = 5;

/// How requests are made in the background.
#[derive(Clone, Debug)]
pub struct LoadOptions {
    /// So many at a time.
    pub connections: usize,
    /// Requests share a connection, instead of each having its own.
    pub keep_alive: bool,
    /// The pause after each request.
    pub pause: Duration,
    /// What is slower than this has failed.
    pub timeout: Duration,
    /// It ends by itself after so long.
    pub limit: Duration,
}

impl Default for LoadOptions {
    fn default() -> Self {
        Self {
            connections: 4,
            keep_alive: false,
            pause: Duration::from_millis(2),
            timeout: TIMEOUT,
            limit: Duration::from_secs(60),
        }
    }
}

/// What came of the requests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Answered.
    pub ok: u64,
    /// Not answered, or with an error.
    pub failed: u64,
    /// Answers by pod.
    pub by_pod: BTreeMap<String, u64>,
    /// The first failures, each with the time since the start or the request's number.
    pub failures: Vec<String>,
    /// The longest time that an answer took: a lost packet shows here before anywhere.
    pub slowest: Duration,
}

impl Tally {
    /// The tally of requests that are already made.
    pub fn of<'a>(results: impl IntoIterator<Item = &'a Result<Answer>>) -> Self {
        let mut tally = Self::default();
        for (number, result) in (1..).zip(results) {
            tally.count(result, || format!("request {number}"));
        }
        tally
    }

    /// Counts one that was made at this time, or in this place.
    fn count(&mut self, result: &Result<Answer>, at: impl FnOnce() -> String) {
        match result {
            Ok(answer) => {
                self.ok += 1;
                *self.by_pod.entry(answer.pod.clone()).or_default() += 1;
                self.slowest = self.slowest.max(answer.took);
            }
            Err(error) => self.fail(error, at),
        }
    }

    fn fail(&mut self, error: &Error, at: impl FnOnce() -> String) {
        self.failed += 1;
        if self.failures.len() < TOLD {
            self.failures.push(format!("{}: {error}", at()));
        }
    }
}

/// Requests that go on until told to stop.
#[derive(Debug)]
pub struct Load {
    stopping: Arc<AtomicBool>,
    tally: Arc<Mutex<Tally>>,
    threads: Vec<JoinHandle<Result<()>>>,
}

impl Load {
    pub(crate) fn start(namespace: &NetNs, url: &str, options: LoadOptions) -> Self {
        let (stopping, tally) = (Arc::new(AtomicBool::new(false)), Arc::default());
        let began = Instant::now();
        let threads = (0..options.connections)
            .map(|_| {
                let (stopping, tally) = (Arc::clone(&stopping), Arc::clone(&tally));
                let (url, options) = (url.to_owned(), options.clone());
                namespace.spawn(move || ask_on(&url, &options, began, &stopping, &tally))
            })
            .collect();
        Self {
            stopping,
            tally,
            threads,
        }
    }

    /// How it stands.
    pub fn tally(&self) -> Tally {
        self.tally
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Lets the requests that are under way finish, and gives the result.
    pub fn stop(mut self) -> Result<Tally> {
        self.stopping.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        }
        Ok(self.tally())
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::Relaxed);
    }
}

fn ask_on(
    url: &str,
    options: &LoadOptions,
    began: Instant,
    stopping: &AtomicBool,
    tally: &Mutex<Tally>,
) {
    let http = match options.keep_alive {
        true => Http::keep_alive(options.timeout),
        false => Http::per_request(options.timeout),
    };
    while !stopping.load(Ordering::Relaxed) && began.elapsed() < options.limit {
        let at = began.elapsed().as_secs_f64();
        let result = http.get(url);
        tally
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .count(&result, || format!("after {at:.3} s"));
        sleep(options.pause);
    }
}

/// A connection on which a pod sends a line every 100 ms.
#[derive(Debug)]
pub struct LongLived {
    pod: String,
    state: Arc<Mutex<Stream>>,
}

#[derive(Debug)]
struct Stream {
    lines: u64,
    last: Instant,
    ended: Option<String>,
    dropped: bool,
}

impl LongLived {
    pub(crate) fn open(namespace: &NetNs, url: &str) -> Result<Self> {
        let state = Stream {
            lines: 0,
            last: Instant::now(),
            ended: None,
            dropped: false,
        };
        let state = Arc::new(Mutex::new(state));
        let (answered, answer) = std::sync::mpsc::channel();
        let (url, shared) = (url.to_owned(), Arc::clone(&state));
        namespace.spawn(move || {
            let config = ureq::Agent::config_builder()
                .timeout_connect(Some(TIMEOUT))
                .timeout_recv_response(Some(TIMEOUT))
                .proxy(None);
            let http: ureq::Agent = config.build().into();
            match http.get(&url).call().map_err(|error| failed(&url, &error)) {
                Ok(response) => {
                    // Nobody waits for the answer any more: nobody will read the stream.
                    if answered.send(Ok(pod_of(&response))).is_ok() {
                        follow(response, &shared);
                    }
                }
                Err(error) => drop(answered.send(Err(error))),
            }
        });
        let gone = |_| Error::Request {
            target: "a long-lived connection".to_owned(),
            reason: format!("its thread did not reach {}", namespace.name()),
        };
        let pod = answer.recv().map_err(gone)??;
        Ok(Self { pod, state })
    }

    /// The pod that serves it.
    pub fn pod(&self) -> &str {
        &self.pod
    }

    /// How many lines have come.
    pub fn lines(&self) -> u64 {
        self.state().lines
    }

    /// Whether a line has come within the last second.
    pub fn is_alive(&self) -> bool {
        let state = self.state();
        state.ended.is_none() && state.last.elapsed() < Duration::from_secs(1)
    }

    /// Why it is over, where it is.
    pub fn ended(&self) -> Option<String> {
        self.state().ended.clone()
    }

    fn state(&self) -> std::sync::MutexGuard<'_, Stream> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for LongLived {
    fn drop(&mut self) {
        // The thread sees this at the next line and closes the connection.
        self.state().dropped = true;
    }
}

fn follow(response: ureq::http::Response<ureq::Body>, state: &Mutex<Stream>) {
    let mut lines = BufReader::new(response.into_body().into_reader()).lines();
    loop {
        let line = lines.next();
        let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
        match line {
            _ if state.dropped => return,
            Some(Ok(_)) => {
                state.lines += 1;
                state.last = Instant::now();
            }
            Some(Err(error)) => return state.ended = Some(error.to_string()),
            None => return state.ended = Some("closed by the pod".to_owned()),
        }
    }
}
