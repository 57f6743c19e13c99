//! Any bytes at the control socket, from a client to the agent and back.
#![no_main]

use std::{cell::RefCell, future::Future};

use libfuzzer_sys::fuzz_target;
use naru::control::{MAX_REQUEST, Reply, Request, client, server};
use tokio::{
    runtime::{Builder, Runtime},
    sync::mpsc,
};

/// What the agent says to every request here.
const ANSWER: &str = "understood";

fuzz_target!(|bytes: &[u8]| {
    wait(asked(bytes));
    if let Ok(reply) = client::read(bytes) {
        // What is read can be written, and is then the same.
        let line = serde_json::to_vec(&reply).unwrap_or_default();
        let again = client::read(&line[..]).and_then(|again| Ok(serde_json::to_vec(&again)?));
        assert_eq!(again.unwrap_or_default(), line);
    }
});

/// The agent answers with one line, and asks the rest of itself only what it understood.
async fn asked(bytes: &[u8]) {
    let (calls, mut requests) = mpsc::channel::<server::Call>(1);
    let mut answer = Vec::new();
    let agent = async {
        let (request, reply) = requests.recv().await?;
        let _ = reply.send(Reply::Failed(ANSWER.into()));
        Some(request)
    };
    let (served, request) = tokio::join!(server::serve(bytes, &mut answer, calls), agent);
    if served.is_err() {
        // Only text is answered at all.
        assert!(answer.is_empty() && request.is_none());
        return;
    }
    assert_eq!(
        answer.iter().position(|&byte| byte == b'\n'),
        Some(answer.len() - 1)
    );
    let Ok(Reply::Failed(reason)) = client::read(&answer[..]) else {
        panic!("the answer to {bytes:?} is {answer:?}");
    };
    assert_eq!(reason == ANSWER, request.is_some());
    assert_eq!(request.is_some(), is_request(bytes));
}

/// Whether the first line is a request.
fn is_request(bytes: &[u8]) -> bool {
    let read = &bytes[..bytes.len().min(MAX_REQUEST as usize)];
    let line = read.split(|&byte| byte == b'\n').next().unwrap_or_default();
    serde_json::from_slice::<Request>(line).is_ok()
}

fn wait<T>(future: impl Future<Output = T>) -> T {
    thread_local! {
        static RUNTIME: RefCell<Option<Runtime>> = const { RefCell::new(None) };
    }
    RUNTIME.with_borrow_mut(|runtime| {
        runtime
            .get_or_insert_with(|| {
                let built = Builder::new_current_thread().enable_time().build();
                built.expect("a runtime without I/O")
            })
            .block_on(future)
    })
}
