//! A package folder read back, every byte checked against its manifest.

use super::variant_file;
use crate::emit::wasm::Variant;
use crate::error::{Error, Kind, Result};
use crate::plan::digest::Digest;
use crate::plan::golden::Golden;
use crate::plan::manifest::{Manifest, Role};
use crate::plan::{Plan, parse};
use crate::trust::digest;
use std::path::Path;

/// A package: what `nearside build` wrote.
#[derive(Debug)]
pub struct Package {
    pub plan: Plan,
    pub wasm: Vec<(Variant, Vec<u8>)>,
    pub wgsl: String,
    /// The bytes of each pack of the plan, in order.
    pub packs: Vec<Vec<u8>>,
    pub golden: Option<Golden>,
}

impl Package {
    /// Reads a package folder.
    pub fn open(folder: &Path) -> Result<Package> {
        let read = |path: &str| {
            let at = folder.join(path);
            std::fs::read(&at).map_err(|e| {
                let kind = if e.kind() == std::io::ErrorKind::NotFound { Kind::NotFound } else { Kind::Io };
                Error::new(kind, e.to_string()).at(at.display())
            })
        };
        let manifest =
            Manifest::parse(&read("manifest.json")?).map_err(|e| e.at(folder.join("manifest.json").display()))?;
        let file = |role: Role| -> Result<Option<Vec<u8>>> {
            let Some(file) = manifest.file(role) else { return Ok(None) };
            let bytes = read(&file.path)?;
            digest::verify_file(file, &bytes).map_err(|e| e.at(folder.join(&file.path).display()))?;
            Ok(Some(bytes))
        };
        let missing =
            |what: &str| Error::new(Kind::InvalidPackage, format!("the package has no {what}")).at(folder.display());
        let plan = parse(&file(Role::Plan)?.ok_or_else(|| missing("plan"))?)?;
        let mut wasm = vec![];
        for v in [Variant::Simd, Variant::Relaxed, Variant::Threads] {
            if let Some(bytes) = file(variant_file(v).1)? {
                wasm.push((v, bytes));
            }
        }
        let wgsl = file(Role::Wgsl)?.unwrap_or_default();
        let wgsl = String::from_utf8(wgsl).map_err(|_| missing("readable model.wgsl"))?;
        let golden = match file(Role::Golden)? {
            Some(bytes) => Some(Golden::parse(&bytes, &plan)?),
            None => None,
        };
        let mut packs = vec![];
        for p in &plan.packs {
            let name = Digest::from_bytes(p.sha256);
            let file = manifest
                .files
                .iter()
                .find(|f| f.role == Role::Weights && f.sha256 == name)
                .ok_or_else(|| missing(&format!("weights {name}")))?;
            let bytes = read(&file.path)?;
            digest::verify_file(file, &bytes).map_err(|e| e.at(folder.join(&file.path).display()))?;
            packs.push(bytes);
        }
        Ok(Package { plan, wasm, wgsl, packs, golden })
    }
}
