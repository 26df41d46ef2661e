//! Models compiled by `nearside build` and published into a store, in the cache.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::{cache, models, process, progress};

/// A model with the arguments of its build.
pub(crate) struct Recipe {
    pub(crate) name: &'static str,
    /// `--dim` arguments.
    dims: &'static [&'static str],
    /// The reference case whose inputs are the golden ones, where those by default say little: token ids that are all 1.
    golden: Option<&'static str>,
}

/// What the demo publishes.
pub(crate) const DEMO: [Recipe; 2] = [
    Recipe { name: "efficientnet-lite0", dims: &[], golden: None },
    Recipe { name: "minilm", dims: &["batch=1..8", "sequence=1..128"], golden: Some("one") },
];

/// What the browser suite runs beside these, of [`models::others`].
pub(crate) const OTHERS: [Recipe; 4] = [
    Recipe { name: "efficientnet-lite0-int8", dims: &[], golden: Some("coffee") },
    Recipe { name: "orientation", dims: &[], golden: Some("page-90") },
    Recipe { name: "text-recognition", dims: &["x_2=48..48", "p2o.DynamicDimension.1=32..640"], golden: Some("line") },
    Recipe { name: "voice-activity", dims: &["sequence=576..576"], golden: Some("speech") },
];

/// What the benchmark runs: the same shapes for every runtime.
pub(crate) const BENCH: [Recipe; 3] = [
    Recipe { name: "minilm", dims: &["batch=1..1", "sequence=128..128"], golden: Some("sequence-128") },
    Recipe { name: "resnet50", dims: &[], golden: None },
    Recipe { name: "efficientnet-lite0", dims: &[], golden: None },
];

pub(crate) const VERSION: &str = "1.0.0";

/// A compiled model: its folder, and the key that says from what it was built.
pub(crate) struct Package {
    pub(crate) folder: PathBuf,
    key: String,
}

impl Recipe {
    /// The package, compiled where the program, the model or the arguments changed.
    pub(crate) fn build(&self, nearside: &Path, models: &models::Models) -> Result<Package> {
        let model = models.folder.join(format!("{}.onnx", self.name));
        let mut parts = vec![fs::read(nearside)?, fs::read(&model)?];
        parts.extend(self.dims.iter().map(|dim| dim.as_bytes().to_vec()));
        let golden =
            self.golden.map(|case| models.folder.join("reference").join(self.name).join(case).join("inputs.npz"));
        parts.extend(golden.as_ref().map(fs::read).transpose()?);
        let key = format!("{}-{}", self.name, cache::key(parts.iter().map(Vec::as_slice)));
        let folder = cache::entry("packages", &key, |folder| {
            let bar = progress::spinner(format!("compile {}", self.name));
            let mut command = process::command(nearside);
            command.arg("build").arg(&model).arg("-o").arg(folder);
            command.args(["--name", self.name, "--version", VERSION]);
            for dim in self.dims {
                command.args(["--dim", dim]);
            }
            if let Some(golden) = &golden {
                command.arg("--golden").arg(golden);
            }
            process::run(&mut command, &bar)?;
            progress::done(&bar);
            Ok(())
        })?;
        Ok(Package { folder, key })
    }
}

/// The folder of a store that holds these packages.
pub(crate) fn publish(nearside: &Path, packages: &[Package]) -> Result<PathBuf> {
    let key = cache::key(packages.iter().map(|package| package.key.as_bytes()));
    cache::entry("stores", &key, |folder| {
        let bar = progress::spinner("publish the models");
        for package in packages {
            let mut command = process::command(nearside);
            command.arg("publish").arg(&package.folder).arg("--store").arg(folder);
            process::run(&mut command, &bar)?;
        }
        progress::done(&bar);
        Ok(())
    })
}
