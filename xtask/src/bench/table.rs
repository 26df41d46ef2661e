//! The benchmark's table, for the terminal and for the README.

use std::fmt::Write;

use super::Device;
use super::figures::{Figures, Measured, Run};
use crate::process;

const HEAD: [&str; 11] = [
    "model",
    "device",
    "runtime",
    "ms",
    "ratio",
    "first ms",
    "second visit ms",
    "main thread ms",
    "dispatches / submits / bind groups",
    "peak GPU MB",
    "max diff",
];

/// A row for each runner, its ratio being ours to its, then sizes and the machine.
pub(super) fn render(measured: &Measured, figures: &Figures, devices: &[Device], markdown: bool) -> String {
    let mut rows = vec![HEAD.map(str::to_owned)];
    for (model, runs) in &measured.models {
        for device in devices {
            let Some(ours) = runs.get(device.runners()[0]) else { continue };
            for runner in device.runners() {
                if let Some(run) = runs.get(*runner) {
                    rows.push(row(model, *device, runner, run, ours));
                }
            }
        }
    }
    let mut text = lines(&rows, markdown);
    let peak = &measured.peak;
    // In Markdown each of the lines below is a list's item.
    let item = if markdown { "- " } else { "" };
    let relaxed = peak.relaxed.map_or_else(|| "none".to_owned(), |peak| format!("{peak:.1}"));
    let _ = writeln!(
        text,
        "\n{item}SIMD peak of one thread: {:.1} GF/s, with relaxed multiply-add {relaxed} GF/s",
        peak.simd128
    );
    for (model, runs) in &measured.models {
        for device in devices.iter().filter(|device| **device != Device::Webgpu) {
            let key = format!("{model}/{}/gflops", device.name());
            if let (Some(gflops), Some(run)) = (figures.get(&key), runs.get(device.runners()[0])) {
                let _ = writeln!(text, "{item}{model} {}: {gflops:.1} GF/s over {} rounds", device.name(), run.rounds);
            }
        }
    }
    for (model, peers) in &measured.failed {
        for (runner, why) in peers {
            let _ = writeln!(text, "{item}{model}: {} does not run it: {why}", name(runner));
        }
    }
    for key in ["runtime", "minilm_wasm", "resnet50_wasm", "efficientnet-lite0_wasm"] {
        if let Some(bytes) = figures.get(&format!("size/{key}_brotli")) {
            let _ = writeln!(text, "{item}{key}: {:.1} kB after Brotli", bytes / 1000.0);
        }
    }
    let _ = writeln!(
        text,
        "{item}{}, {} cores; Chromium {}, onnxruntime-web 1.30.0, RTen 0.27.0 with relaxed SIMD; WebGPU on SwiftShader",
        cpu(),
        std::thread::available_parallelism().map_or(1, usize::from),
        measured.chromium
    );
    text
}

fn row(model: &str, device: Device, runner: &str, run: &Run, ours: &Run) -> [String; 11] {
    let gpu = device == Device::Webgpu;
    let counts = &run.counts;
    let on_gpu = |text: String| if gpu { text } else { String::new() };
    [
        model.to_owned(),
        device.name().to_owned(),
        name(runner).to_owned(),
        format!("{:.1}", run.median_ms),
        format!("{:.2}", ours.median_ms / run.median_ms),
        format!("{:.0}", run.first_ms),
        format!("{:.0}", run.again_ms),
        format!("{:.1}", run.main_thread_ms),
        on_gpu(format!("{} / {} / {}", counts.dispatches, counts.submits, counts.bind_groups)),
        on_gpu(format!("{:.1}", counts.peak_bytes / 1e6)),
        format!("{:.0e}", run.max_abs_diff),
    ]
}

fn name(runner: &str) -> &str {
    match runner {
        "ort-webgpu-capture" => "ORT, graph capture",
        _ if runner.starts_with("ort") => "ORT",
        _ if runner.starts_with("rten") => "RTen",
        _ => "Nearside",
    }
}

fn lines(rows: &[[String; 11]], markdown: bool) -> String {
    let mut text = String::new();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..HEAD.len()).map(width).collect();
    for (i, row) in rows.iter().enumerate() {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        let line = if markdown { format!("| {} |", cells.join(" | ")) } else { cells.join("  ") };
        let _ = writeln!(text, "{}", line.trim_end());
        if markdown && i == 0 {
            let _ = writeln!(text, "|{}", " --- |".repeat(HEAD.len()));
        }
    }
    text
}

/// The processor's name, as far as the system tells it.
fn cpu() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find(|line| line.starts_with("model name")).and_then(|line| line.split(": ").nth(1));
    let sysctl = || {
        let output = process::command("sysctl").args(["-n", "machdep.cpu.brand_string"]).output().ok()?;
        Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    model.map(str::to_owned).or_else(sysctl).unwrap_or_else(|| std::env::consts::ARCH.to_owned())
}
