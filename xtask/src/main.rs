//! The project's task runner: `cargo xtask COMMAND`. See the README for what each command does.

mod cache;
mod models;
mod peers;
mod process;
mod progress;
mod setup;
mod wasm;
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
    /// Compile
    Rten,
    /// Fetch and check the real models, make their ONNX files and reference answers, and print their folder
    Models,
}

fn main() -> Result<()> {
    match Args::parse().command {
        Command::Setup => setup::run(),
        Command::Rten => { println!("{}", peers::rten()?.display()); Ok(()) }
        Command::Models => {
            let models = models::ensure()?;
            println!("{}", models.folder.display());
            Ok(())
        }
    }
}
