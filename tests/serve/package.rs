//! Packages to publish, and readers that check all of what a store shows.

use std::fs;
use std::path::Path;

use nearside::plan::manifest::{FORMAT, Manifest, Role};
use nearside::store::models::VersionDocument;
use nearside::store::{Store, layout};
use nearside::trust::digest::{describe, sha256, verify_file};

pub(crate) const CHUNK: u32 = 1 << 16;

/// The bytes of weight file `index` of a package made from `seed`. Even files are the same for every seed, so that
/// packages share blobs.
pub(crate) fn weights(seed: u8, index: u8) -> Vec<u8> {
    let seed = if index.is_multiple_of(2) { 0 } else { seed };
    let size = 200_000 + usize::from(index);
    (0..size).map(|i| (i % 251) as u8 ^ seed.wrapping_mul(31) ^ index).collect()
}

/// Writes the package NAME@VERSION with a plan and three files of weights.
pub(crate) fn write(name: &str, version: &str, seed: u8) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("weights")).unwrap();
    let mut files = Vec::new();
    let mut add = |path: String, role, bytes: Vec<u8>| {
        fs::write(dir.path().join(&path), &bytes).unwrap();
        files.push(describe(path, role, &bytes, CHUNK));
    };
    add("model.plan".into(), Role::Plan, format!("plan {seed}").into_bytes());
    for index in 0..3 {
        let bytes = weights(seed, index);
        add(format!("weights/{}.bin", sha256(&bytes)), Role::Weights, bytes);
    }
    let (inputs, outputs) = (vec![], vec![]);
    let manifest = Manifest { format: FORMAT, name: name.into(), version: version.into(), inputs, outputs, files };
    fs::write(dir.path().join("manifest.json"), manifest.to_json().unwrap()).unwrap();
    dir
}

pub(crate) fn manifest(folder: &Path) -> Manifest {
    Manifest::parse(&fs::read(folder.join("manifest.json")).unwrap()).unwrap()
}

/// Reads every version that the store lists, down to the last byte, and gives back how many there are. A version that is
/// listed and not whole is a broken state.
pub(crate) async fn check_all(store: &Store) -> usize {
    let mut count = 0;
    for model in store.models().await.unwrap() {
        for version in &model.versions {
            let document = store.version_bytes(&model.name, &version.parse().unwrap()).await.unwrap();
            let document = VersionDocument::parse(&document).unwrap();
            let manifest = store.manifest(&document.manifest).await.unwrap();
            assert_eq!((&manifest.name, &manifest.version), (&model.name, version));
            for file in &manifest.files {
                let blob = store.read(&layout::blob(&file.sha256), 1 << 30).await.unwrap();
                verify_file(file, &blob.unwrap_or_else(|| panic!("{version}: no blob for {}", file.path))).unwrap();
            }
            count += 1;
        }
    }
    count
}
