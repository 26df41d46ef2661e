//! The keys of a store. They are also the URL paths of the server, so that a plain file server or a CDN over the same
//! objects would do.
//!
//! Every key is made of checked parts only (a digest, a model's name, a version), so no key can leave its place.
//! `meta/` is kept free for signed metadata.

use object_store::path::Path;

use crate::error::Result;
use crate::plan::digest::Digest;
use crate::plan::manifest::check_name;
use crate::plan::version::Version;

/// The folder of all models.
pub const MODELS: &str = "v2/models";

/// `blobs/sha256/{hex}`: the bytes with this digest.
pub fn blob(digest: &Digest) -> Path {
    Path::from_iter(["blobs", "sha256", &digest.to_string()])
}

/// `targets/{hex}.manifest.json`: the manifest with this digest.
pub fn manifest(digest: &Digest) -> Path {
    Path::from_iter(["targets", &format!("{digest}.manifest.json")])
}

/// `v2/models/{name}/versions`: the folder of a model's version documents.
pub fn versions(name: &str) -> Result<Path> {
    check_name(name)?;
    Ok(Path::from_iter(["v2", "models", name, "versions"]))
}

/// `v2/models/{name}/versions/{version}`: the version document.
pub fn version(name: &str, version: &Version) -> Result<Path> {
    Ok(versions(name)?.join(version.as_str()))
}

/// The name and version of a version document's key, or `None` for any other key.
pub fn parse_version(key: &Path) -> Option<(String, Version)> {
    let parts: Vec<_> = key.parts().collect();
    let [v2, models, name, versions, version] = parts.as_slice() else { return None };
    if (v2.as_ref(), models.as_ref(), versions.as_ref()) != ("v2", "models", "versions") {
        return None;
    }
    check_name(name.as_ref()).ok()?;
    Some((name.as_ref().to_owned(), version.as_ref().parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    #[test]
    fn keys_are_the_urls_of_the_server() {
        let digest: Digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad".parse().unwrap();
        assert_eq!(blob(&digest).as_ref(), format!("blobs/sha256/{digest}"));
        assert_eq!(manifest(&digest).as_ref(), format!("targets/{digest}.manifest.json"));
        let v: Version = "1.0.0-rc.1".parse().unwrap();
        let key = version("mini-lm_2.x", &v).unwrap();
        assert_eq!(key.as_ref(), "v2/models/mini-lm_2.x/versions/1.0.0-rc.1");
        assert_eq!(parse_version(&key), Some(("mini-lm_2.x".into(), v)));
        for name in ["", ".", "..", "a/b", "../a", "A", "a%2fb", "a\\b", "-a", "é", "a\0"] {
            assert_eq!(versions(name).unwrap_err().kind(), Kind::InvalidInput, "{name:?}");
        }
        for key in ["v2/models/a", "v2/models/a/versions/x", "v2/models/A/versions/1.0.0", "blobs/sha256/a/b/c"] {
            assert_eq!(parse_version(&Path::from(key)), None, "{key}");
        }
    }
}
