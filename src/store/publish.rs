//! Publishing a package folder, so that readers never see a broken state.
//!
//! Order is the whole protocol: blobs, then the manifest that names them, then the version document that names the
//! manifest. Each is written atomically and only once. A publisher that dies anywhere leaves objects that nothing names;
//! the next try finds them and goes on. Two publishers of one version: the document is made with `PutMode::Create`, so one
//! wins, and the other learns whether its content was the same.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt};
use object_store::{MultipartUpload, ObjectStoreExt};
use serde::Serialize;

use super::models::VersionDocument;
use super::{Put, Store, layout};
use crate::error::{Error, Kind, Result};
use crate::plan::digest::Digest;
use crate::plan::manifest::{self, File, Manifest};
use crate::plan::version::Version;
use crate::trust::digest::{Hasher, sha256, verify, verify_chunk};

/// Blobs that are uploaded at the same time.
const PARALLEL: usize = 4;
/// Files larger than this many bytes are uploaded in parts of this size, and never wholly in memory.
const PART: u64 = 64 << 20;

/// How far publishing has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// What is being done.
    pub stage: Stage,
    /// Bytes done in this stage.
    pub done: u64,
    /// Bytes of this stage.
    pub total: u64,
}

/// What publishing is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Reading the package and checking every byte against the manifest.
    Verify,
    /// Uploading blobs.
    Upload,
}

/// What was published.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Published {
    /// The model's name.
    pub name: String,
    /// The model's version.
    pub version: String,
    /// The SHA-256 of the manifest.
    pub manifest: Digest,
    /// Whether this made the version; otherwise the same content was published before.
    pub created: bool,
    /// Blobs that were uploaded.
    pub blobs_uploaded: usize,
    /// Blobs that the store had.
    pub blobs_present: usize,
    /// Bytes that were uploaded.
    pub bytes_uploaded: u64,
}

/// Verifies the package in `folder` and publishes it into `store`.
///
/// Nothing is written unless the whole package is as its manifest says. Publishing what is published already succeeds;
/// the same version with other content is a `Conflict`.
pub async fn publish(
    store: &Store,
    folder: &FilePath,
    progress: impl Fn(Progress) + Send + Sync + 'static,
) -> Result<Published> {
    let progress: Arc<dyn Fn(Progress) + Send + Sync> = Arc::new(progress);
    let (package, report) = (folder.to_owned(), Arc::clone(&progress));
    let package = blocking(move || Package::read(&package, &*report)).await?;
    let (manifest, digest) = (&package.manifest, package.digest);
    let version: Version = manifest.version.parse()?;
    let key = layout::version(&manifest.name, &version)?;
    let document = VersionDocument::of(manifest, digest).to_json()?;
    // Before gigabytes are uploaded for nothing.
    if store.size(&key).await?.is_some() {
        same_document(store, manifest, &version, &document).await?;
    }

    let blobs: BTreeMap<Digest, File> = manifest.files.iter().map(|file| (file.sha256, file.clone())).collect();
    let total = blobs.values().fold(0u64, |sum, file| sum.saturating_add(file.size));
    let done = AtomicU64::new(0);
    let advance = |bytes: u64| {
        let done = done.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes);
        progress(Progress { stage: Stage::Upload, done, total });
    };
    advance(0);
    let (folder, advance) = (&package.folder, &advance);
    let puts: Vec<(Put, u64)> = futures_util::stream::iter(blobs.into_values())
        .map(|file| async move { upload(store, folder, &file, advance).await })
        .buffer_unordered(PARALLEL)
        .try_collect()
        .await?;

    let manifest_key = layout::manifest(&digest);
    if store.create(&manifest_key, package.bytes.clone()).await? == Put::Existed {
        store.manifest(&digest).await?;
    }
    let put = store.create(&key, document.clone()).await?;
    if put == Put::Existed {
        same_document(store, manifest, &version, &document).await?;
    }
    let uploaded = puts.iter().filter(|(put, _)| *put == Put::Created);
    Ok(Published {
        name: manifest.name.clone(),
        version: manifest.version.clone(),
        manifest: digest,
        created: put == Put::Created,
        blobs_uploaded: uploaded.clone().count(),
        blobs_present: puts.iter().filter(|(put, _)| *put == Put::Existed).count(),
        bytes_uploaded: uploaded.map(|(_, size)| size).sum(),
    })
}

