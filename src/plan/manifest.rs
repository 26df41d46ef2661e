//! The manifest of a compiled model: its name, version, signature, and every file with the SHA-256 of each chunk.
//!
//! Decoding is apart from checking. A native program reads JSON with [`Manifest::parse`]; the runtime in a browser lets
//! the engine parse the JSON, converts, and calls [`Manifest::validate`], so that no JSON parser is shipped.

use std::collections::BTreeSet;
use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::digest::Digest;
use super::version::Version;
use crate::error::{Error, Kind, Result};

/// The format version that this build writes and reads.
pub const FORMAT: u32 = 1;
/// Bytes of a chunk unless a manifest says otherwise.
pub const CHUNK_SIZE: u32 = 1 << 20;
/// The largest manifest in bytes; readers stop there.
pub const MAX_BYTES: usize = 32 << 20;
/// The most files in a manifest.
pub const MAX_FILES: usize = 4096;
/// The most chunks of all files together: 256 GiB in chunks of 1 MiB.
pub const MAX_CHUNKS: u64 = 1 << 18;
/// The smallest and largest chunk in bytes. A client holds one chunk in memory before it is proved.
pub const CHUNK_SIZES: std::ops::RangeInclusive<u32> = 1 << 10..=1 << 24;
/// The longest model name, and the longest path of a file, in bytes.
const MAX_NAME: usize = 128;
const MAX_PATH: usize = 200;
/// The most inputs or outputs, and the most dims of one.
const MAX_TENSORS: usize = 1024;
const MAX_RANK: usize = 16;

/// What a package consists of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// The format version, [`FORMAT`].
    pub format: u32,
    /// The model's name: see [`check_name`].
    pub name: String,
    /// The model's version: Semantic Versioning, see [`Version`].
    pub version: String,
    /// The inputs in order.
    #[serde(default)]
    pub inputs: Vec<TensorMeta>,
    /// The outputs in order.
    #[serde(default)]
    pub outputs: Vec<TensorMeta>,
    /// The files, each path once.
    pub files: Vec<File>,
}

/// An input or output, as the Open Inference Protocol describes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TensorMeta {
    /// Its name in the model.
    pub name: String,
    /// The element type: `BOOL`, `UINT8` … `UINT64`, `INT8` … `INT64`, `FP16`, `FP32`, `FP64`, `BF16` or `BYTES`.
    pub datatype: String,
    /// The dims; -1 stands for one that is bound at run time.
    pub shape: Vec<i64>,
}

/// One file of a package.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// Where it lies in the package folder: relative, with `/`.
    pub path: String,
    /// What it is for.
    pub role: Role,
    /// Its size in bytes.
    pub size: u64,
    /// The SHA-256 of the whole file; a store names the blob by it.
    pub sha256: Digest,
    /// Bytes of a chunk, a power of two; the last chunk may be shorter.
    pub chunk_size: u32,
    /// The SHA-256 of each chunk in order; together the chunks cover the file.
    pub chunks: Vec<Digest>,
}

impl File {
    /// The bytes of the file that chunk `index` covers, or `None` past the last.
    pub fn chunk_range(&self, index: usize) -> Option<Range<u64>> {
        let start = u64::try_from(index).ok()?.checked_mul(u64::from(self.chunk_size))?;
        (start < self.size).then(|| start..start.saturating_add(u64::from(self.chunk_size)).min(self.size))
    }
}

/// What a file of a package is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// The plan: one in every package.
    Plan,
    /// The code for the CPU with simd128.
    Wasm,
    /// The same with relaxed SIMD.
    WasmRelaxed,
    /// The same with relaxed SIMD and threads.
    WasmThreads,
    /// The code for the GPU.
    Wgsl,
    /// Inputs and the outputs that a device must compute before it is trusted.
    Golden,
    /// A pack of weights.
    Weights,
    /// TypeScript declarations.
    Types,
    /// A report for people.
    Report,
    /// The JavaScript module.
    Module,
}

impl Role {
    /// Whether a package has at most one file of this role.
    fn is_single(self) -> bool {
        use Role::*;
        matches!(self, Plan | Wasm | WasmRelaxed | WasmThreads | Wgsl | Golden)
    }
}

/// The element types of the Open Inference Protocol, and BF16.
const DATATYPES: [&str; 14] = [
    "BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64", "FP16", "FP32", "FP64", "BF16",
    "BYTES",
];

fn invalid(message: impl Into<String>) -> Error {
    Error::new(Kind::InvalidPackage, message)
}

