//! `cargo xtask setup`: every step looks first, and does only what is missing.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::{cache, process, progress, wheels};

const WASM_TARGET: &str = "wasm32-unknown-unknown";
const CHROMIUM_NAMES: [&str; 4] = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];
const CHROMIUM_MAC: &str = "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome";

/// All steps.
pub(crate) fn run() -> Result<()> {
    rust_target()?;
    system_packages()?;
    npm_packages()?;
    wheels::python_packages()?;
    Ok(())
}

fn rust_target() -> Result<()> {
    // The compiler's own folder answers faster than rustup.
    let sysroot = Command::new("rustc").args(["--print", "sysroot"]).current_dir(process::root()).output()?;
    let sysroot = PathBuf::from(String::from_utf8_lossy(&sysroot.stdout).trim());
    if sysroot.join("lib/rustlib").join(WASM_TARGET).is_dir() {
        return Ok(());
    }
    let bar = progress::spinner(format!("add the Rust target {WASM_TARGET}"));
    process::run(process::command("rustup").args(["target", "add", WASM_TARGET]), &bar)
        .with_context(|| format!("install the Rust target {WASM_TARGET} by hand where there is no rustup"))?;
    progress::done(&bar);
    Ok(())
}

/// The browser that tests, benchmarks and the demo drive: `$NEARSIDE_CHROMIUM`, or the one on PATH.
pub(crate) fn chromium() -> Option<PathBuf> {
    if let Some(path) = std::env::var_os("NEARSIDE_CHROMIUM") {
        return Some(PathBuf::from(path));
    }
    let mac = PathBuf::from(CHROMIUM_MAC);
    CHROMIUM_NAMES.iter().find_map(|name| process::which(name)).or_else(|| mac.is_file().then_some(mac))
}

/// Chromium for the browser tests, and a software Vulkan device for native WebGPU.
fn system_packages() -> Result<()> {
    let mut missing = Vec::new();
    if chromium().is_none() {
        missing.push("chromium");
    }
    if cfg!(target_os = "linux") {
        if !has_file(&["/usr/lib", "/usr/lib64", "/usr/local/lib"], "libvulkan.so.1") {
            missing.push("libvulkan1");
        }
        if !has_file(&["/usr/share/vulkan/icd.d", "/etc/vulkan/icd.d", "/usr/local/share/vulkan/icd.d"], ".json") {
            missing.push("mesa-vulkan-drivers");
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    let install = format!("apt-get install -y --no-install-recommends {}", missing.join(" "));
    if !(cfg!(target_os = "linux") && is_root() && process::which("apt-get").is_some()) {
        bail!(
            "missing: {}. Install them; on Debian and Ubuntu: sudo {install}; on macOS: brew install --cask chromium. \
             NEARSIDE_CHROMIUM may name the browser's executable.",
            missing.join(", ")
        );
    }
    let bar = progress::spinner(format!("install {} with apt", missing.join(", ")));
    let apt = |arguments: &[&str]| {
        let mut command = process::command("apt-get");
        command.args(arguments).env("DEBIAN_FRONTEND", "noninteractive");
        command
    };
    process::run(&mut apt(&["update", "-qq"]), &bar)?;
    let mut words = vec!["install", "-y", "--no-install-recommends"];
    words.extend(&missing);
    process::run(&mut apt(&words), &bar)?;
    progress::done(&bar);
    Ok(())
}

/// Whether a file whose name ends in `suffix` lies in one of the folders or in a folder right below.
fn has_file(folders: &[&str], suffix: &str) -> bool {
    let entries =
        |folder: &PathBuf| fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    let ends = |path: &PathBuf| path.to_string_lossy().ends_with(suffix);
    folders.iter().map(PathBuf::from).any(|folder| {
        let here: Vec<PathBuf> = entries(&folder);
        here.iter().any(ends)
            || here.iter().filter(|path| path.is_dir()).any(|path| {
                let below: Vec<PathBuf> = entries(path);
                below.iter().any(ends)
            })
    })
}

fn is_root() -> bool {
    Command::new("id").arg("-u").output().is_ok_and(|output| output.stdout.trim_ascii() == b"0")
}

/// The packages of the lock file, with no install script run.
fn npm_packages() -> Result<()> {
    let root = process::root();
    let lock = fs::read(root.join("package-lock.json"))?;
    let digest = cache::sha256(&lock);
    let stamp = root.join("node_modules/.nearside-lock");
    if fs::read_to_string(&stamp).is_ok_and(|text| text == digest) {
        return Ok(());
    }
    node_version()?;
    let bar = progress::spinner("install npm packages");
    process::run(process::command("npm").args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"]), &bar)?;
    fs::write(&stamp, digest)?;
    progress::done(&bar);
    Ok(())
}

fn node_version() -> Result<()> {
    let hint = "install Node 20.16 or newer, with npm (https://nodejs.org; Debian 13: apt-get install nodejs npm)";
    let output = Command::new("node").arg("--version").output().context(hint)?;
    let version = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    let major = version.trim_start_matches('v').split('.').next().and_then(|major| major.parse::<u32>().ok());
    match major {
        Some(20..) => Ok(()),
        _ => bail!("Node {version} is too old: {hint}"),
    }
}
