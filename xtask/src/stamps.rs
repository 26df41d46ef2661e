//! Work that is repeated only when its inputs changed: a stamp holds the digest of the inputs that the last one read.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::{cache, process};

/// Does `work` unless the stamp `name` says that it was done on the same `inputs` (files, or folders with all below them)
/// and all of `outputs` are there. Returns whether it worked.
pub(crate) fn when_changed(
    name: &str,
    inputs: &[PathBuf],
    outputs: &[PathBuf],
    work: impl FnOnce() -> Result<()>,
) -> Result<bool> {
    let stamp = process::root().join("target/stamps").join(name);
    let digest = digest(inputs)?;
    if outputs.iter().all(|path| path.exists()) && fs::read_to_string(&stamp).is_ok_and(|text| text == digest) {
        return Ok(false);
    }
    work()?;
    if let Some(folder) = stamp.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::write(&stamp, digest)?;
    Ok(true)
}

fn digest(inputs: &[PathBuf]) -> Result<String> {
    let mut files = Vec::new();
    for input in inputs {
        collect(input, &mut files)?;
    }
    files.sort();
    let mut parts = Vec::new();
    for file in &files {
        parts.push(file.to_string_lossy().into_owned().into_bytes());
        parts.push(fs::read(file).with_context(|| format!("cannot read {}", file.display()))?);
    }
    Ok(cache::key(parts.iter().map(Vec::as_slice)))
}

fn collect(path: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    if path.is_dir() {
        for entry in fs::read_dir(path)? {
            collect(&entry?.path(), files)?;
        }
    } else if path.exists() {
        files.push(path.to_path_buf());
    }
    Ok(())
}