/// Checks a model's name: lowercase letters, digits, `.`, `_` and `-`, beginning with a letter or digit, at most 128.
///
/// Names are keys in a store that may be a case-insensitive file system, and segments of URLs.
pub fn check_name(name: &str) -> Result<()> {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'_' | b'-');
    let first = name.bytes().next().is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    if first && name.len() <= MAX_NAME && name.bytes().all(allowed) {
        return Ok(());
    }
    Err(Error::new(Kind::InvalidInput, format!("{:?} is not a model name", shorten(name))).help(format!(
        "use lowercase letters, digits, '.', '_' and '-', beginning with a letter or digit, at most {MAX_NAME} characters"
    )))
}

/// Checks a path inside a package: segments of letters, digits, `.`, `_` and `-` that do not begin with a dot.
pub fn check_path(path: &str) -> Result<()> {
    let segment = |s: &str| {
        !s.is_empty()
            && !s.starts_with('.')
            && !s.ends_with('.')
            && s.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
    };
    if path.len() <= MAX_PATH && path.split('/').all(segment) {
        return Ok(());
    }
    Err(invalid(format!("{:?} is not a path inside a package", shorten(path))))
}

/// The beginning of a text from outside, for a message.
fn shorten(text: &str) -> String {
    text.chars().take(80).collect()
}

impl Manifest {
    /// Checks everything that can be checked without the files. The bytes themselves are checked against it chunk by
    /// chunk (`trust::digest::verify_chunk`).
    pub fn validate(&self) -> Result<()> {
        check_format(self.format)?;
        check_name(&self.name).map_err(|e| invalid(e.message()).at("name"))?;
        self.version.parse::<Version>().map_err(|e| invalid(e.message()).at("version"))?;
        check_tensors(&self.inputs).map_err(|e| e.at("inputs"))?;
        check_tensors(&self.outputs).map_err(|e| e.at("outputs"))?;
        if self.files.len() > MAX_FILES {
            return Err(invalid(format!("{} files, more than {MAX_FILES}", self.files.len())));
        }
        let (mut paths, mut roles, mut chunks) = (BTreeSet::new(), BTreeSet::new(), 0u64);
        for (index, file) in self.files.iter().enumerate() {
            let place = || format!("files[{index}]");
            check_file(file).map_err(|e| e.at(place()))?;
            // On a case-insensitive file system `A` and `a` are one file.
            if !paths.insert(file.path.to_ascii_lowercase()) {
                return Err(invalid(format!("{} is listed twice", file.path)).at(place()));
            }
            if !roles.insert(file.role) && file.role.is_single() {
                return Err(invalid(format!("a second file of role {:?}", file.role)).at(place()));
            }
            chunks = chunks.saturating_add(file.chunks.len() as u64);
        }
        if chunks > MAX_CHUNKS {
            return Err(invalid(format!("{chunks} chunks, more than {MAX_CHUNKS}")));
        }
        if !roles.contains(&Role::Plan) {
            return Err(invalid("no file has the role \"plan\""));
        }
        Ok(())
    }

    /// The one file of a role that stands once, or the first of the others.
    pub fn file(&self, role: Role) -> Option<&File> {
        self.files.iter().find(|file| file.role == role)
    }

    /// The sum of all files' sizes in bytes.
    pub fn total_size(&self) -> u64 {
        self.files.iter().fold(0, |sum, file| sum.saturating_add(file.size))
    }
}

/// Checks the format version of a manifest, before anything else of it is read.
pub fn check_format(format: u32) -> Result<()> {
    if format == FORMAT {
        return Ok(());
    }
    let what = if format > FORMAT { "a newer Nearside" } else { "this Nearside and build the package again" };
    Err(Error::new(Kind::FormatVersion, format!("manifest format {format}; this build reads {FORMAT}"))
        .help(format!("use {what}")))
}

fn check_tensors(tensors: &[TensorMeta]) -> Result<()> {
    if tensors.len() > MAX_TENSORS {
        return Err(invalid(format!("{} tensors, more than {MAX_TENSORS}", tensors.len())));
    }
    let mut names = BTreeSet::new();
    for tensor in tensors {
        let name = shorten(&tensor.name);
        if tensor.name.is_empty() || !names.insert(&tensor.name) {
            return Err(invalid(format!("the name {name:?} is empty or stands twice")));
        }
        if !DATATYPES.contains(&tensor.datatype.as_str()) {
            return Err(invalid(format!("unknown datatype {:?}", shorten(&tensor.datatype))).at(name));
        }
        if tensor.shape.len() > MAX_RANK || tensor.shape.iter().any(|&dim| dim < -1) {
            return Err(invalid(format!("not a shape of at most {MAX_RANK} dims of -1 or more")).at(name));
        }
    }
    Ok(())
}

