//! The server over a socket.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use nearside::plan::manifest::Manifest;
use nearside::serve::Config;
use nearside::serve::listen::Limits;
use nearside::store::models::VersionDocument;
use nearside::store::publish::publish;
use nearside::store::{Missing, Store, layout};
use nearside::trust::digest::{sha256, verify, verify_chunk, verify_file};

use super::faulty::{Fault, Faulty};
use super::package::{self, CHUNK, write};
use super::{Running, agent, each_store, get, runtime, wrapped};

/// A store with model@1.0.0.
fn published() -> Store {
    let store = Store::open("memory://", Missing::Refuse).unwrap();
    runtime().block_on(publish(&store, write("model", "1.0.0", 1).path(), |_| {})).unwrap();
    store
}

fn big_blob() -> String {
    format!("/{}", layout::blob(&sha256(&package::weights(1, 0))))
}

#[test]
fn a_client_gets_from_a_name_to_proved_chunks() {
    each_store(|store| {
        let folder = write("model", "1.0.0", 1);
        runtime().block_on(publish(&store, folder.path(), |_| {})).unwrap();
        let (server, agent) = (Running::start(store, Config::default(), Limits::default()), agent());
        let document = get(&agent, &server.url("/v2/models/model/versions/1.0.0"), &[]);
        let document = VersionDocument::parse(document.bytes()).unwrap();
        let json = get(&agent, &server.url(&format!("/targets/{}.manifest.json", document.manifest)), &[]);
        verify(json.bytes(), &document.manifest).unwrap();
        let manifest = Manifest::parse(json.bytes()).unwrap();
        assert_eq!(manifest, package::manifest(folder.path()));
        for file in &manifest.files {
            let url = server.url(&format!("/blobs/sha256/{}", file.sha256));
            let etag = format!("\"{}\"", file.sha256);
            let mut whole = Vec::new();
            // As a client that resumes does it: chunk by chunk, each proved, under the same tag.
            for index in 0..file.chunks.len() {
                let range = file.chunk_range(index).unwrap();
                let value = format!("bytes={}-{}", range.start, range.end - 1);
                let part = get(&agent, &url, &[("range", &value), ("if-range", &etag)]);
                assert_eq!(part.status, 206);
                assert_eq!(part.header("etag"), Some(etag.as_str()));
                let expected = format!("bytes {}-{}/{}", range.start, range.end - 1, file.size);
                assert_eq!(part.header("content-range"), Some(expected.as_str()));
                verify_chunk(file, index, part.bytes()).unwrap();
                whole.extend_from_slice(part.bytes());
            }
            verify_file(file, &whole).unwrap();
            assert_eq!(get(&agent, &url, &[]).bytes(), whole);
            let rest = get(&agent, &url, &[("range", "bytes=3-")]);
            assert_eq!((rest.status, rest.bytes()), (206, &whole[3..]));
            let suffix = get(&agent, &url, &[("range", "bytes=-5")]);
            assert_eq!((suffix.status, suffix.bytes()), (206, &whole[whole.len() - 5..]));
            let outside = get(&agent, &url, &[("range", &format!("bytes={}-", file.size))]);
            assert_eq!(outside.status, 416);
            assert_eq!(outside.header("content-range"), Some(format!("bytes */{}", file.size).as_str()));
            let unchanged = get(&agent, &url, &[("if-none-match", &etag)]);
            assert_eq!((unchanged.status, unchanged.bytes().len()), (304, 0));
            let head = agent.head(&url).call().unwrap();
            assert_eq!(head.headers()["content-length"], file.size.to_string());
        }
        let compressed = get(&agent, &server.url(&big_blob()), &[("accept-encoding", "gzip, br, zstd")]);
        assert_eq!(compressed.header("content-encoding"), None);
        let list = get(&agent, &server.url("/v2/models"), &[]);
        assert_eq!(list.bytes(), br#"{"models":[{"name":"model","versions":["1.0.0"]}]}"#);
    });
}

#[test]
fn many_ranges_at_once() {
    each_store(|store| {
        runtime().block_on(publish(&store, write("model", "1.0.0", 1).path(), |_| {})).unwrap();
        let server = Running::start(store, Config::default(), Limits::default());
        let (url, bytes) = (server.url(&big_blob()), package::weights(1, 0));
        std::thread::scope(|scope| {
            for thread in 0..8usize {
                let (url, bytes) = (&url, &bytes);
                scope.spawn(move || {
                    let agent = agent();
                    for step in 0..25 {
                        let start = (thread * 7919 + step * 104_729) % bytes.len();
                        let end = (start + CHUNK as usize).min(bytes.len());
                        let part = get(&agent, url, &[("range", &format!("bytes={start}-{}", end - 1))]);
                        assert_eq!((part.status, part.bytes()), (206, &bytes[start..end]));
                    }
                });
            }
        });
    });
}

#[test]
fn a_store_that_fails_is_told_without_its_secrets() {
    let store = published();
    let timeout = Duration::from_millis(200);
    for (fault, code) in [(Fault::ReadFails, "io"), (Fault::ReadStalls(Duration::from_secs(20)), "timeout")] {
        let config = Config { timeout, ..Config::default() };
        let server = Running::start(wrapped(Faulty::new(&store, fault)), config, Limits::default());
        for path in [big_blob().as_str(), "/v2/models/model/versions/1.0.0"] {
            let start = Instant::now();
            let reply = get(&agent(), &server.url(path), &[]);
            let text = String::from_utf8_lossy(reply.bytes()).into_owned();
            assert_eq!(reply.status, 503, "{fault:?} {path}: {text}");
            assert_eq!(reply.header("retry-after"), Some("5"));
            assert_eq!(reply.header("access-control-allow-origin"), Some("*"));
            assert!(text.contains(&format!("\"code\":\"{code}\"")) && !text.contains("secret"), "{text}");
            assert!(start.elapsed() < Duration::from_secs(10));
        }
        assert_eq!(get(&agent(), &server.url("/healthz"), &[]).status, 200, "{fault:?}");
    }
}

#[test]
fn a_body_that_breaks_or_stalls_is_never_passed_off_as_whole() {
    let store = published();
    for fault in [Fault::BodyBreaks, Fault::BodyStalls] {
        let config = Config { timeout: Duration::from_millis(200), ..Config::default() };
        let server = Running::start(wrapped(Faulty::new(&store, fault)), config, Limits::default());
        for headers in [&[][..], &[("range", "bytes=1-100000")]] {
            let start = Instant::now();
            let reply = get(&agent(), &server.url(&big_blob()), headers);
            assert!(reply.body.is_err(), "{fault:?}: {} bytes", reply.bytes().len());
            assert!(start.elapsed() < Duration::from_secs(10));
        }
    }
}

/// Sends raw bytes and reads until the server closes.
fn raw(server: &Running, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(server.address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream.write_all(request).unwrap();
    let mut reply = Vec::new();
    // A server that closes with unread bytes resets the connection; what came before counts.
    let _ = stream.read_to_end(&mut reply);
    String::from_utf8_lossy(&reply).into_owned()
}

#[test]
fn hostile_requests_on_the_wire() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("www")).unwrap();
    std::fs::write(dir.path().join("secret.txt"), "top secret").unwrap();
    let limits = Limits { header_timeout: Duration::from_millis(300), ..Limits::default() };
    let config = Config { www: Some(dir.path().join("www")), ..Config::default() };
    let server = Running::start(published(), config, limits);
    // HTTP clients tidy up paths before they send them; an attacker's does not.
    for path in [
        "/../secret.txt",
        "/a/../../secret.txt",
        "/%2e%2e/secret.txt",
        "/..%2fsecret.txt",
        "//../secret.txt",
        "/./../secret.txt",
        "/blobs/sha256/../../../secret.txt",
        "/targets/../../secret.txt",
        "/v2/models/../../../secret.txt",
        "/v2/models/model/versions/..%2f..%2f..%2f..%2fsecret.txt",
        "/\\..\\secret.txt",
        "http://elsewhere.example/../secret.txt",
        "file:///etc/passwd",
    ] {
        let reply = raw(&server, format!("GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").as_bytes());
        assert!(reply.starts_with("HTTP/1.1 400") || reply.starts_with("HTTP/1.1 404"), "{path}: {reply}");
        assert!(!reply.contains("top secret") && !reply.contains("root:"), "{path}");
    }
    let long = format!("GET / HTTP/1.1\r\nhost: a\r\nx: {}\r\n\r\n", "a".repeat(1 << 20));
    assert!(raw(&server, long.as_bytes()).starts_with("HTTP/1.1 431"));
    assert!(raw(&server, b"\0\0\0\0 nonsense\r\n\r\n").starts_with("HTTP/1.1 400"));
    // Two lengths are how requests are smuggled.
    let two = b"GET /healthz HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab";
    assert!(raw(&server, two).starts_with("HTTP/1.1 400"));
    // Headers that never end, and a connection that says nothing.
    for begin in [&b"GET / HTTP/1.1\r\nhost: a\r\n"[..], b""] {
        let start = Instant::now();
        raw(&server, begin);
        assert!(start.elapsed() < Duration::from_secs(10), "the server did not give up");
    }
    assert_eq!(get(&agent(), &server.url("/healthz"), &[]).status, 200);
}