/// Checks that the version that the store has is the one that we publish.
async fn same_document(store: &Store, manifest: &Manifest, version: &Version, ours: &[u8]) -> Result<()> {
    let theirs = store.version_bytes(&manifest.name, version).await?;
    if theirs == ours || VersionDocument::parse(&theirs)? == VersionDocument::parse(ours)? {
        return Ok(());
    }
    let message = format!("{}@{version} is published with other content", manifest.name);
    Err(Error::new(Kind::Conflict, message)
        .help("a published version never changes: build the package with another --version"))
}

/// Uploads one file as a blob unless the store has it. Gives back whether it was written, and its size.
async fn upload(store: &Store, folder: &FilePath, file: &File, advance: &impl Fn(u64)) -> Result<(Put, u64)> {
    let key = layout::blob(&file.sha256);
    if let Some(size) = store.size(&key).await? {
        if size != file.size {
            let message = format!("the store's blob has {size} bytes, not {}", file.size);
            return Err(Error::new(Kind::Integrity, message).at(&key).help("remove the damaged object from the store"));
        }
        advance(file.size);
        return Ok((Put::Existed, file.size));
    }
    let put = if file.size <= PART {
        let (folder, described) = (folder.to_owned(), file.clone());
        let bytes = blocking(move || read_verified(&folder, &described)).await?;
        store.create(&key, bytes).await?
    } else {
        let upload = store.inner().put_multipart(&key).await.map_err(|e| store.error(&key, e))?;
        upload_parts(store, folder, file, upload, PART).await?;
        Put::Created
    };
    advance(file.size);
    Ok((put, file.size))
}

/// Uploads a large file in parts of `part` bytes. It becomes visible when the digest of the whole is proved, and not before.
async fn upload_parts(
    store: &Store,
    folder: &FilePath,
    file: &File,
    mut upload: Box<dyn MultipartUpload>,
    part: u64,
) -> Result<()> {
    let key = layout::blob(&file.sha256);
    let result = async {
        let (folder, described) = (folder.to_owned(), file.clone());
        let mut reader = blocking(move || Chunks::open(&folder, &described)).await?;
        loop {
            let (next, bytes) = blocking(move || {
                let mut bytes = Vec::new();
                while (bytes.len() as u64) < part && reader.next_into(&mut bytes)? {}
                Ok((reader, bytes))
            })
            .await?;
            reader = next;
            if bytes.is_empty() {
                break;
            }
            upload.put_part(bytes.into()).await.map_err(|e| store.error(&key, e))?;
        }
        reader.finish()?;
        upload.complete().await.map_err(|e| store.error(&key, e))?;
        Ok(())
    }
    .await;
    if result.is_err() {
        // The first error is the one to tell; parts that stay behind are never visible.
        let _ = upload.abort().await;
    }
    result
}

/// A package folder whose every byte was checked.
struct Package {
    folder: PathBuf,
    manifest: Manifest,
    bytes: Bytes,
    digest: Digest,
}

impl Package {
    fn read(folder: &FilePath, progress: &dyn Fn(Progress)) -> Result<Package> {
        let path = folder.join("manifest.json");
        let io = |e: std::io::Error| io_error(&path, &e).help("give the folder that `nearside build` wrote");
        let file = fs::File::open(&path).map_err(io)?;
        let mut bytes = Vec::new();
        file.take(manifest::MAX_BYTES as u64 + 1).read_to_end(&mut bytes).map_err(io)?;
        let manifest = Manifest::parse(&bytes).map_err(|e| e.at(path.display()))?;
        let digest = sha256(&bytes);
        let total = manifest.total_size();
        let mut done = 0;
        progress(Progress { stage: Stage::Verify, done, total });
        for file in &manifest.files {
            let mut chunks = Chunks::open(folder, file)?;
            let mut chunk = Vec::new();
            while chunks.next_into(&mut chunk)? {
                done += chunk.len() as u64;
                chunk.clear();
                progress(Progress { stage: Stage::Verify, done, total });
            }
            chunks.finish()?;
        }
        Ok(Package { folder: folder.to_owned(), manifest, bytes: bytes.into(), digest })
    }
}

/// A file of the package, read chunk by chunk, each checked against the manifest.
struct Chunks {
    file: fs::File,
    path: PathBuf,
    described: File,
    index: usize,
    hasher: Hasher,
}

