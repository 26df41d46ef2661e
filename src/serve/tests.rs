//! The routes without a socket.

use std::fs;

use axum::body::Body;
use axum::http::{HeaderMap, Request, StatusCode};
use bytes::Bytes;
use http_body_util::BodyExt;
use tower::ServiceExt;

use super::*;
use crate::plan::digest::Digest;
use crate::plan::manifest::{FORMAT, Manifest, Role, TensorMeta};
use crate::store::Missing;
use crate::store::publish::publish;
use crate::trust::digest::{describe, sha256};

struct Reply {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl Reply {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// Checks that this is an error of the given status and code, and tells nothing of the server's files.
    fn assert_problem(&self, status: u16, code: &str, what: &str) {
        let text = String::from_utf8_lossy(&self.body);
        assert_eq!(self.status.as_u16(), status, "{what}: {text}");
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{what}");
        assert_eq!(self.header("access-control-allow-origin"), Some("*"), "{what}");
        assert_eq!((&self.json()["code"], &self.json()["status"]), (&code.into(), &status.into()), "{what}");
        assert!(!text.contains("/tmp") && !text.contains("root:"), "{what}: {text}");
    }
}

async fn send(app: &Router, method: &str, path: &str, headers: &[(&str, &str)]) -> Reply {
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = app.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
    let (parts, body) = response.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    Reply { status: parts.status, headers: parts.headers, body }
}

async fn get(app: &Router, path: &str, headers: &[(&str, &str)]) -> Reply {
    send(app, "GET", path, headers).await
}

/// 1 MiB and some, so that a body has several pieces.
fn weights() -> Vec<u8> {
    (0..(1 << 20) + 100u32).map(|i| (i % 251) as u8).collect()
}

/// A store with model@1.0.0, model@1.0.10 and model@1.0.9, each with the same weights; and the manifest's digest of the first.
async fn store(url: &str) -> (Store, Digest) {
    let store = Store::open(url, Missing::Create).unwrap();
    let mut first = None;
    for version in ["1.0.0", "1.0.10", "1.0.9"] {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("model.plan"), b"plan").unwrap();
        fs::write(dir.path().join("w.bin"), weights()).unwrap();
        let input = TensorMeta { name: "x".into(), datatype: "FP32".into(), shape: vec![-1, 4] };
        let manifest = Manifest {
            format: FORMAT,
            name: "model".into(),
            version: version.into(),
            inputs: vec![input],
            outputs: vec![],
            files: vec![
                describe("model.plan", Role::Plan, b"plan", 1 << 20),
                describe("w.bin", Role::Weights, &weights(), 1 << 20),
            ],
        };
        fs::write(dir.path().join("manifest.json"), manifest.to_json().unwrap()).unwrap();
        let published = publish(&store, dir.path(), |_| {}).await.unwrap();
        first.get_or_insert(published.manifest);
    }
    (store, first.unwrap())
}

fn router(store: Store, www: Option<&std::path::Path>) -> Router {
    app(Server::new(store, Config { www: www.map(Into::into), ..Config::default() }).unwrap())
}

/// Runs a check over a store of each kind.
async fn each_store<F: Future<Output = ()>>(check: impl Fn(Router, Digest) -> F) {
    let (memory, digest) = store("memory://").await;
    check(router(memory, None), digest).await;
    let dir = tempfile::tempdir().unwrap();
    let (files, digest) = store(dir.path().to_str().unwrap()).await;
    check(router(files, None), digest).await;
}

