//! `nearside serve --store URL --listen ADDR`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;

use super::{Output, runtime};
use crate::error::{Error, Kind, Result};
use crate::serve::listen::{self, Limits};
use crate::serve::{Config, STRICT_CSP, Server, app};
use crate::store::{Missing, Store};

/// The arguments of `nearside serve`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The store to serve: a folder or file:///folder
    #[arg(long, value_name = "URL")]
    store: String,
    /// The address and port to listen on; port 0 takes a free one
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// A folder of files to serve at /, cross-origin isolated
    #[arg(long, value_name = "DIR")]
    www: Option<PathBuf>,
    /// The Content-Security-Policy of these files: "strict", "none", or a policy
    #[arg(long, value_name = "POLICY", default_value = "strict", requires = "www")]
    csp: String,
    /// Seconds until a response must begin, and between two pieces of its body
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=3600))]
    timeout: u64,
    /// Connections at the same time; others wait
    #[arg(long, value_name = "N", default_value_t = 1024, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    connections: u32,
}

/// What is printed once the server listens.
#[derive(Serialize)]
struct Listening {
    listening: String,
    store: String,
}

pub(super) fn run(args: &Args, output: &Output) -> Result<()> {
    let store = Store::open(&args.store, Missing::Refuse)?;
    let csp = match args.csp.as_str() {
        "strict" => Some(STRICT_CSP.to_owned()),
        "none" => None,
        policy => Some(policy.to_owned()),
    };
    let config = Config { www: args.www.clone(), csp, timeout: Duration::from_secs(args.timeout) };
    let server = Server::new(store.clone(), config)?;
    let limits = Limits { connections: usize::try_from(args.connections).unwrap_or(usize::MAX), ..Limits::default() };
    runtime()?.block_on(async {
        let listener = listen::bind(args.listen).await?;
        let address = listener.local_addr().map_err(|e| Error::new(Kind::Io, e.to_string()))?;
        let listening = Listening { listening: format!("http://{address}"), store: store.to_string() };
        let text = format!("Serving {} on {}", listening.store, listening.listening);
        output.result(&listening, text)?;
        listen::serve(listener, app(server), limits, listen::stop_signal()).await;
        output.note("Stopped.");
        Ok(())
    })
}
