//! The object store that holds published models, behind one type for every kind of store.
//!
//! A store holds immutable objects only: each is made once with `PutMode::Create` and never changed, so any number of
//! servers and caches may stand in front of one. The keys are the URL paths of the server (`layout`). A model's version
//! exists from the moment its version document does, which is written last (`publish`).

pub mod layout;
pub mod models;
pub mod publish;

use std::fmt;
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use object_store::path::Path;
use object_store::{GetOptions, GetResult, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload};
use url::Url;

use crate::error::{Error, Kind, Result};

/// A store of published models. Clones share it.
#[derive(Clone)]
pub struct Store {
    inner: Arc<dyn ObjectStore>,
    name: Arc<str>,
}

/// What to do where the folder of a `file://` store does not exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    /// Make it: a publisher begins a store so.
    Create,
    /// Refuse: a server that serves a mistyped folder would look healthy and empty.
    Refuse,
}

/// Whether an object was written or stood there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Put {
    /// It was written.
    Created,
    /// An object with this key existed; it was left as it is.
    Existed,
}

impl Store {
    /// Opens the store that `url` names: `file:///folder`, a plain path, or `memory://` (empty, for this process only).
    pub fn open(url: &str, missing: Missing) -> Result<Store> {
        match location(url)? {
            Location::Memory => Ok(Store::new(Arc::new(object_store::memory::InMemory::new()), "memory://")),
            Location::Folder(folder) => open_folder(&folder, missing),
        }
        .map_err(|e| e.at(format!("store {url}")))
    }

    /// A store over any implementation; `name` stands in messages.
    pub fn new(inner: Arc<dyn ObjectStore>, name: impl Into<Arc<str>>) -> Store {
        Store { inner, name: name.into() }
    }

    /// Writes an object unless one with this key exists. Readers see all of it or nothing.
    pub async fn create(&self, key: &Path, bytes: impl Into<PutPayload>) -> Result<Put> {
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        match self.inner.put_opts(key, bytes.into(), options).await {
            Ok(_) => Ok(Put::Created),
            Err(object_store::Error::AlreadyExists { .. }) => Ok(Put::Existed),
            Err(error) => Err(self.error(key, error)),
        }
    }

