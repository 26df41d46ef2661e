//! The program's own server, as a child process.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Stdio};

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::process;

/// A running `nearside serve`; it ends when this is dropped.
pub(crate) struct Server {
    child: Child,
    /// `http://ADDRESS:PORT`
    pub(crate) origin: String,
}

#[derive(Deserialize)]
struct Listening {
    listening: String,
}

impl Server {
    /// Serves the store, and the folder `www` at /, on 127.0.0.1.
    pub(crate) fn start(nearside: &Path, store: &Path, www: &Path, port: u16) -> Result<Server> {
        let mut command = process::command(nearside);
        command.args(["--json", "--log", "error", "serve", "--store"]).arg(store).arg("--www").arg(www);
        command.args(["--listen", &format!("127.0.0.1:{port}")]);
        let shown = process::show(&command);
        let mut child =
            command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().context("cannot start the server")?;
        let mut line = String::new();
        if let Some(output) = child.stdout.take() {
            BufReader::new(output).read_line(&mut line)?;
        }
        match serde_json::from_str::<Listening>(&line) {
            Ok(Listening { listening }) => Ok(Server { child, origin: listening }),
            Err(_) => {
                // It has ended already or is of no use.
                let _ = child.kill();
                let _ = child.wait();
                anyhow::bail!("`{shown}` did not start: {line}")
            }
        }
    }

    /// Waits until the server ends.
    pub(crate) fn wait(mut self) -> Result<()> {
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // An error means that it has ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