fn check_file(file: &File) -> Result<()> {
    check_path(&file.path)?;
    if file.path.eq_ignore_ascii_case("manifest.json") {
        return Err(invalid("a manifest cannot list itself"));
    }
    if !CHUNK_SIZES.contains(&file.chunk_size) || !file.chunk_size.is_power_of_two() {
        let (low, high) = CHUNK_SIZES.into_inner();
        return Err(invalid(format!("chunk_size {} is not a power of two in {low}..={high}", file.chunk_size)));
    }
    let count = file.size.div_ceil(u64::from(file.chunk_size));
    if count != file.chunks.len() as u64 {
        return Err(invalid(format!("{} chunk digests for {count} chunks", file.chunks.len())));
    }
    match file.chunks.as_slice() {
        [only] if *only != file.sha256 => Err(invalid("its only chunk has another digest than the file")),
        _ => Ok(()),
    }
}

/// JSON in and out. Absent from the runtime for browsers, which uses the engine's own parser.
#[cfg(feature = "compiler")]
impl Manifest {
    /// Reads and validates a manifest. Unknown fields, trailing bytes and repeated fields are errors.
    pub fn parse(bytes: &[u8]) -> Result<Manifest> {
        if bytes.len() > MAX_BYTES {
            return Err(invalid(format!("{} bytes, more than {MAX_BYTES}", bytes.len())));
        }
        // The format version first: another version may have other fields.
        #[derive(Deserialize)]
        struct Head {
            format: u32,
        }
        let json = |e: serde_json::Error| invalid(format!("not a manifest: {e}"));
        let head: Head = serde_json::from_slice(bytes).map_err(json)?;
        check_format(head.format)?;
        let manifest: Manifest = serde_json::from_slice(bytes).map_err(json)?;
        manifest.validate()?;
        Ok(manifest)
    }

    /// The manifest as JSON. The same manifest gives the same bytes.
    pub fn to_json(&self) -> Result<Vec<u8>> {
        self.validate()?;
        let mut json = serde_json::to_vec(self).map_err(|e| Error::new(Kind::Internal, e.to_string()))?;
        json.push(b'\n');
        Ok(json)
    }
}

#[cfg(all(test, feature = "compiler"))]
mod tests {
    use super::*;
    use crate::trust::digest::describe;
    use serde_json::{Value, json};

    fn sample() -> Manifest {
        Manifest {
            format: FORMAT,
            name: "efficientnet-lite0".into(),
            version: "1.0.0".into(),
            inputs: vec![TensorMeta { name: "input".into(), datatype: "FP32".into(), shape: vec![-1, 3, 224, 224] }],
            outputs: vec![],
            files: vec![
                describe("model.plan", Role::Plan, b"plan", 1024),
                describe("weights/a.bin", Role::Weights, &[7; 5000], 1024),
                describe("weights/b.bin", Role::Weights, &[], 1024),
            ],
        }
    }

    #[test]
    fn comes_back_as_it_was_written() {
        let manifest = sample();
        let json = manifest.to_json().unwrap();
        assert_eq!(Manifest::parse(&json).unwrap(), manifest);
        assert_eq!(Manifest::parse(&json).unwrap().to_json().unwrap(), json);
        assert_eq!(manifest.files[1].chunk_range(4), Some(4096..5000));
        assert_eq!(manifest.files[1].chunk_range(5), None);
        assert_eq!(manifest.files[2].chunk_range(0), None);
        assert_eq!(manifest.total_size(), 5004);
    }