    /// The size of an object in bytes, or `None` where there is none.
    pub async fn size(&self, key: &Path) -> Result<Option<u64>> {
        match self.inner.head(key).await {
            Ok(meta) => Ok(Some(meta.size)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(self.error(key, error)),
        }
    }

    /// Reads a small object whole, or `None` where there is none. One larger than `limit` bytes is an error.
    pub async fn read(&self, key: &Path, limit: usize) -> Result<Option<Bytes>> {
        let result = match self.get(key, GetOptions::default()).await {
            Ok(result) => result,
            Err(error) if error.kind() == Kind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        if result.meta.size > limit as u64 {
            let message = format!("{} bytes, more than {limit}", result.meta.size);
            return Err(Error::new(Kind::InvalidPackage, message).at(key));
        }
        result.bytes().await.map(Some).map_err(|error| self.error(key, error))
    }

    /// Opens an object for reading.
    pub async fn get(&self, key: &Path, options: GetOptions) -> Result<GetResult> {
        self.inner.get_opts(key, options).await.map_err(|error| self.error(key, error))
    }

    /// The store's own interface.
    pub fn inner(&self) -> &Arc<dyn ObjectStore> {
        &self.inner
    }

    /// The error of the store as one of ours.
    fn error(&self, key: &Path, error: object_store::Error) -> Error {
        use object_store::Error as E;
        let (kind, message) = match &error {
            E::NotFound { .. } => (Kind::NotFound, "no such object".to_owned()),
            E::AlreadyExists { .. } | E::Precondition { .. } => (Kind::Conflict, error.to_string()),
            _ => (Kind::Io, error.to_string()),
        };
        let error = Error::new(kind, message).at(format!("{}: {key}", self.name));
        match kind {
            Kind::Io => {
                error.help("check that the store is reachable, that you may read and write it, and its free space")
            }
            _ => error,
        }
    }
}

impl fmt::Display for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Store").field(&self.name).finish()
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Location {
    Memory,
    Folder(PathBuf),
}

/// Which store a URL means. What has no `://` is a path.
fn location(url: &str) -> Result<Location> {
    let wrong = |message: String| {
        Err(Error::new(Kind::InvalidInput, message)
            .help("give a folder, file:///folder, or memory://")
            .at(format!("store {url:?}")))
    };
    if url.is_empty() || url.contains('\0') {
        return wrong("not a store".into());
    }
    if !url.contains("://") {
        return Ok(Location::Folder(url.into()));
    }
    let parsed = match Url::parse(url) {
        Ok(parsed) => parsed,
        Err(error) => return wrong(format!("not a URL: {error}")),
    };
    match parsed.scheme() {
        "memory" if matches!(parsed.path(), "" | "/") && !parsed.has_host() => Ok(Location::Memory),
        "memory" => wrong("memory:// takes no path".into()),
        "file" => match parsed.to_file_path() {
            Ok(folder) => Ok(Location::Folder(folder)),
            Err(()) => wrong("a file URL has three slashes and no host".into()),
        },
        scheme @ ("s3" | "gs" | "az") => wrong(format!("{scheme}:// stores are not built into this binary")),
        scheme => wrong(format!("unknown scheme {scheme}://")),
    }
}

/// Writes are flushed to the disk before they count: what a version document names must outlive a power failure that the
/// document outlives.
fn open_folder(folder: &FilePath, missing: Missing) -> Result<Store> {
    let io = |e: std::io::Error| Error::new(Kind::Io, e.to_string());
    if missing == Missing::Create {
        std::fs::create_dir_all(folder).map_err(io)?;
    }
    match std::fs::metadata(folder) {
        Ok(meta) if meta.is_dir() => {}
        Ok(_) => return Err(Error::new(Kind::InvalidInput, "not a folder").help("give a folder")),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            return Err(Error::new(Kind::NotFound, "no such folder")
                .help("check the path; `nearside publish` makes the folder of a new store"));
        }
        Err(e) => return Err(io(e)),
    }
    let files = object_store::local::LocalFileSystem::new_with_prefix(folder)
        .map_err(|e| Error::new(Kind::Io, e.to_string()))?
        .with_fsync(true);
    Ok(Store::new(Arc::new(files), format!("file://{}", folder.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scheme_picks_the_store() {
        for (url, expected) in [
            ("memory://", Location::Memory),
            ("memory:///", Location::Memory),
            ("file:///var/models", Location::Folder("/var/models".into())),
            ("file:///with%20space", Location::Folder("/with space".into())),
            ("relative/folder", Location::Folder("relative/folder".into())),
            ("/absolute", Location::Folder("/absolute".into())),
        ] {
            assert_eq!(location(url).unwrap(), expected, "{url}");
        }
        for (url, part) in [
            ("", "not a store"),
            ("s3://bucket/prefix", "s3:// stores are not built in"),
            ("gs://bucket", "gs:// stores are not built in"),
            ("az://container", "az:// stores are not built in"),
            ("ftp://host", "unknown scheme ftp://"),
            ("file://host/path", "three slashes"),
            ("memory://name", "no path"),
            ("://", "not a URL"),
        ] {
            let error = location(url).unwrap_err();
            assert_eq!(error.kind(), Kind::InvalidInput, "{url}");
            assert!(error.message().contains(part), "{url}: {error}");
        }
    }

    #[test]
    fn a_missing_folder_is_made_or_refused() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("a/b");
        let url = folder.to_str().unwrap();
        assert_eq!(Store::open(url, Missing::Refuse).unwrap_err().kind(), Kind::NotFound);
        Store::open(url, Missing::Create).unwrap();
        Store::open(url, Missing::Refuse).unwrap();
        let file = dir.path().join("file");
        std::fs::write(&file, b"").unwrap();
        assert_eq!(Store::open(file.to_str().unwrap(), Missing::Refuse).unwrap_err().kind(), Kind::InvalidInput);
    }
}
