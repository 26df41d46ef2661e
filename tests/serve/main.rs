//! Publishing and serving as a whole: the real server on a loopback port, a real HTTP client, stores of every kind, and
//! stores that fail.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod faulty;
mod package;
mod program;
mod publishing;
mod serving;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use nearside::serve::listen::{self, Limits};
use nearside::serve::{Config, Server, app};
use nearside::store::{Missing, Store};

/// A server in a thread of its own. It stops when this is dropped.
struct Running {
    address: SocketAddr,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Running {
    fn start(store: Store, config: Config, limits: Limits) -> Running {
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let (tell, told) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            runtime().block_on(async {
                let listener = listen::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
                tell.send(listener.local_addr().unwrap()).unwrap();
                let app = app(Server::new(store, config).unwrap());
                listen::serve(listener, app, limits, async { stopped.await.unwrap_or(()) }).await;
            });
        });
        Running { address: told.recv().unwrap(), stop: Some(stop), thread: Some(thread) }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Tells the server to stop, without waiting.
    fn stop(&mut self) {
        if let Some(stop) = self.stop.take() {
            stop.send(()).unwrap();
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop();
        if let Some(thread) = self.thread.take() {
            let result = thread.join();
            assert!(std::thread::panicking() || result.is_ok(), "the server panicked");
        }
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

fn agent() -> ureq::Agent {
    ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(Duration::from_secs(60)))
        .build()
        .into()
}

struct Reply {
    status: u16,
    headers: ureq::http::HeaderMap,
    /// The body, or that it broke off.
    body: Result<Vec<u8>, ureq::Error>,
}

impl Reply {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    fn bytes(&self) -> &[u8] {
        self.body.as_ref().unwrap()
    }
}

fn get(agent: &ureq::Agent, url: &str, headers: &[(&str, &str)]) -> Reply {
    let mut request = agent.get(url);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let (parts, body) = request.call().unwrap().into_parts();
    let body = body.into_with_config().limit(1 << 30).read_to_vec();
    Reply { status: parts.status.as_u16(), headers: parts.headers, body }
}

/// Runs a check over an empty store of each kind.
fn each_store(check: impl Fn(Store)) {
    check(Store::open("memory://", Missing::Refuse).unwrap());
    let dir = tempfile::tempdir().unwrap();
    check(Store::open(&format!("file://{}", dir.path().display()), Missing::Refuse).unwrap());
}

/// A store over another, for the stores that fail.
fn wrapped(inner: faulty::Faulty) -> Store {
    Store::new(Arc::new(inner), "faulty://")
}
