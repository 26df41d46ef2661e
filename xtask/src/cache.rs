//! The cache outside the clone: `$NEARSIDE_CACHE`, or `nearside` in the user's cache folder.
//!
//! Every entry's name holds a digest of what it was made from, and an entry appears whole or not at all, so several
//! clones and several processes may share one cache.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

/// The cache's folder, created when missing.
pub(crate) fn folder() -> Result<PathBuf> {
    let folder = match std::env::var_os("NEARSIDE_CACHE") {
        Some(folder) => PathBuf::from(folder),
        None => user_cache()
            .context("no home folder: set NEARSIDE_CACHE to a folder for models and tools")?
            .join("nearside"),
    };
    fs::create_dir_all(&folder).with_context(|| format!("cannot create the cache {}", folder.display()))?;
    Ok(folder)
}

fn user_cache() -> Option<PathBuf> {
    let variable = |name| std::env::var_os(name).filter(|value: &OsString| !value.is_empty()).map(PathBuf::from);
    variable("XDG_CACHE_HOME")
        .or_else(|| variable("LOCALAPPDATA"))
        .or_else(|| variable("HOME").map(|home| home.join(".cache")))
}

/// The entry `kind/key` of the cache; where it is missing, `make` fills an empty folder that then becomes the entry.
pub(crate) fn entry(kind: &str, key: &str, make: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
    let parent = folder()?.join(kind);
    let entry = parent.join(key);
    if entry.is_dir() {
        return Ok(entry);
    }
    let partial = parent.join(format!(".{key}.{}", std::process::id()));
    if partial.exists() {
        fs::remove_dir_all(&partial)?;
    }
    fs::create_dir_all(&partial).with_context(|| format!("cannot create {}", partial.display()))?;
    let made = make(&partial);
    if made.is_ok() && fs::rename(&partial, &entry).is_ok() {
        return Ok(entry);
    }
    fs::remove_dir_all(&partial).with_context(|| format!("cannot remove {}", partial.display()))?;
    made?;
    // The rename failed: another process made the same entry first, or the disk refused.
    if entry.is_dir() { Ok(entry) } else { anyhow::bail!("cannot create the cache entry {}", entry.display()) }
}

/// A short hexadecimal SHA-256 over `parts`, each with its length, for use as a key.
pub(crate) fn key<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    hex(&hash.finalize())[..16].to_owned()
}

/// The SHA-256 of `bytes` in hexadecimal.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
