//! The project's task runner: `cargo xtask COMMAND`. See the README for what each command does.

mod cache;
mod models;
mod process;
mod progress;
mod setup;
mod wheels;

use anyhow::Result;
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Set-up, build, demo, tests, conformance and benchmarks of Nearside")]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Install what the other commands need: the wasm target, Chromium, Vulkan drivers, npm packages, Python packages
    Setup,
    /// Fetch and check the real models, make their ONNX files and reference answers, and print their folder
    Models,
}

fn main() -> Result<()> {
    match Args::parse().command {
        Command::Setup => setup::run(),
        Command::Models => {
            let models = models::ensure()?;
            println!("{}", models.folder.display());
            Ok(())
        }
    }
}
