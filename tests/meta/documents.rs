//! Documents say what is there. With `UPDATE_DOCS=1` the tests write the parts that are made from tables.

use std::fs;

use crate::source::{self, read};
use crate::{layers, ops};

/// The markers in the README between which `cargo xtask bench --markdown` puts its table.
const BENCHMARKS: [&str; 2] = ["<!-- benchmarks: begin -->", "<!-- benchmarks: end -->"];

/// Checks that the part of a document between two markers is `wanted`, or writes it.
fn between(path: &str, name: &str, wanted: &str) {
    let text = read(path);
    let (begin, end) = (format!("<!-- {name}: begin -->\n"), format!("<!-- {name}: end -->"));
    let (before, rest) = text.split_once(&begin).unwrap_or_else(|| panic!("{path} has no {begin}"));
    let (found, after) = rest.split_once(&end).unwrap_or_else(|| panic!("{path} has no {end}"));
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(source::root().join(path), format!("{before}{begin}{wanted}{end}{after}")).unwrap();
        return;
    }
    assert!(found == wanted, "{path}: {name} is not current: UPDATE_DOCS=1 cargo test --test meta");
}

#[test]
fn the_architecture_shows_the_table_of_layers() {
    between("ARCHITECTURE.md", "layers", &layers::markdown());
}

#[test]
fn the_list_of_operators_is_current() {
    let wanted = ops::markdown();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::create_dir_all(source::root().join("docs")).unwrap();
        return fs::write(source::root().join("docs/ops.md"), wanted).unwrap();
    }
    assert!(read("docs/ops.md") == wanted, "docs/ops.md is not current: UPDATE_DOCS=1 cargo test --test meta");
}

#[test]
fn the_readme_keeps_its_markers() {
    let text = read("README.md");
    let [begin, end] = BENCHMARKS.map(|marker| {
        assert_eq!(text.matches(marker).count(), 1, "{marker} stands in README.md once");
        text.find(marker).unwrap()
    });
    assert!(begin < end, "the benchmarks' markers stand in order");
}

/// The targets of a document's links to files.
fn links(text: &str) -> Vec<&str> {
    let starts = text.match_indices("](").map(|(at, _)| &text[at + 2..]);
    let targets = starts.filter_map(|rest| rest.split_once(')').map(|(target, _)| target));
    targets.filter(|t| !t.contains("://") && !t.starts_with('#') && !t.starts_with("mailto:")).collect()
}

#[test]
fn links_lead_somewhere() {
    let mut wrong = vec![];
    for source in source::files(".", &[".md"]) {
        let folder = source::root().join(&source.path);
        for link in links(&source.text) {
            let file = link.split('#').next().unwrap();
            if !folder.parent().unwrap().join(file).exists() {
                wrong.push(format!("{}: {link}", source.path));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn every_command_is_in_the_readme() {
    let readme = read("README.md");
    let mut missing = vec![];
    for code in source::code().iter().filter(|c| c.module.starts_with("cli::")) {
        let name = code.module.trim_start_matches("cli::");
        // A command's file holds its arguments.
        if code.text.contains("pub(super) struct Args") || code.text.contains("pub struct Args") {
            let wanted = format!("nearside {name}");
            missing.extend((!readme.contains(&wanted)).then_some(wanted));
        }
    }
    assert!(missing.is_empty(), "README.md does not show {missing:?}");
}
