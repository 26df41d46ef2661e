//! SHA-256: of bytes, of a file's chunks, and the check of a chunk against what a manifest promises.

use sha2::Digest as _;

use crate::error::{Error, Kind, Result};
use crate::plan::Pack;
use crate::plan::digest::Digest;
use crate::plan::manifest::{File, Role};

/// The SHA-256 of `bytes`.
pub fn sha256(bytes: &[u8]) -> Digest {
    Digest::from_bytes(sha2::Sha256::digest(bytes).into())
}

/// The SHA-256 of each run of `chunk_size` bytes; the last run may be shorter, no bytes have no chunks.
/// A `chunk_size` of 0 is taken as 1.
pub fn chunks(bytes: &[u8], chunk_size: usize) -> Vec<Digest> {
    bytes.chunks(chunk_size.max(1)).map(sha256).collect()
}

/// SHA-256 of bytes that come in pieces.
#[derive(Debug, Clone, Default)]
pub struct Hasher(sha2::Sha256);

impl Hasher {
    /// A hasher that has read nothing.
    pub fn new() -> Self {
        Hasher::default()
    }

    /// Reads the next piece.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The digest of all pieces in order.
    pub fn finish(self) -> Digest {
        Digest::from_bytes(self.0.finalize().into())
    }
}

/// The manifest's row of a file: its size and digests, in chunks of `chunk_size` bytes.
pub fn describe(path: impl Into<String>, role: Role, bytes: &[u8], chunk_size: u32) -> File {
    File {
        path: path.into(),
        role,
        size: bytes.len() as u64,
        sha256: sha256(bytes),
        chunk_size,
        chunks: chunks(bytes, chunk_size as usize),
    }
}

/// The plan's row of a pack of weights: its size and digest.
pub fn pack(bytes: &[u8]) -> Pack {
    Pack { sha256: *sha256(bytes).as_bytes(), size: bytes.len() as u64 }
}

/// Checks that `bytes` have the digest `expected`.
pub fn verify(bytes: &[u8], expected: &Digest) -> Result<()> {
    let actual = sha256(bytes);
    if actual == *expected {
        return Ok(());
    }
    Err(Error::new(Kind::Integrity, format!("SHA-256 is {actual}, not {expected}")))
}

/// Checks chunk `index` of `file`: its length and its digest.
pub fn verify_chunk(file: &File, index: usize, bytes: &[u8]) -> Result<()> {
    let place = || format!("{}: chunk {index}", file.path);
    let Some((expected, range)) = file.chunks.get(index).zip(file.chunk_range(index)) else {
        return Err(Error::new(Kind::Integrity, format!("the file has {} chunks", file.chunks.len())).at(place()));
    };
    let size = range.end - range.start;
    if bytes.len() as u64 != size {
        return Err(Error::new(Kind::Integrity, format!("{} bytes, not {size}", bytes.len())).at(place()));
    }
    verify(bytes, expected).map_err(|e| e.at(place()))
}

/// Checks a whole file in memory: its length, every chunk, and the digest of the whole.
pub fn verify_file(file: &File, bytes: &[u8]) -> Result<()> {
    if bytes.len() as u64 != file.size {
        let message = format!("{} bytes, not {}", bytes.len(), file.size);
        return Err(Error::new(Kind::Integrity, message).at(&file.path));
    }
    for (index, chunk) in bytes.chunks((file.chunk_size as usize).max(1)).enumerate() {
        verify_chunk(file, index, chunk)?;
    }
    verify(bytes, &file.sha256).map_err(|e| e.at(&file.path))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// FIPS 180-2, appendix B.
    #[test]
    fn agrees_with_the_vectors_of_the_standard() {
        for (text, hex) in [
            ("", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
            ("abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
            (
                "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
                "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1",
            ),
        ] {
            assert_eq!(sha256(text.as_bytes()).to_string(), hex);
            let mut hasher = Hasher::new();
            text.as_bytes().chunks(7).for_each(|piece| hasher.update(piece));
            assert_eq!(hasher.finish().to_string(), hex);
        }
    }

    #[test]
    fn one_flipped_bit_anywhere_is_refused() {
        let bytes: Vec<u8> = (0..2500u32).map(|i| (i % 251) as u8).collect();
        let file = describe("a.bin", Role::Weights, &bytes, 1024);
        assert_eq!(file.chunks, chunks(&bytes, 1024));
        verify_file(&file, &bytes).unwrap();
        for at in [0, 1023, 1024, 2047, 2048, 2499] {
            let mut bad = bytes.clone();
            bad[at] ^= 1;
            let error = verify_file(&file, &bad).unwrap_err();
            assert_eq!(error.kind(), Kind::Integrity);
            assert!(error.place().unwrap().contains(&format!("chunk {}", at / 1024)), "{error}");
        }
        for (name, index, chunk) in [
            ("short", 0, &bytes[..1023]),
            ("long", 2, &bytes[2047..]),
            ("past the end", 3, &bytes[..0]),
            ("of another place", 1, &bytes[..1024]),
        ] {
            assert_eq!(verify_chunk(&file, index, chunk).unwrap_err().kind(), Kind::Integrity, "{name}");
        }
        assert_eq!(verify_file(&file, &bytes[..2499]).unwrap_err().kind(), Kind::Integrity);
    }
}
