//! External data: tensors whose bytes lie in files beside the model.

use crate::error::{Error, Kind, Result};
use std::collections::BTreeMap;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Component, Path, PathBuf};

/// Loads the bytes of tensors that are kept outside the model file.
pub trait ExternalData {
    /// `length` bytes from `offset` of the file that the model calls `location`.
    fn load(&self, location: &str, offset: u64, length: u64) -> Result<Vec<u8>>;
}

/// Models without external data.
#[derive(Debug, Clone, Copy)]
pub struct NoExternalData;

impl ExternalData for NoExternalData {
    fn load(&self, location: &str, _: u64, _: u64) -> Result<Vec<u8>> {
        Err(missing(location))
    }
}

/// Files in the folder of the model.
#[derive(Debug, Clone)]
pub struct Folder(pub PathBuf);

/// Files held in memory, by the name that the model calls them.
#[derive(Debug, Clone, Default)]
pub struct Buffers(pub BTreeMap<String, Vec<u8>>);

fn missing(location: &str) -> Error {
    Error::new(Kind::NotFound, format!("external data \"{location}\" is missing"))
        .help("give the file that the model names, beside the model")
}

fn beyond(location: &str, offset: u64, length: u64, size: u64) -> Error {
    Error::new(
        Kind::InvalidModel,
        format!(
            "external data \"{location}\": {length} bytes from offset {offset} reach beyond its end at {size} bytes"
        ),
    )
}

/// Whether the name that a model gives to external data stays below the model's folder. Everything else is an error.
pub fn check_location(location: &str) -> Result<()> {
    relative(location).map(drop)
}

/// The path as a sequence of plain names below the model's folder.
fn relative(location: &str) -> Result<PathBuf> {
    let escapes = || {
        Error::new(Kind::InvalidModel, format!("external data \"{location}\" lies outside the folder of the model"))
            .help("external data must be named by a path below the folder of the model")
    };
    // Backslashes and drive letters are paths on some systems and names on others: they are refused on all.
    if location.is_empty() || location.contains(['\\', '\0', ':']) {
        return Err(escapes());
    }
    let mut path = PathBuf::new();
    for part in Path::new(location).components() {
        match part {
            Component::CurDir => {}
            Component::Normal(name) => path.push(name),
            _ => return Err(escapes()),
        }
    }
    if path.as_os_str().is_empty() { Err(escapes()) } else { Ok(path) }
}

impl ExternalData for Folder {
    fn load(&self, location: &str, offset: u64, length: u64) -> Result<Vec<u8>> {
        let path = self.0.join(relative(location)?);
        let io = |e: std::io::Error| match e.kind() {
            std::io::ErrorKind::NotFound => missing(location).at(path.display()),
            _ => Error::new(Kind::Io, format!("external data \"{location}\": {e}")).at(path.display()),
        };
        let folder = if self.0.as_os_str().is_empty() { Path::new(".") } else { &self.0 };
        // Links may point out of the folder although the name does not.
        let real = path.canonicalize().map_err(io)?;
        if !real.starts_with(folder.canonicalize().map_err(io)?) {
            return Err(Error::new(
                Kind::InvalidModel,
                format!("external data \"{location}\" is a link to outside the folder of the model"),
            )
            .at(path.display()));
        }
        let mut file = std::fs::File::open(&real).map_err(io)?;
        let meta = file.metadata().map_err(io)?;
        if !meta.is_file() {
            return Err(Error::new(Kind::InvalidModel, format!("external data \"{location}\" is not a file"))
                .at(path.display()));
        }
        if offset.checked_add(length).is_none_or(|end| end > meta.len()) {
            return Err(beyond(location, offset, length, meta.len()));
        }
        file.seek(SeekFrom::Start(offset)).map_err(io)?;
        let size = usize::try_from(length).map_err(|_| beyond(location, offset, length, meta.len()))?;
        let mut bytes = vec![0; size];
        file.read_exact(&mut bytes).map_err(io)?;
        Ok(bytes)
    }
}

impl ExternalData for Buffers {
    fn load(&self, location: &str, offset: u64, length: u64) -> Result<Vec<u8>> {
        let path = relative(location)?;
        let name = path.to_str().unwrap_or(location);
        let bytes = self.0.get(location).or_else(|| self.0.get(name)).ok_or_else(|| missing(location))?;
        let range = usize::try_from(offset).ok().zip(offset.checked_add(length).and_then(|e| usize::try_from(e).ok()));
        let part = range.and_then(|(a, b)| bytes.get(a..b));
        Ok(part.ok_or_else(|| beyond(location, offset, length, bytes.len() as u64))?.to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(data: &dyn ExternalData, location: &str, offset: u64, length: u64) -> Result<Vec<u8>, Kind> {
        data.load(location, offset, length).map_err(|e| e.kind())
    }

    const CASES: &[(&str, &str, u64, u64, Result<&[u8], Kind>)] = &[
        ("whole", "w.bin", 0, 4, Ok(&[1, 2, 3, 4])),
        ("part", "./w.bin", 1, 2, Ok(&[2, 3])),
        ("empty at the end", "w.bin", 4, 0, Ok(&[])),
        ("beyond the end", "w.bin", 2, 3, Err(Kind::InvalidModel)),
        ("offset overflows", "w.bin", u64::MAX, 2, Err(Kind::InvalidModel)),
        ("missing", "v.bin", 0, 4, Err(Kind::NotFound)),
        ("parent folder", "../w.bin", 0, 4, Err(Kind::InvalidModel)),
        ("parent in the middle", "a/../../w.bin", 0, 4, Err(Kind::InvalidModel)),
        ("absolute", "/etc/passwd", 0, 4, Err(Kind::InvalidModel)),
        ("drive", "c:w.bin", 0, 4, Err(Kind::InvalidModel)),
        ("backslash", "..\\w.bin", 0, 4, Err(Kind::InvalidModel)),
        ("no name", "", 0, 4, Err(Kind::InvalidModel)),
        ("the folder", ".", 0, 4, Err(Kind::InvalidModel)),
    ];

    #[test]
    fn reads_below_the_folder_and_nowhere_else() {
        let dir = tempfile::tempdir().unwrap();
        let inside = dir.path().join("model");
        std::fs::create_dir(&inside).unwrap();
        std::fs::write(inside.join("w.bin"), [1, 2, 3, 4]).unwrap();
        std::fs::write(dir.path().join("w.bin"), [9, 9, 9, 9]).unwrap();
        let buffers = Buffers(BTreeMap::from([("w.bin".to_owned(), vec![1, 2, 3, 4])]));
        for (name, location, offset, length, want) in CASES {
            let want = want.map(<[u8]>::to_vec);
            assert_eq!(kinds(&Folder(inside.clone()), location, *offset, *length), want, "folder: {name}");
            assert_eq!(kinds(&buffers, location, *offset, *length), want, "buffers: {name}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn refuses_links_to_outside() {
        let dir = tempfile::tempdir().unwrap();
        let inside = dir.path().join("model");
        std::fs::create_dir(&inside).unwrap();
        std::fs::write(dir.path().join("w.bin"), [9, 9, 9, 9]).unwrap();
        std::os::unix::fs::symlink("../w.bin", inside.join("w.bin")).unwrap();
        assert_eq!(kinds(&Folder(inside), "w.bin", 0, 4), Err(Kind::InvalidModel));
    }
}
