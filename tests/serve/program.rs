//! The program itself: `nearside publish` and `nearside serve`.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use super::package::write;
use super::{agent, get};

fn nearside(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nearside"));
    command.args(args).env("NO_COLOR", "1").stdin(Stdio::null());
    command
}

fn publish(package: &Path, store: &str) -> Output {
    nearside(&["publish", package.to_str().unwrap(), "--store", store, "--json"]).output().unwrap()
}

fn last_line(output: &Output) -> serde_json::Value {
    let text = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(text.lines().last().unwrap()).unwrap()
}

#[test]
fn publish_says_what_it_did_and_exits_as_documented() {
    let dir = tempfile::tempdir().unwrap();
    let store = format!("file://{}/new/store", dir.path().display());
    let package = write("model", "1.0.0", 1);
    let first = publish(package.path(), &store);
    assert_eq!(first.status.code(), Some(0), "{first:?}");
    assert_eq!((&last_line(&first)["created"], &last_line(&first)["blobs_uploaded"]), (&true.into(), &4.into()));
    let again = publish(package.path(), &store);
    assert_eq!((again.status.code(), &last_line(&again)["created"]), (Some(0), &false.into()));

    let other = publish(write("model", "1.0.0", 2).path(), &store);
    assert_eq!((other.status.code(), &last_line(&other)["error"]["code"]), (Some(6), &"conflict".into()));
    std::fs::write(package.path().join("model.plan"), "plan 2").unwrap();
    let damaged = publish(package.path(), &store);
    assert_eq!((damaged.status.code(), &last_line(&damaged)["error"]["code"]), (Some(4), &"integrity".into()));

    // For people: what, where, and what to do, without colours where nobody wants them.
    let text = nearside(&["publish", package.path().to_str().unwrap(), "--store", &store]).output().unwrap();
    let text = String::from_utf8(text.stderr).unwrap();
    assert!(
        text.starts_with("error: ") && text.contains("model.plan") && text.contains("help: build the package again")
    );
    assert!(!text.contains('\u{1b}'), "{text:?}");
}

#[test]
fn serve_refuses_what_cannot_be_served() {
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().to_str().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for (args, code) in [
        (&["serve", "--store", "/does/not/exist"][..], 5),
        (&["serve", "--store", "s3://bucket"], 2),
        (&["serve", "--store", store, "--www", "/does/not/exist", "--listen", "127.0.0.1:0"], 5),
        (&["serve", "--store", store, "--listen", "nowhere"], 2),
        (&["serve", "--store", store, "--listen", &address], 6),
        (&["serve"], 2),
    ] {
        let output = nearside(args).output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{args:?}: {output:?}");
    }
}

#[cfg(unix)]
#[test]
fn serve_announces_itself_and_stops_on_a_signal() {
    let dir = tempfile::tempdir().unwrap();
    let (store, www) = (dir.path().join("store"), dir.path().join("www"));
    std::fs::create_dir(&www).unwrap();
    std::fs::write(www.join("index.html"), "<!doctype html>").unwrap();
    assert!(publish(write("model", "1.0.0", 1).path(), store.to_str().unwrap()).status.success());
    for signal in ["TERM", "INT"] {
        let (store, www) = (store.to_str().unwrap(), www.to_str().unwrap());
        let args = ["serve", "--store", store, "--www", www, "--listen", "127.0.0.1:0", "--json"];
        let mut child = nearside(&args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let line: serde_json::Value = serde_json::from_str(&line).unwrap();
        let url = line["listening"].as_str().unwrap();
        assert_eq!(get(&agent(), &format!("{url}/v2/models/model"), &[]).status, 200);
        assert_eq!(get(&agent(), &format!("{url}/"), &[]).bytes(), b"<!doctype html>");
        let pid = child.id().to_string();
        assert!(Command::new("kill").args(["-s", signal, &pid]).status().unwrap().success());
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{signal}: {output:?}");
        // Every line of the log is an object; one of them is the request.
        let log = String::from_utf8(output.stderr).unwrap();
        let lines: Vec<serde_json::Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let is_request = |line: &serde_json::Value| line["fields"]["path"] == "\"/v2/models/model\"";
        assert!(lines.iter().any(|line| is_request(line) && line["fields"]["status"] == 200), "{log}");
    }
}

#[test]
fn a_publisher_killed_by_the_system_leaves_a_store_that_works() {
    let dir = tempfile::tempdir().unwrap();
    let store = nearside::store::Store::open(dir.path().to_str().unwrap(), nearside::store::Missing::Refuse).unwrap();
    let mut published = 0;
    for step in 0..20 {
        let package = write("model", &format!("1.0.{step}"), step);
        let arguments = ["publish", package.path().to_str().unwrap(), "--store", dir.path().to_str().unwrap()];
        let mut child = nearside(&arguments).stdout(Stdio::null()).spawn().unwrap();
        std::thread::sleep(std::time::Duration::from_millis(4 * u64::from(step)));
        child.kill().unwrap();
        child.wait().unwrap();
        let seen = super::runtime().block_on(super::package::check_all(&store));
        assert!(seen == published || seen == published + 1, "{seen} after {published}");
        published = seen;
    }
    for step in 0..20 {
        let package = write("model", &format!("1.0.{step}"), step);
        assert!(publish(package.path(), dir.path().to_str().unwrap()).status.success());
    }
    assert_eq!(super::runtime().block_on(super::package::check_all(&store)), 20);
}