#[tokio::test]
async fn blobs_with_ranges_tags_and_cors() {
    each_store(|app, _| async move {
        let (bytes, digest) = (weights(), sha256(&weights()));
        let (url, etag, size) = (format!("/blobs/sha256/{digest}"), format!("\"{digest}\""), bytes.len());
        let whole = get(&app, &url, &[("accept-encoding", "gzip, br"), ("origin", "http://a.example")]).await;
        assert_eq!((whole.status, &whole.body[..]), (StatusCode::OK, &bytes[..]));
        for (name, value) in [
            ("etag", Some(etag.as_str())),
            ("content-length", Some(size.to_string().as_str())),
            ("content-type", Some("application/octet-stream")),
            ("accept-ranges", Some("bytes")),
            ("cache-control", Some("public, max-age=31536000, immutable, no-transform")),
            ("access-control-allow-origin", Some("*")),
            ("access-control-expose-headers", Some("accept-ranges,content-length,content-range,etag,retry-after")),
            ("cross-origin-resource-policy", Some("cross-origin")),
            ("x-content-type-options", Some("nosniff")),
            ("content-encoding", None),
            ("vary", None),
        ] {
            assert_eq!(whole.header(name), value, "{name}");
        }
        for (range, start, end) in [
            ("bytes=0-0", 0, 1),
            ("bytes=1048570-1048600", 1_048_570, 1_048_601),
            ("bytes=100-", 100, size),
            ("bytes=-17", size - 17, size),
            ("bytes=-99999999", 0, size),
            ("bytes=5-99999999999", 5, size),
        ] {
            let part = get(&app, &url, &[("range", range)]).await;
            assert_eq!(part.status, StatusCode::PARTIAL_CONTENT, "{range}");
            assert_eq!(part.header("content-range"), Some(format!("bytes {start}-{}/{size}", end - 1).as_str()));
            assert_eq!(part.header("content-length"), Some((end - start).to_string().as_str()));
            assert_eq!(part.header("etag"), Some(etag.as_str()));
            assert!(part.body == bytes[start..end], "{range}");
        }
        let outside = get(&app, &url, &[("range", "bytes=99999999-")]).await;
        outside.assert_problem(416, "invalid-input", "outside");
        assert_eq!(outside.header("content-range"), Some(format!("bytes */{size}").as_str()));
        let several = get(&app, &url, &[("range", "bytes=0-1,4-5")]).await;
        assert_eq!((several.status, several.body.len()), (StatusCode::OK, size));
        let stale = get(&app, &url, &[("range", "bytes=0-1"), ("if-range", "\"other\"")]).await;
        assert_eq!((stale.status, stale.body.len()), (StatusCode::OK, size));
        let same = get(&app, &url, &[("range", "bytes=0-1"), ("if-range", &etag)]).await;
        assert_eq!((same.status, same.body.len()), (StatusCode::PARTIAL_CONTENT, 2));

        let unchanged = get(&app, &url, &[("if-none-match", &etag)]).await;
        assert_eq!((unchanged.status, unchanged.body.len()), (StatusCode::NOT_MODIFIED, 0));
        assert_eq!(unchanged.header("etag"), Some(etag.as_str()));
        get(&app, &url, &[("if-match", "\"other\"")]).await.assert_problem(412, "invalid-input", "if-match");

        let head = send(&app, "HEAD", &url, &[("range", "bytes=0-1")]).await;
        assert_eq!((head.status, head.body.len()), (StatusCode::OK, 0));
        assert_eq!(head.header("content-length"), Some(size.to_string().as_str()));
    })
    .await;
}

#[tokio::test]
async fn manifests_models_and_versions() {
    each_store(|app, digest| async move {
        let manifest = get(&app, &format!("/targets/{digest}.manifest.json"), &[]).await;
        assert_eq!(sha256(&manifest.body), digest);
        assert_eq!(manifest.header("content-type"), Some("application/json"));
        assert_eq!(Manifest::parse(&manifest.body).unwrap().version, "1.0.0");

        let list = get(&app, "/v2/models", &[]).await;
        let expected = r#"{"models":[{"name":"model","versions":["1.0.0","1.0.9","1.0.10"]}]}"#;
        assert_eq!(list.body, expected);
        assert_eq!(list.header("cache-control"), Some("no-cache"));
        let etag = list.header("etag").unwrap();
        assert_eq!(get(&app, "/v2/models", &[("if-none-match", etag)]).await.status, StatusCode::NOT_MODIFIED);

        let model = get(&app, "/v2/models/model", &[]).await.json();
        assert_eq!(model["versions"], serde_json::json!(["1.0.0", "1.0.9", "1.0.10"]));
        assert_eq!(model["inputs"], serde_json::json!([{"name": "x", "datatype": "FP32", "shape": [-1, 4]}]));
        assert_eq!(model["platform"], "nearside");

        let version = get(&app, "/v2/models/model/versions/1.0.0", &[]).await;
        assert_eq!(version.json()["manifest"], digest.to_string());
        assert_eq!(version.json()["versions"], serde_json::json!(["1.0.0"]));
        assert!(version.header("cache-control").unwrap().contains("immutable"));
    })
    .await;
}

