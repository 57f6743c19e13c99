//! Connections that stay open, on each of which a client asks again and again.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use naru_lab::NetNs;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{MissedTickBehavior, interval_at, sleep, timeout};

/// Between two requests on a connection.
const PERIOD: Duration = Duration::from_millis(100);
/// How long setting all of them up may take.
const OPENING: Duration = Duration::from_secs(20);
/// A request that is not answered in so long is not answered any more. TCP waits twice as long
/// before each time that it sends again, and the machine may be busy with the flood for 30 s:
/// what is late by then is slow, and not lost.
const PATIENCE: Duration = Duration::from_secs(60);
const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: lab\r\n\r\n";
/// No answer is longer.
const LONGEST: usize = 4096;

/// Connections that ask until they are told to stop.
pub(super) struct Asking {
    shared: Arc<Shared>,
    thread: JoinHandle<naru_lab::Result<anyhow::Result<Vec<Asked>>>>,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    opened: AtomicUsize,
    ended: AtomicUsize,
}

/// What came of one connection.
#[derive(Clone, Debug, Default)]
pub(super) struct Asked {
    /// Of each request when it was sent and how long the answer took.
    pub(super) answers: Vec<(Instant, Duration)>,
    /// The client's end.
    pub(super) from: Option<SocketAddr>,
    /// Why it is over, where nobody told it to stop.
    pub(super) broken: Option<String>,
}

// === impl Asking ===

impl Asking {
    /// Opens so many connections to a service over HTTP; returns when all of them are there.
    pub(super) fn start(client: &NetNs, to: SocketAddr, count: usize) -> anyhow::Result<Self> {
        let shared = Arc::<Shared>::default();
        let task = Arc::clone(&shared);
        let thread = client.spawn(move || run(to, count, &task));
        let asking = Self { shared, thread };
        let began = Instant::now();
        loop {
            let opened = asking.shared.opened.load(Ordering::Acquire);
            let ended = asking.shared.ended.load(Ordering::Acquire);
            if opened == count {
                return Ok(asking);
            }
            if ended > 0 || began.elapsed() > OPENING {
                let all = asking.stop()?;
                let why = all.into_iter().find_map(|it| it.broken).unwrap_or_default();
                bail!("{opened} of {count} connections to {to} were set up; {why}");
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Ends them once what they have asked is answered; gives what came of each.
    pub(super) fn stop(self) -> anyhow::Result<Vec<Asked>> {
        self.shared.stop.store(true, Ordering::Release);
        let ended = self.thread.join();
        ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?
    }
}

fn run(to: SocketAddr, count: usize, shared: &Arc<Shared>) -> anyhow::Result<Vec<Asked>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("a runtime for the client")?;
    runtime.block_on(async {
        let tasks: Vec<_> = (0..count)
            .map(|number| {
                // Not all at the same moment.
                let after = PERIOD.mul_f64(number as f64 / count as f64);
                tokio::spawn(one(to, after, Arc::clone(shared)))
            })
            .collect();
        let mut all = Vec::with_capacity(count);
        for task in tasks {
            all.push(task.await?);
        }
        Ok(all)
    })
}

/// One connection, from its beginning to its end.
async fn one(to: SocketAddr, after: Duration, shared: Arc<Shared>) -> Asked {
    let mut asked = Asked::default();
    sleep(after).await;
    let stream = match timeout(OPENING, TcpStream::connect(to)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return broken(asked, error.to_string(), &shared),
        Err(_) => return broken(asked, "it was not set up".to_owned(), &shared),
    };
    asked.from = stream.local_addr().ok();
    shared.opened.fetch_add(1, Ordering::AcqRel);
    match ask(stream, &mut asked.answers, &shared.stop).await {
        Ok(()) => asked,
        Err(error) => broken(asked, error.to_string(), &shared),
    }
}

fn broken(mut asked: Asked, why: String, shared: &Shared) -> Asked {
    shared.ended.fetch_add(1, Ordering::AcqRel);
    asked.broken = Some(why);
    asked
}

async fn ask(
    mut stream: TcpStream,
    answers: &mut Vec<(Instant, Duration)>,
    stop: &AtomicBool,
) -> anyhow::Result<()> {
    stream.set_nodelay(true)?;
    let mut ticks = interval_at(tokio::time::Instant::now(), PERIOD);
    // One that was late is followed by the next one a whole period later.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut buffer = Vec::with_capacity(LONGEST);
    while !stop.load(Ordering::Acquire) {
        ticks.tick().await;
        let sent = Instant::now();
        stream.write_all(REQUEST).await?;
        buffer.clear();
        while !is_whole(&buffer) {
            let read = timeout(PATIENCE, stream.read_buf(&mut buffer)).await;
            match read.context("not answered")?? {
                0 => bail!("closed by the pod"),
                _ if buffer.len() > LONGEST => bail!("an answer without an end"),
                _ => {}
            }
        }
        answers.push((sent, sent.elapsed()));
    }
    Ok(())
}

/// Whether an answer has its head and all of its body.
fn is_whole(answer: &[u8]) -> bool {
    let text = String::from_utf8_lossy(answer);
    let Some((head, body)) = text.split_once("\r\n\r\n") else {
        return false;
    };
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        let named = name.eq_ignore_ascii_case("content-length");
        named.then(|| value.trim().parse::<usize>().ok())?
    });
    length.is_some_and(|length| body.len() >= length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_whole_with_its_body() {
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nweb\n";
        assert!(is_whole(answer));
        assert!((0..answer.len()).all(|end| !is_whole(&answer[..end])));
    }
}