#[test]
fn connections_over_the_limit_wait_and_are_served() {
    let limits = Limits { connections: 2, header_timeout: Duration::from_millis(300), ..Limits::default() };
    let server = Running::start(published(), Config::default(), limits);
    // Two idle connections take both places until the server gives them up.
    let idle: Vec<_> = (0..2).map(|_| TcpStream::connect(server.address).unwrap()).collect();
    assert_eq!(get(&agent(), &server.url("/healthz"), &[]).status, 200);
    drop(idle);
}

#[test]
fn shutdown_lets_requests_finish_and_takes_no_more() {
    let slow = wrapped(Faulty::new(&published(), Fault::SlowBody(Duration::from_millis(150))));
    let mut server = Running::start(slow, Config::default(), Limits::default());
    let url = server.url(&big_blob());
    let request = std::thread::spawn(move || get(&agent(), &url, &[]));
    std::thread::sleep(Duration::from_millis(300));
    server.stop();
    std::thread::sleep(Duration::from_millis(100));
    assert!(TcpStream::connect(server.address).is_err(), "the port is closed at once");
    let reply = request.join().unwrap();
    assert_eq!((reply.status, reply.bytes()), (200, &package::weights(1, 0)[..]));
}

#[test]
fn shutdown_does_not_wait_for_ever() {
    let stalled = wrapped(Faulty::new(&published(), Fault::BodyStalls));
    let limits = Limits { drain: Duration::from_millis(200), ..Limits::default() };
    let server = Running::start(stalled, Config::default(), limits);
    let url = server.url(&big_blob());
    let request = std::thread::spawn(move || get(&agent(), &url, &[]));
    std::thread::sleep(Duration::from_millis(200));
    let start = Instant::now();
    drop(server);
    assert!(start.elapsed() < Duration::from_secs(10));
    assert!(request.join().unwrap().body.is_err());
}