#[tokio::test]
async fn what_is_not_there_and_what_is_not_allowed() {
    each_store(|app, _| async move {
        let none = "0".repeat(64);
        for (path, status, code) in [
            (format!("/blobs/sha256/{none}"), 404, "not-found"),
            (format!("/blobs/sha256/{}", "A".repeat(64)), 400, "invalid-input"),
            ("/blobs/sha256/abc".into(), 400, "invalid-input"),
            (format!("/targets/{none}.manifest.json"), 404, "not-found"),
            ("/targets/x.manifest.json".into(), 400, "invalid-input"),
            (format!("/targets/{none}"), 404, "not-found"),
            ("/v2/models/other".into(), 404, "not-found"),
            ("/v2/models/model/versions/2.0.0".into(), 404, "not-found"),
            ("/v2/models/model/versions/latest".into(), 400, "invalid-input"),
            ("/v2/models/Model".into(), 400, "invalid-input"),
            ("/".into(), 404, "not-found"),
            ("/index.html".into(), 404, "not-found"),
        ] {
            get(&app, &path, &[]).await.assert_problem(status, code, &path);
        }
        for method in ["POST", "PUT", "DELETE", "PATCH"] {
            let reply = send(&app, method, "/v2/models", &[]).await;
            reply.assert_problem(405, "invalid-input", method);
            assert_eq!(reply.header("allow"), Some("GET,HEAD"));
        }
        let preflight = [("origin", "http://a.example"), ("access-control-request-method", "GET")];
        let reply = send(&app, "OPTIONS", "/v2/models", &preflight).await;
        assert_eq!(reply.status, StatusCode::OK);
        assert_eq!(reply.header("access-control-allow-methods"), Some("GET,HEAD"));
    })
    .await;
}

/// Paths that lead out of their place, for every segment that comes from outside.
const ESCAPES: [&str; 14] = [
    "..",
    ".",
    "%2e%2e",
    "..%2f..%2f..%2fetc%2fpasswd",
    "..%5c..%5cetc",
    "%2fetc%2fpasswd",
    "..\\..\\etc",
    "%2e%2e%2f%2e%2e%2f",
    "a%00b",
    "....%2f%2f",
    "%c0%ae%c0%ae",
    "%252e%252e%252f",
    "..%c0%afetc",
    "~root",
];

#[tokio::test]
async fn no_segment_leads_out_of_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let (www, stored) = (dir.path().join("www"), dir.path().join("store"));
    fs::create_dir(&www).unwrap();
    fs::write(www.join("index.html"), "page").unwrap();
    fs::write(dir.path().join("secret.txt"), "root: secret").unwrap();
    let (store, _) = store(stored.to_str().unwrap()).await;
    for www in [None, Some(www.as_path())] {
        let app = router(store.clone(), www);
        let mut paths = Vec::new();
        for escape in ESCAPES {
            for before in [
                "/blobs/",
                "/blobs/sha256/",
                "/targets/",
                "/v2/",
                "/v2/models/",
                "/v2/models/model/",
                "/v2/models/model/versions/",
                "/",
                "/a/",
            ] {
                paths.push(format!("{before}{escape}"));
                paths.push(format!("{before}{escape}/secret.txt"));
            }
            paths.push(format!("/targets/{escape}.manifest.json"));
            paths.push(format!("/v2/models/{escape}/versions/1.0.0"));
        }
        for path in paths {
            let reply = get(&app, &path, &[]).await;
            assert!(matches!(reply.status.as_u16(), 400 | 404), "{path}: {}", reply.status);
            reply.assert_problem(
                reply.status.as_u16(),
                if reply.status == 400 { "invalid-input" } else { "not-found" },
                &path,
            );
        }
    }
}

