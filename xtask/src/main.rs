//! The project's task runner: `cargo xtask COMMAND`. See the README for what each command does.

mod bench;
mod build;
mod cache;
mod conformance;
mod demo;
mod harness;
mod models;
mod packages;
mod peers;
mod process;
mod progress;
mod server;
mod setup;
mod sizes;
mod stamps;
mod suite;
mod wasm;
mod wheels;
mod workers;

use std::process::ExitCode;

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
    /// Build the program, the npm package and the page
    Build,
    /// Compile, publish and serve the models, and open the page
    Demo(demo::Args),
    /// Run the whole test suite
    Test(suite::Args),
    /// Measure Nearside against onnxruntime-web and RTen in Chromium
    Bench(bench::Args),
    /// Run ONNX's node tests
    Conformance(conformance::Args),
    /// Fetch and check the real models, make their ONNX files and reference answers, and print their folder
    Models,
}

fn main() -> ExitCode {
    match run(Args::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<()> {
    match command {
        Command::Setup => setup::run(),
        Command::Build => setup::run().and_then(|()| build::run().map(drop)),
        Command::Demo(args) => demo::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Test(args) => suite::run(&args),
        Command::Conformance(args) => setup::run().and_then(|()| conformance::run(&args)),
        Command::Models => {
            let models = models::ensure()?;
            println!("{}", models.folder.display());
            Ok(())
        }
    }
}