    #[test]
    fn every_wrong_manifest_is_refused_with_its_reason() {
        type Edit = fn(&mut Value);
        let cases: &[(&str, Kind, &str, Edit)] = &[
            ("newer format", Kind::FormatVersion, "format 2", |m| m["format"] = json!(2)),
            ("newer format with unknown fields", Kind::FormatVersion, "format 9", |m| {
                *m = json!({"format": 9, "what": 1})
            }),
            ("no format", Kind::InvalidPackage, "format", |m| *m = json!({"name": "a"})),
            ("unknown field", Kind::InvalidPackage, "unknown field `extra`", |m| m["extra"] = json!(1)),
            ("unknown role", Kind::InvalidPackage, "unknown variant", |m| m["files"][0]["role"] = json!("exe")),
            ("no plan", Kind::InvalidPackage, "plan", |m| m["files"][0]["role"] = json!("report")),
            ("two plans", Kind::InvalidPackage, "second", |m| m["files"][1]["role"] = json!("plan")),
            ("name with a slash", Kind::InvalidPackage, "name", |m| m["name"] = json!("../up")),
            ("uppercase name", Kind::InvalidPackage, "name", |m| m["name"] = json!("Model")),
            ("not a version", Kind::InvalidPackage, "version", |m| m["version"] = json!("1.0")),
            ("absolute path", Kind::InvalidPackage, "path", |m| m["files"][1]["path"] = json!("/etc/passwd")),
            ("parent path", Kind::InvalidPackage, "path", |m| m["files"][1]["path"] = json!("a/../../b")),
            ("backslash", Kind::InvalidPackage, "path", |m| m["files"][1]["path"] = json!("a\\b")),
            ("drive", Kind::InvalidPackage, "path", |m| m["files"][1]["path"] = json!("c:/b")),
            ("empty segment", Kind::InvalidPackage, "path", |m| m["files"][1]["path"] = json!("a//b")),
            ("hidden file", Kind::InvalidPackage, "path", |m| m["files"][1]["path"] = json!(".git/config")),
            ("NUL", Kind::InvalidPackage, "path", |m| m["files"][1]["path"] = json!("a\0")),
            ("lists itself", Kind::InvalidPackage, "itself", |m| m["files"][1]["path"] = json!("Manifest.json")),
            ("same path twice", Kind::InvalidPackage, "twice", |m| m["files"][1]["path"] = json!("MODEL.plan")),
            ("uppercase digest", Kind::InvalidPackage, "64 lowercase", |m| {
                m["files"][0]["sha256"] = json!("A".repeat(64))
            }),
            ("short chunk digest", Kind::InvalidPackage, "64 lowercase", |m| m["files"][0]["chunks"][0] = json!("ab")),
            ("a chunk too few", Kind::InvalidPackage, "chunk digests", |m| m["files"][1]["size"] = json!(5121)),
            ("a chunk too many", Kind::InvalidPackage, "chunk digests", |m| m["files"][1]["size"] = json!(4096)),
            ("huge size", Kind::InvalidPackage, "chunk digests", |m| m["files"][1]["size"] = json!(u64::MAX)),
            ("negative size", Kind::InvalidPackage, "invalid value", |m| m["files"][1]["size"] = json!(-1)),
            ("chunk_size 0", Kind::InvalidPackage, "chunk_size", |m| m["files"][1]["chunk_size"] = json!(0)),
            ("chunk_size odd", Kind::InvalidPackage, "chunk_size", |m| m["files"][1]["chunk_size"] = json!(3000)),
            ("chunk_size huge", Kind::InvalidPackage, "chunk_size", |m| m["files"][1]["chunk_size"] = json!(1 << 30)),
            ("contradicting digests", Kind::InvalidPackage, "only chunk", |m| {
                m["files"][0]["sha256"] = json!("0".repeat(64))
            }),
            ("unknown datatype", Kind::InvalidPackage, "datatype", |m| m["inputs"][0]["datatype"] = json!("FP8")),
            ("negative dim", Kind::InvalidPackage, "shape", |m| m["inputs"][0]["shape"][0] = json!(-2)),
            ("input twice", Kind::InvalidPackage, "twice", |m| {
                let input = m["inputs"][0].clone();
                m["inputs"] = json!([input, input]);
            }),
            ("too many files", Kind::InvalidPackage, "files", |m| {
                let file = m["files"][0].clone();
                m["files"] = Value::Array(vec![file; MAX_FILES + 1]);
            }),
            ("an array", Kind::InvalidPackage, "not a manifest", |m| *m = json!([])),
        ];
        for (name, kind, part, edit) in cases {
            let mut value = serde_json::to_value(sample()).unwrap();
            edit(&mut value);
            let error = Manifest::parse(&serde_json::to_vec(&value).unwrap()).unwrap_err();
            assert_eq!(error.kind(), *kind, "{name}: {error}");
            assert!(error.to_string().contains(part), "{name}: {error}");
        }
    }

    #[test]
    fn no_prefix_and_no_garbage_is_taken() {
        let json = sample().to_json().unwrap();
        for len in 0..json.len() - 1 {
            assert_eq!(Manifest::parse(&json[..len]).unwrap_err().kind(), Kind::InvalidPackage, "{len}");
        }
        let text = String::from_utf8(json).unwrap();
        for (name, bytes) in [
            ("trailing bytes", format!("{text}x")),
            ("repeated field", text.replacen("\"name\":", "\"name\":\"a\",\"name\":", 1)),
            ("deep nesting", "[".repeat(100_000)),
            ("HTML", "<!doctype html>".into()),
        ] {
            assert_eq!(Manifest::parse(bytes.as_bytes()).unwrap_err().kind(), Kind::InvalidPackage, "{name}");
        }
        assert_eq!(Manifest::parse(&vec![b' '; MAX_BYTES + 1]).unwrap_err().kind(), Kind::InvalidPackage);
        assert_eq!(Manifest::parse(&[0xff; 64]).unwrap_err().kind(), Kind::InvalidPackage);
    }

    proptest::proptest! {
        /// Any byte changed in a manifest gives an error or another valid manifest, never a crash.
        #[test]
        fn changed_bytes_do_not_crash(at in 0usize..900, to: u8) {
            let mut json = sample().to_json().unwrap();
            let at = at % json.len();
            json[at] = to;
            if let Ok(manifest) = Manifest::parse(&json) {
                manifest.validate().unwrap();
            }
        }
    }
}