#[tokio::test]
async fn no_header_names_a_file() {
    let (store, _) = store("memory://").await;
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("index.html"), "page").unwrap();
    let app = router(store, Some(dir.path()));
    let blob = format!("/blobs/sha256/{}", sha256(b"plan"));
    for header in [
        "range",
        "if-range",
        "if-none-match",
        "host",
        "origin",
        "referer",
        "accept",
        "accept-encoding",
        "cookie",
        "x-original-url",
        "x-rewrite-url",
        "x-forwarded-prefix",
        "x-forwarded-host",
        "x-http-method-override",
        "forwarded",
        "content-type",
        "te",
        "upgrade",
    ] {
        for value in ["../../../etc/passwd", "/etc/passwd", "bytes=../../etc/passwd", "file:///etc/passwd"] {
            for (path, expected) in [(blob.as_str(), &b"plan"[..]), ("/index.html", b"page")] {
                let reply = get(&app, path, &[(header, value)]).await;
                assert_eq!((reply.status, &reply.body[..]), (StatusCode::OK, expected), "{header}: {value} {path}");
            }
        }
    }
}

#[tokio::test]
async fn files_of_a_folder_are_isolated_and_typed() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("sub")).unwrap();
    for (name, body) in [
        ("index.html", "<!doctype html>"),
        ("app.js", "1"),
        ("m.mjs", "2"),
        ("m.wasm", "\0asm"),
        ("s.css", "a{}"),
        ("d.json", "{}"),
        ("x.unknown", "?"),
        ("sub/index.html", "sub"),
        ("empty.bin", ""),
    ] {
        fs::write(dir.path().join(name), body).unwrap();
    }
    let app = router(store("memory://").await.0, Some(dir.path()));
    for (path, kind, body) in [
        ("/", "text/html; charset=utf-8", "<!doctype html>"),
        ("/index.html", "text/html; charset=utf-8", "<!doctype html>"),
        ("/app.js?v=1", "text/javascript; charset=utf-8", "1"),
        ("/m.mjs", "text/javascript; charset=utf-8", "2"),
        ("/m.wasm", "application/wasm", "\0asm"),
        ("/s.css", "text/css; charset=utf-8", "a{}"),
        ("/d.json", "application/json", "{}"),
        ("/x.unknown", "application/octet-stream", "?"),
        ("/sub/", "text/html; charset=utf-8", "sub"),
        ("/empty.bin", "application/octet-stream", ""),
    ] {
        let reply = get(&app, path, &[]).await;
        assert_eq!((reply.status, &reply.body[..]), (StatusCode::OK, body.as_bytes()), "{path}");
        assert_eq!(reply.header("content-type"), Some(kind), "{path}");
        assert_eq!(reply.header("cross-origin-opener-policy"), Some("same-origin"));
        assert_eq!(reply.header("cross-origin-embedder-policy"), Some("require-corp"));
        assert_eq!(reply.header("content-security-policy"), Some(STRICT_CSP));
        let etag = reply.header("etag").unwrap();
        assert_eq!(get(&app, path, &[("if-none-match", etag)]).await.status, StatusCode::NOT_MODIFIED, "{path}");
    }
    let part = get(&app, "/m.wasm", &[("range", "bytes=1-3")]).await;
    assert_eq!((part.status, &part.body[..]), (StatusCode::PARTIAL_CONTENT, &b"asm"[..]));
    let redirect = get(&app, "/sub", &[]).await;
    assert_eq!((redirect.status, redirect.header("location")), (StatusCode::PERMANENT_REDIRECT, Some("/sub/")));
    get(&app, "/missing.js", &[]).await.assert_problem(404, "not-found", "missing");
    get(&app, "/index.html/", &[]).await.assert_problem(404, "not-found", "a file is no folder");
    send(&app, "POST", "/app.js", &[]).await.assert_problem(405, "invalid-input", "POST");
    // The routes of the server come first.
    assert_eq!(get(&app, "/healthz", &[]).await.body, r#"{"status":"ok"}"#);
}