impl Chunks {
    fn open(folder: &FilePath, described: &File) -> Result<Chunks> {
        manifest::check_path(&described.path)?;
        let path = folder.join(&described.path);
        let io = |e: std::io::Error| io_error(&path, &e);
        // A link may lead out of the package, to a file that was never meant to be published.
        let (root, real) = (folder.canonicalize().map_err(io)?, path.canonicalize().map_err(io)?);
        if !real.starts_with(&root) {
            return Err(Error::new(Kind::InvalidPackage, "the file is a link out of the package").at(path.display()));
        }
        let file = fs::File::open(&real).map_err(io)?;
        let size = file.metadata().map_err(io)?.len();
        if size != described.size {
            let message = format!("{size} bytes, not {} as the manifest says", described.size);
            return Err(Error::new(Kind::Integrity, message).at(path.display()).help("build the package again"));
        }
        Ok(Chunks { file, path, described: described.clone(), index: 0, hasher: Hasher::new() })
    }

    /// Appends the next chunk, checked; false at the end of the file.
    fn next_into(&mut self, bytes: &mut Vec<u8>) -> Result<bool> {
        let Some(range) = self.described.chunk_range(self.index) else { return Ok(false) };
        let start = bytes.len();
        let size = range.end - range.start;
        (&mut self.file).take(size).read_to_end(bytes).map_err(|e| io_error(&self.path, &e))?;
        let chunk = bytes.get(start..).unwrap_or_default();
        verify_chunk(&self.described, self.index, chunk).map_err(|e| e.help("build the package again"))?;
        self.hasher.update(chunk);
        self.index += 1;
        Ok(true)
    }

    /// Checks the digest of the whole, after the last chunk.
    fn finish(&self) -> Result<()> {
        let actual = self.hasher.clone().finish();
        if actual == self.described.sha256 {
            return Ok(());
        }
        let message = format!("SHA-256 is {actual}, not {}", self.described.sha256);
        Err(Error::new(Kind::Integrity, message).at(self.path.display()).help("build the package again"))
    }
}

/// A whole file, checked: the very bytes that are uploaded.
fn read_verified(folder: &FilePath, described: &File) -> Result<Bytes> {
    let mut chunks = Chunks::open(folder, described)?;
    let mut bytes = Vec::new();
    while chunks.next_into(&mut bytes)? {}
    verify(&bytes, &described.sha256).map_err(|e| e.at(chunks.path.display()))?;
    Ok(bytes.into())
}

fn io_error(path: &FilePath, error: &std::io::Error) -> Error {
    let kind = if error.kind() == std::io::ErrorKind::NotFound { Kind::NotFound } else { Kind::Io };
    Error::new(kind, error.to_string()).at(path.display())
}

