//! Files of a folder at `/`: the web page, or package folders. Every page is cross-origin isolated, so that it may use
//! threads.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};

use super::http::{self, ETag, REVALIDATE, Representation};
use super::problem::{Problem, method_not_allowed};
use super::{Server, Shared};
use crate::error::{Error, Kind, Result};

/// A folder of files, and the headers that all of them get.
#[derive(Debug)]
pub(super) struct Folder {
    /// Without links, so that what is found can be compared.
    root: PathBuf,
    csp: Option<HeaderValue>,
}

/// What a path names.
enum Found {
    File(File, ETag, u64),
    /// A folder whose URL lacks its last slash.
    Folder,
}

impl Folder {
    pub(super) fn open(folder: &Path, csp: Option<&str>) -> Result<Folder> {
        let place = || format!("--www {}", folder.display());
        let root = folder.canonicalize().map_err(|e| {
            let kind = if e.kind() == std::io::ErrorKind::NotFound { Kind::NotFound } else { Kind::Io };
            Error::new(kind, e.to_string()).at(place())
        })?;
        if !root.is_dir() {
            return Err(Error::new(Kind::InvalidInput, "not a folder").at(place()));
        }
        let csp = csp.map(HeaderValue::try_from).transpose();
        let csp = csp.map_err(|_| Error::new(Kind::InvalidInput, "not the value of a header").at("--csp"))?;
        Ok(Folder { root, csp })
    }

    /// Opens what the path of a URL names. Everything that is not there, or not ours to show, is `NotFound`.
    fn find(&self, url_path: &str) -> Result<Found> {
        let missing = || Error::new(Kind::NotFound, "there is no such file");
        let mut path = self.root.clone();
        path.extend(segments(url_path)?);
        if url_path.ends_with('/') {
            path.push("index.html");
        }
        let real = path.canonicalize().map_err(|_| missing())?;
        // A link may lead out of the folder.
        if !real.starts_with(&self.root) {
            return Err(missing());
        }
        let file = File::open(&real).map_err(|_| missing())?;
        let meta = file.metadata().map_err(|_| missing())?;
        if meta.is_dir() {
            return Ok(Found::Folder);
        }
        if !meta.is_file() {
            return Err(missing());
        }
        let modified = meta.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
        let etag = ETag::weak(format_args!("{:x}-{:x}", modified.as_nanos(), meta.len()));
        Ok(Found::File(file, etag, meta.len()))
    }
}

/// The decoded segments of a URL's path. Refused are segments that are empty, that begin with a dot (`.`, `..`, hidden
/// files), and that hold a separator or another character that a file system may take for something else.
fn segments(url_path: &str) -> Result<Vec<String>> {
    let refuse = || Error::new(Kind::InvalidInput, "a segment of the path is not the name of a file");
    let inner = url_path.strip_prefix('/').ok_or_else(refuse)?;
    let inner = inner.strip_suffix('/').unwrap_or(inner);
    if inner.is_empty() {
        return if url_path == "/" { Ok(Vec::new()) } else { Err(refuse()) };
    }
    let segment = |raw: &str| {
        let name = percent_decode(raw).ok_or_else(refuse)?;
        let forbidden = |c: char| c.is_control() || matches!(c, '/' | '\\' | ':' | '*' | '?' | '"' | '<' | '>' | '|');
        if name.is_empty() || name.starts_with('.') || name.contains(forbidden) {
            return Err(refuse());
        }
        Ok(name)
    };
    inner.split('/').map(segment).collect()
}

/// Decodes `%XX` once. What does not decode to UTF-8 is `None`.
fn percent_decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(if byte == b'%' {
            let mut digit = || char::from(rest.next()?).to_digit(16);
            u8::try_from(digit()? << 4 | digit()?).ok()?
        } else {
            byte
        });
    }
    String::from_utf8(bytes).ok()
}