#[cfg(unix)]
#[tokio::test]
async fn a_link_out_of_the_folder_is_not_followed() {
    let dir = tempfile::tempdir().unwrap();
    let www = dir.path().join("www");
    fs::create_dir(&www).unwrap();
    fs::write(dir.path().join("secret.txt"), "root: secret").unwrap();
    fs::write(www.join("real.txt"), "real").unwrap();
    std::os::unix::fs::symlink(dir.path().join("secret.txt"), www.join("out.txt")).unwrap();
    std::os::unix::fs::symlink(dir.path(), www.join("up")).unwrap();
    std::os::unix::fs::symlink(www.join("real.txt"), www.join("in.txt")).unwrap();
    let app = router(store("memory://").await.0, Some(&www));
    get(&app, "/out.txt", &[]).await.assert_problem(404, "not-found", "file");
    get(&app, "/up/secret.txt", &[]).await.assert_problem(404, "not-found", "folder");
    assert_eq!(get(&app, "/in.txt", &[]).await.body, "real");
}

#[tokio::test]
async fn the_policy_of_files_can_be_chosen() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("a.txt"), "a").unwrap();
    for (csp, expected) in [(None, None), (Some("default-src 'self'"), Some("default-src 'self'"))] {
        let config = Config { www: Some(dir.path().into()), csp: csp.map(Into::into), ..Config::default() };
        let app = app(Server::new(store("memory://").await.0, config).unwrap());
        assert_eq!(get(&app, "/a.txt", &[]).await.header("content-security-policy"), expected);
    }
    let config = Config { www: Some(dir.path().into()), csp: Some("a\nb".into()), ..Config::default() };
    let wrong = Server::new(store("memory://").await.0, config).err().unwrap();
    assert_eq!(wrong.kind(), Kind::InvalidInput);
    let config = Config { www: Some(dir.path().join("none")), ..Config::default() };
    assert_eq!(Server::new(store("memory://").await.0, config).err().unwrap().kind(), Kind::NotFound);
}

#[tokio::test]
async fn metrics_count_requests_and_bytes() {
    let app = router(store("memory://").await.0, None);
    let blob = format!("/blobs/sha256/{}", sha256(&weights()));
    get(&app, &blob, &[]).await;
    get(&app, &blob, &[("range", "bytes=0-9")]).await;
    get(&app, "/nothing", &[]).await;
    let text = String::from_utf8(get(&app, "/metrics", &[]).await.body.to_vec()).unwrap();
    let bytes = weights().len() + 10;
    for line in [
        "nearside_http_requests_total{route=\"/blobs/sha256/{hex}\",method=\"GET\",status=\"200\"} 1",
        "nearside_http_requests_total{route=\"/blobs/sha256/{hex}\",method=\"GET\",status=\"206\"} 1",
        "nearside_http_requests_total{route=\"/*\",method=\"GET\",status=\"404\"} 1",
        "nearside_http_response_start_seconds_count{route=\"/blobs/sha256/{hex}\"} 2",
        &format!("nearside_http_response_bytes_total{{route=\"/blobs/sha256/{{hex}}\"}} {bytes}"),
        "nearside_http_requests_in_flight 1",
    ] {
        assert!(text.lines().any(|l| l == line), "{line}\n{text}");
    }
}