/// Runs what reads files and hashes away from the threads that do the network.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(|e| Error::new(Kind::Internal, e.to_string()))?
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::manifest::{FORMAT, Role};
    use crate::store::Missing;
    use crate::trust::digest::describe;
    use std::sync::Mutex;

    /// Writes a package of a plan and one weight file into a folder.
    fn package(version: &str, weights: &[u8]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("weights")).unwrap();
        fs::write(dir.path().join("model.plan"), b"plan").unwrap();
        fs::write(dir.path().join("weights/w.bin"), weights).unwrap();
        let manifest = Manifest {
            format: FORMAT,
            name: "model".into(),
            version: version.into(),
            inputs: vec![],
            outputs: vec![],
            files: vec![
                describe("model.plan", Role::Plan, b"plan", 1024),
                describe("weights/w.bin", Role::Weights, weights, 1024),
            ],
        };
        fs::write(dir.path().join("manifest.json"), manifest.to_json().unwrap()).unwrap();
        dir
    }

    fn memory() -> Store {
        Store::open("memory://", Missing::Refuse).unwrap()
    }

    #[tokio::test]
    async fn publishes_once_and_refuses_other_content() {
        let (store, first) = (memory(), package("1.0.0", &[1; 3000]));
        let seen = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&seen);
        let published = publish(&store, first.path(), move |p| log.lock().unwrap().push(p)).await.unwrap();
        assert!(published.created);
        assert_eq!((published.blobs_uploaded, published.blobs_present, published.bytes_uploaded), (2, 0, 3004));
        let last = *seen.lock().unwrap().last().unwrap();
        assert_eq!(last, Progress { stage: Stage::Upload, done: 3004, total: 3004 });

        let again = publish(&store, first.path(), |_| {}).await.unwrap();
        assert!(!again.created);
        assert_eq!((again.blobs_uploaded, again.blobs_present), (0, 2));

        let other = package("1.0.0", &[2; 3000]);
        let error = publish(&store, other.path(), |_| {}).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Conflict);
        let newer = package("1.0.10", &[2; 3000]);
        publish(&store, newer.path(), |_| {}).await.unwrap();
        let between = package("1.0.9", &[2; 3000]);
        assert_eq!(publish(&store, between.path(), |_| {}).await.unwrap().blobs_present, 2);
        assert_eq!(store.model("model").await.unwrap().versions, ["1.0.0", "1.0.9", "1.0.10"]);
        assert_eq!(store.model("other").await.unwrap_err().kind(), Kind::NotFound);
    }

    #[tokio::test]
    async fn a_damaged_package_writes_nothing() {
        type Damage = fn(&FilePath);
        let cases: &[(&str, Kind, Damage)] = &[
            ("no manifest", Kind::NotFound, |p| fs::remove_file(p.join("manifest.json")).unwrap()),
            ("manifest is garbage", Kind::InvalidPackage, |p| fs::write(p.join("manifest.json"), b"{").unwrap()),
            ("file missing", Kind::NotFound, |p| fs::remove_file(p.join("weights/w.bin")).unwrap()),
            ("flipped bit", Kind::Integrity, |p| {
                let mut bytes = vec![1; 3000];
                bytes[2999] ^= 1;
                fs::write(p.join("weights/w.bin"), bytes).unwrap();
            }),
            ("too short", Kind::Integrity, |p| fs::write(p.join("weights/w.bin"), [1; 2999]).unwrap()),
            ("too long", Kind::Integrity, |p| fs::write(p.join("weights/w.bin"), [1; 3001]).unwrap()),
            ("a folder", Kind::Io, |p| {
                fs::remove_file(p.join("weights/w.bin")).unwrap();
                fs::create_dir(p.join("weights/w.bin")).unwrap();
            }),
        ];
        for (name, kind, damage) in cases {
            let (store, package) = (memory(), package("1.0.0", &[1; 3000]));
            damage(package.path());
            let error = publish(&store, package.path(), |_| {}).await.unwrap_err();
            // A folder has a size of its own, so either may be noticed first.
            assert!(error.kind() == *kind || *name == "a folder" && error.kind() == Kind::Integrity, "{name}: {error}");
            assert_eq!(store.inner().list(None).count().await, 0, "{name}");
        }
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn a_link_out_of_the_package_is_refused() {
        let (store, package, outside) = (memory(), package("1.0.0", &[1; 3000]), tempfile::tempdir().unwrap());
        fs::write(outside.path().join("secret"), [1; 3000]).unwrap();
        fs::remove_file(package.path().join("weights/w.bin")).unwrap();
        std::os::unix::fs::symlink(outside.path().join("secret"), package.path().join("weights/w.bin")).unwrap();
        let error = publish(&store, package.path(), |_| {}).await.unwrap_err();
        assert_eq!(error.kind(), Kind::InvalidPackage);
        assert_eq!(store.inner().list(None).count().await, 0);
    }

    #[tokio::test]
    async fn a_damaged_blob_in_the_store_is_noticed() {
        let (store, package) = (memory(), package("1.0.0", &[1; 3000]));
        store.create(&layout::blob(&sha256(&[1; 3000])), vec![1; 2999]).await.unwrap();
        assert_eq!(publish(&store, package.path(), |_| {}).await.unwrap_err().kind(), Kind::Integrity);
    }

    #[tokio::test]
    async fn a_large_file_goes_in_parts_and_appears_whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path().to_str().unwrap(), Missing::Refuse).unwrap();
        let bytes: Vec<u8> = (0..10_000u32).map(|i| (i % 251) as u8).collect();
        let package = package("1.0.0", &bytes);
        let file = describe("weights/w.bin", Role::Weights, &bytes, 1024);
        let key = layout::blob(&file.sha256);
        let mut wrong = file.clone();
        wrong.sha256 = sha256(b"other");
        let upload = store.inner().put_multipart(&layout::blob(&wrong.sha256)).await.unwrap();
        let error = upload_parts(&store, package.path(), &wrong, upload, 3000).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Integrity);
        assert_eq!(store.inner().list(None).count().await, 0);

        let upload = store.inner().put_multipart(&key).await.unwrap();
        upload_parts(&store, package.path(), &file, upload, 3000).await.unwrap();
        assert_eq!(store.read(&key, 1 << 20).await.unwrap().unwrap(), bytes);
    }
}
