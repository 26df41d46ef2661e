//! What the page measured, and the figures that follow from it.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::Device;

/// What `benches/bench.ts` prints.
#[derive(Deserialize)]
pub(super) struct Measured {
    pub(super) chromium: String,
    pub(super) peak: Peak,
    pub(super) models: BTreeMap<String, BTreeMap<String, Run>>,
    /// Peers that do not run a model, by model and runner, with what they say.
    pub(super) failed: BTreeMap<String, BTreeMap<String, String>>,
}

/// GF/s of one thread on multiply-adds in registers.
#[derive(Deserialize)]
pub(super) struct Peak {
    pub(super) simd128: f64,
    pub(super) relaxed: Option<f64>,
}

/// One runner on one model.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Run {
    pub(super) median_ms: f64,
    /// To the first answer with the HTTP cache alone, and on a second visit with whatever the first one left.
    pub(super) first_ms: f64,
    pub(super) again_ms: f64,
    pub(super) main_thread_ms: f64,
    pub(super) max_abs_diff: f64,
    pub(super) rounds: u32,
    pub(super) counts: Counts,
}

/// Of WebGPU, for each run; bytes since the model was opened.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Counts {
    pub(super) dispatches: f64,
    pub(super) submits: f64,
    pub(super) passes: f64,
    pub(super) bind_groups: f64,
    pub(super) buffers: f64,
    pub(super) peak_bytes: f64,
}

/// Flat figures, `MODEL/DEVICE/METRIC`.
pub(super) struct Figures(Map<String, Value>);

impl Figures {
    pub(super) fn new(measured: &Measured, devices: &[Device], flops: &Value) -> Result<Figures> {
        let mut figures = Figures(Map::new());
        for (model, runs) in &measured.models {
            let failed = measured.failed.get(model).context("a model of which no peer's failures are told")?;
            for device in devices {
                figures.add(
                    model,
                    *device,
                    runs,
                    failed,
                    flops[model].as_f64().context("a model without its flops")?,
                )?;
            }
        }
        Ok(figures)
    }

    fn add(
        &mut self,
        model: &str,
        device: Device,
        runs: &BTreeMap<String, Run>,
        failed: &BTreeMap<String, String>,
        flops: f64,
    ) -> Result<()> {
        let ran = device.runners().iter().filter(|name| !failed.contains_key(**name));
        let find = |name: &&'static str| Ok((*name, runs.get(*name).with_context(|| format!("no figures of {name}"))?));
        let all: Vec<(&str, &Run)> = ran.map(find).collect::<Result<_>>()?;
        let (&(_, ours), peers) = all.split_first().context("a device without runners")?;
        let mut put = |metric: &str, value: f64| {
            self.0.insert(format!("{model}/{}/{metric}", device.name()), rounded(value));
        };
        put("ms", ours.median_ms);
        put("gflops", flops / ours.median_ms / 1e6);
        put("first_ms", ours.first_ms);
        put("again_ms", ours.again_ms);
        put("main_thread_ms", ours.main_thread_ms);
        put("max_abs_diff", ours.max_abs_diff);
        put("dispatches", ours.counts.dispatches);
        put("submits", ours.counts.submits);
        put("bind_groups", ours.counts.bind_groups);
        put("passes", ours.counts.passes);
        put("buffers", ours.counts.buffers);
        put("peak_bytes", ours.counts.peak_bytes);
        // The better of a peer's modes counts.
        let best = |peer: &str, value: fn(&Run) -> f64| {
            let modes = peers.iter().filter(|(name, _)| name.starts_with(peer));
            modes.map(|(_, run)| value(run)).reduce(f64::min)
        };
        for (metric, peer, value) in [
            ("time_vs_ort", "ort", (|run| run.median_ms) as fn(&Run) -> f64),
            ("first_vs_ort", "ort", |run| run.first_ms),
            ("again_vs_ort", "ort", |run| run.again_ms),
            ("time_vs_rten", "rten", |run| run.median_ms),
        ] {
            if let Some(theirs) = best(peer, value) {
                put(metric, value(ours) / theirs);
            }
        }
        Ok(())
    }

    /// Adds a size in bytes.
    pub(super) fn size(&mut self, key: &str, bytes: u64) {
        self.0.insert(key.to_owned(), bytes.into());
    }

    pub(super) fn get(&self, key: &str) -> Option<f64> {
        self.0.get(key).and_then(Value::as_f64)
    }

    pub(super) fn json(&self) -> Value {
        Value::Object(self.0.clone())
    }
}

/// Four significant digits, and no digits after the point from 1000 on.
fn rounded(value: f64) -> Value {
    if value == 0.0 || !value.is_finite() {
        return Value::from(value);
    }
    let digits = (3.0 - value.abs().log10().floor()).max(0.0);
    let scale = 10f64.powf(digits);
    Value::from((value * scale).round() / scale)
}
