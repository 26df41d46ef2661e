//! Models and versions in a store: the version document, and listings.

use std::collections::BTreeMap;

use futures_util::TryStreamExt;
use object_store::path::Path;
use serde::{Deserialize, Serialize};

use super::{Store, layout};
use crate::error::{Error, Kind, Result};
use crate::plan::digest::Digest;
use crate::plan::manifest::{self, Manifest, TensorMeta};
use crate::plan::version::Version;
use crate::trust::digest::sha256;

/// The largest version document in bytes.
const MAX_DOCUMENT: usize = 1 << 20;

/// A model's version: the model metadata of the Open Inference Protocol, and the digest of the manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionDocument {
    /// The model's name.
    pub name: String,
    /// This version alone.
    pub versions: Vec<String>,
    /// `nearside`.
    pub platform: String,
    /// The inputs in order.
    pub inputs: Vec<TensorMeta>,
    /// The outputs in order.
    pub outputs: Vec<TensorMeta>,
    /// The SHA-256 of the manifest, which lies at `targets/{digest}.manifest.json`.
    pub manifest: Digest,
}

impl VersionDocument {
    /// The document of a manifest with this digest.
    pub fn of(manifest: &Manifest, digest: Digest) -> Self {
        VersionDocument {
            name: manifest.name.clone(),
            versions: vec![manifest.version.clone()],
            platform: "nearside".into(),
            inputs: manifest.inputs.clone(),
            outputs: manifest.outputs.clone(),
            manifest: digest,
        }
    }

    /// The document as JSON. The same document gives the same bytes.
    pub fn to_json(&self) -> Result<Vec<u8>> {
        serde_json::to_vec(self).map_err(|e| Error::new(Kind::Internal, e.to_string()))
    }

    /// Reads a document.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        serde_json::from_slice(bytes)
            .map_err(|e| Error::new(Kind::InvalidPackage, format!("not a version document: {e}")))
    }
}

/// A model as the server lists it: the metadata of its newest version, and all versions, oldest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Model {
    /// The model's name.
    pub name: String,
    /// All versions in semantic-version order, oldest first.
    pub versions: Vec<String>,
    /// `nearside`.
    pub platform: String,
    /// The inputs of the newest version.
    pub inputs: Vec<TensorMeta>,
    /// The outputs of the newest version.
    pub outputs: Vec<TensorMeta>,
}

/// A model's name and versions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listed {
    /// The model's name.
    pub name: String,
    /// All versions in semantic-version order, oldest first.
    pub versions: Vec<String>,
}

impl Store {
    /// All models by name.
    pub async fn models(&self) -> Result<Vec<Listed>> {
        let found = self.list_versions(&Path::from(layout::MODELS)).await?;
        Ok(found.into_iter().map(|(name, versions)| Listed { name, versions: texts(versions) }).collect())
    }

    /// The versions of a model in semantic-version order, oldest first; none where there is no such model.
    pub async fn versions(&self, name: &str) -> Result<Vec<Version>> {
        Ok(self.list_versions(&layout::versions(name)?).await?.remove(name).unwrap_or_default())
    }

    /// A model with all its versions. The signature is that of the newest version, pre-releases only if there is no other.
    pub async fn model(&self, name: &str) -> Result<Model> {
        let versions = self.versions(name).await?;
        let newest = versions.iter().rev().find(|v| !v.is_prerelease()).or(versions.last());
        let newest = newest.ok_or_else(|| Error::new(Kind::NotFound, format!("no model {name}")))?;
        let document = VersionDocument::parse(&self.version_bytes(name, newest).await?)?;
        Ok(Model {
            name: name.to_owned(),
            versions: texts(versions),
            platform: document.platform,
            inputs: document.inputs,
            outputs: document.outputs,
        })
    }

    /// The bytes of a version document.
    pub async fn version_bytes(&self, name: &str, version: &Version) -> Result<bytes::Bytes> {
        let key = layout::version(name, version)?;
        let found = self.read(&key, MAX_DOCUMENT).await?;
        found.ok_or_else(|| Error::new(Kind::NotFound, format!("no model {name}@{version}")))
    }

    /// The manifest with this digest, checked against it.
    pub async fn manifest(&self, digest: &Digest) -> Result<Manifest> {
        let key = layout::manifest(digest);
        let bytes = self.read(&key, manifest::MAX_BYTES).await?;
        let bytes = bytes.ok_or_else(|| Error::new(Kind::NotFound, "no such manifest").at(&key))?;
        let actual = sha256(&bytes);
        if actual != *digest {
            return Err(Error::new(Kind::Integrity, format!("the object has the SHA-256 {actual}")).at(&key));
        }
        Manifest::parse(&bytes).map_err(|e| e.at(&key))
    }

    /// What lies under `prefix` as version documents; other keys are passed over.
    async fn list_versions(&self, prefix: &Path) -> Result<BTreeMap<String, Vec<Version>>> {
        let mut found = BTreeMap::<String, Vec<Version>>::new();
        let mut list = self.inner.list(Some(prefix));
        while let Some(object) = list.try_next().await.map_err(|e| self.error(prefix, e))? {
            if let Some((name, version)) = layout::parse_version(&object.location) {
                found.entry(name).or_default().push(version);
            }
        }
        found.values_mut().for_each(|versions| versions.sort());
        Ok(found)
    }
}

fn texts(versions: Vec<Version>) -> Vec<String> {
    versions.iter().map(|v| v.as_str().to_owned()).collect()
}
