//! `cargo xtask demo`: from a fresh clone to real models in the browser.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Map, Value, json};

use crate::packages::{DEMO, VERSION};
use crate::server::Server;
use crate::{build, harness, models, packages, process, setup};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Classify a photo in headless Chromium on WebGPU and on wasm, print the answers, and fail if they are wrong
    #[arg(long)]
    check: bool,
    /// Print results as JSON only; the last line of --check is JSON either way
    #[arg(long)]
    json: bool,
    /// The port of the page
    #[arg(long, default_value_t = 8080)]
    port: u16,
}

/// What the photo shows, and how far its probability may be from ONNX Runtime's.
const PHOTO: &str = "coffee";
const TOLERANCE: f64 = 0.01;

pub(crate) fn run(args: &Args) -> Result<()> {
    setup::run()?;
    let models = models::ensure()?;
    let nearside = build::run()?;
    let built = DEMO.iter().map(|recipe| recipe.build(&nearside, &models)).collect::<Result<Vec<_>>>()?;
    let store = packages::publish(&nearside, &built)?;
    let www = process::root().join("www/dist");
    assets(&models, &www.join("assets"))?;
    if args.check {
        let server = Server::start(&nearside, &store, &www, 0)?;
        return check(args, &models, &server);
    }
    let server =
        Server::start(&nearside, &store, &www, args.port).or_else(|_| Server::start(&nearside, &store, &www, 0))?;
    if args.json {
        println!("{}", json!({ "url": server.origin }));
    } else {
        println!("Nearside runs at {}   (stop with Ctrl-C)", server.origin);
    }
    open(&server.origin);
    server.wait()
}

/// Puts beside the page what it shows and is not committed: labels, the tokenizer, sample photos.
fn assets(models: &models::Models, folder: &Path) -> Result<()> {
    let photos = folder.join("photos");
    fs::create_dir_all(&photos)?;
    for name in ["labels.json", "tokenizer.json"] {
        fs::copy(models.folder.join(name), folder.join(name))?;
    }
    for entry in fs::read_dir(models.folder.join("photos"))? {
        let entry = entry?;
        fs::copy(entry.path(), photos.join(entry.file_name()))?;
    }
    Ok(())
}

/// Opens the page in the user's browser, where there is a desktop; the URL is printed in any case.
fn open(url: &str) {
    let has_desktop = std::env::var_os("DISPLAY").is_some() || std::env::var_os("WAYLAND_DISPLAY").is_some();
    let opener = if cfg!(target_os = "macos") { "open" } else { "xdg-open" };
    if (has_desktop || cfg!(target_os = "macos")) && process::which(opener).is_some() {
        // The page is as well without: its URL stands above.
        let _ = process::command(opener).arg(url).spawn();
    }
}

/// Has Chromium classify the photo on each device and compares with ONNX Runtime's answer.
fn check(args: &Args, models: &models::Models, server: &Server) -> Result<()> {
    let labels: Vec<String> = serde_json::from_slice(&fs::read(models.folder.join("labels.json"))?)?;
    let answers: Value = serde_json::from_slice(&fs::read(models.folder.join("answers.json"))?)?;
    let expected = &answers["efficientnet-lite0"][PHOTO][0];
    let (label, probability) = expected[0].as_str().zip(expected[1].as_f64()).context("answers.json has no answer")?;
    let config = json!({
        "origin": server.origin,
        "model": format!("{}/efficientnet-lite0@{VERSION}", server.origin),
        "photo": models.folder.join(format!("photos/{PHOTO}.png")),
        "pkg": process::root().join("pkg/dist"),
        "models": models.folder,
        "input": format!("/models/reference/efficientnet-lite0/{PHOTO}/inputs/input.npy"),
        "labels": labels,
    });
    let mut answers = Map::new();
    harness::node("tests/browser/demo.js", &config, |line| {
        // {"device": …, "top": [[label, probability], …]}
        if let Ok(mut answer) = serde_json::from_str::<Value>(line)
            && let Some(device) = answer["device"].as_str().map(str::to_owned)
        {
            answers.insert(device, answer["top"].take());
        }
    })?;
    let mut wrong = Vec::new();
    for device in ["webgpu", "wasm"] {
        let Some(top) = answers.get(device).and_then(Value::as_array) else { bail!("no answer from {device}") };
        if !args.json {
            println!("{device}:");
            for row in top {
                println!("  {:<24} {:.3}", row[0].as_str().unwrap_or_default(), row[1].as_f64().unwrap_or_default());
            }
        }
        let best = (top[0][0].as_str(), top[0][1].as_f64());
        if best.0 != Some(label) || best.1.is_none_or(|p| (p - probability).abs() > TOLERANCE) {
            wrong.push(format!("{device} says {}, not {label} {probability}", top[0]));
        }
    }
    println!("{}", Value::Object(answers));
    ensure!(wrong.is_empty(), "{}", wrong.join("; "));
    Ok(())
}