/// The media type by the ending of a name. Browsers refuse to compile wasm of another type.
fn content_type(path: &str) -> &'static str {
    let name = if path.ends_with('/') { "index.html" } else { path };
    let ending = name.rsplit_once('.').map(|(_, ending)| ending.to_ascii_lowercase());
    match ending.as_deref() {
        Some("html" | "htm") => "text/html; charset=utf-8",
        Some("js" | "mjs") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("json" | "map") => "application/json",
        Some("webmanifest") => "application/manifest+json",
        Some("wasm") => "application/wasm",
        Some("txt" | "md" | "ts" | "mts" | "wgsl") => "text/plain; charset=utf-8",
        Some("svg") => "image/svg+xml",
        Some("png") => "image/png",
        Some("jpg" | "jpeg") => "image/jpeg",
        Some("webp") => "image/webp",
        Some("avif") => "image/avif",
        Some("gif") => "image/gif",
        Some("ico") => "image/x-icon",
        Some("woff2") => "font/woff2",
        Some("mp4") => "video/mp4",
        _ => "application/octet-stream",
    }
}

/// The fallback of the routes: a file, or that there is nothing.
pub(super) async fn serve(State(server): Shared, method: Method, uri: Uri, headers: HeaderMap) -> Response {
    let Some(folder) = &server.www else {
        let error = Error::new(Kind::NotFound, "there is nothing here").help("models are listed at /v2/models");
        return Problem::from(error).into_response();
    };
    let mut response = if method == Method::GET || method == Method::HEAD {
        file(&server, &method, uri.path(), &headers).await.unwrap_or_else(|e| Problem::from(e).into_response())
    } else {
        let allow = [(header::ALLOW, "GET, HEAD")];
        (allow, method_not_allowed().await).into_response()
    };
    let set = response.headers_mut();
    for (name, value) in [
        ("cross-origin-opener-policy", "same-origin"),
        ("cross-origin-embedder-policy", "require-corp"),
        ("referrer-policy", "no-referrer"),
    ] {
        set.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    if let Some(csp) = &folder.csp {
        set.insert(header::CONTENT_SECURITY_POLICY, csp.clone());
    }
    response
}

async fn file(server: &std::sync::Arc<Server>, method: &Method, path: &str, headers: &HeaderMap) -> Result<Response> {
    let (shared, owned) = (std::sync::Arc::clone(server), path.to_owned());
    let find = move || match &shared.www {
        Some(folder) => folder.find(&owned),
        None => Err(Error::new(Kind::NotFound, "there is nothing here")),
    };
    let found = tokio::task::spawn_blocking(find).await.map_err(|e| Error::new(Kind::Internal, e.to_string()))??;
    let Found::File(file, etag, size) = found else {
        // The path was checked: it begins with one slash, so it stays on this host.
        return Ok((StatusCode::PERMANENT_REDIRECT, [(header::LOCATION, format!("{path}/"))]).into_response());
    };
    let representation = Representation { etag, size, content_type: content_type(path), cache_control: REVALIDATE };
    let decision = http::decide(method, headers, &representation.etag, size);
    let body = match representation.wanted(method, &decision) {
        Some(range) => http::stream(http::file_pieces(file, range), server.timeout),
        None => Body::empty(),
    };
    Ok(representation.response(decision, body))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_are_decoded_once_and_checked() {
        for (path, expected) in [
            ("/", &[][..]),
            ("/a.js", &["a.js"][..]),
            ("/a/b.js", &["a", "b.js"][..]),
            ("/a/", &["a"][..]),
            ("/with%20space.txt", &["with space.txt"][..]),
            ("/%C3%A9", &["é"][..]),
            ("/%2525", &["%25"][..]),
        ] {
            assert_eq!(segments(path).unwrap(), expected, "{path}");
        }
        for path in [
            "",
            "a",
            "//",
            "//evil.example",
            "/a//b",
            "/.",
            "/..",
            "/../a",
            "/a/../b",
            "/a/..",
            "/%2e%2e/a",
            "/%2E./a",
            "/..%2fa",
            "/a%2f..%2fb",
            "/a%5c..",
            "/a\\b",
            "/c:",
            "/C%3A/x",
            "/.git/config",
            "/%2egit",
            "/a%00.html",
            "/a%0d%0aX: y",
            "/%",
            "/%2",
            "/%zz",
            "/%ff",
            "/a|b",
            "/%2f",
            "/a/%2e%2e%2f",
        ] {
            assert_eq!(segments(path).unwrap_err().kind(), Kind::InvalidInput, "{path:?}");
        }
    }
}
