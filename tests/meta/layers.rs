//! Which module may use which. `ARCHITECTURE.md` shows the same table.

use std::collections::BTreeSet;

use crate::source::{self, Code, Token, follows};

/// A module, or a part of one, and what it may use besides itself. A part stands apart from its module where it may use
/// something else. A row uses only rows above it.
pub(crate) const LAYERS: &[(&str, &[&str])] = &[
    ("error", &[]),
    ("tensor", &["error"]),
    ("graph", &["error", "tensor"]),
    ("onnx", &["error", "tensor", "graph"]),
    ("kernel", &["error", "tensor"]),
    ("lower", &["error", "tensor", "graph", "kernel"]),
    ("plan", &["error", "tensor"]),
    ("plan::liveness", &["error", "tensor", "kernel", "plan"]),
    ("plan::weights", &["error", "tensor", "kernel", "plan"]),
    ("plan::place", &["error", "tensor", "kernel", "plan", "plan::liveness", "plan::weights"]),
    ("trust", &["error", "plan"]),
    ("emit", &["error", "tensor", "kernel", "plan"]),
    (
        "compile",
        &[
            "error",
            "tensor",
            "graph",
            "onnx",
            "kernel",
            "lower",
            "plan",
            "plan::liveness",
            "plan::weights",
            "plan::place",
            "trust",
            "emit",
        ],
    ),
    ("package", &["error", "tensor", "plan", "trust", "emit", "compile"]),
    ("runtime", &["error", "tensor", "plan", "trust"]),
    ("store", &["error", "plan", "trust"]),
    ("serve", &["error", "plan", "trust", "store"]),
    (
        "web",
        &[
            "error",
            "tensor",
            "graph",
            "onnx",
            "kernel",
            "plan",
            "plan::weights",
            "trust",
            "compile",
            "package",
            "runtime",
        ],
    ),
    (
        "cli",
        &[
            "error",
            "tensor",
            "graph",
            "onnx",
            "kernel",
            "plan",
            "plan::weights",
            "trust",
            "emit",
            "compile",
            "package",
            "runtime",
            "store",
            "serve",
        ],
    ),
];

/// The row of a path such as `plan::place::cpu`: the longest that fits.
fn layer(path: &str) -> Option<&'static str> {
    let rows = LAYERS.iter().map(|(name, _)| *name);
    rows.filter(|row| path == *row || path.starts_with(&format!("{row}::"))).max_by_key(|row| row.len())
}

/// The paths from the crate's root that code uses, with their lines.
fn uses(code: &Code) -> Vec<(String, usize)> {
    let tokens = &code.tokens;
    let depth = if code.module.is_empty() { 0 } else { code.module.split("::").count() };
    let mut found = vec![];
    let mut at = 0;
    while at < tokens.len() {
        let line = tokens[at].line;
        let mut next = at;
        let mut ups = 0;
        while follows(tokens, next, &["super", ":", ":"]) {
            (ups, next) = (ups + 1, next + 3);
        }
        let from_root = if ups > 0 { ups >= depth } else { follows(tokens, at, &["crate", ":", ":"]) };
        if ups == 0 && from_root {
            next = at + 3;
        }
        if from_root {
            tree(tokens, next, "", &mut |path| found.push((path, line)));
        }
        at = next.max(at + 1);
    }
    found
}

/// The paths of a use tree: `a::b`, `{a, b::{c, d}}`. Returns where it ends.
fn tree(tokens: &[Token], mut at: usize, prefix: &str, found: &mut dyn FnMut(String)) -> usize {
    if follows(tokens, at, &["{"]) {
        at += 1;
        while !follows(tokens, at, &["}"]) && at < tokens.len() {
            at = tree(tokens, at, prefix, found);
            // Past `as name` and the comma.
            while at < tokens.len() && !follows(tokens, at, &[","]) && !follows(tokens, at, &["}"]) {
                at += 1;
            }
            at += usize::from(follows(tokens, at, &[","]));
        }
        return at + 1;
    }
    let Some(name) = tokens.get(at).map(|t| t.text.as_str()) else { return at };
    let path = match (prefix, name) {
        (_, "self") => prefix.to_owned(),
        ("", _) => name.to_owned(),
        _ => format!("{prefix}::{name}"),
    };
    if follows(tokens, at + 1, &[":", ":"]) && !follows(tokens, at + 3, &["<"]) {
        return tree(tokens, at + 3, &path, found);
    }
    found(path);
    at + 1
}

#[test]
fn modules_use_only_what_the_table_allows() {
    let mut wrong = vec![];
    for code in source::code() {
        // The crate's root names all modules; the program calls the command line.
        if code.module.is_empty() {
            continue;
        }
        let Some(from) = layer(&code.module) else {
            wrong.push(format!("{}: the module has no row in the table", code.path));
            continue;
        };
        let allowed = LAYERS.iter().find(|(name, _)| *name == from).map(|(_, allowed)| *allowed).unwrap();
        for (path, line) in uses(&code) {
            let Some(to) = layer(&path) else {
                wrong.push(format!("{}:{line}: {path} is no module of the table", code.path));
                continue;
            };
            // A module may name its parts, to declare and re-export them.
            let own = from == to || to.starts_with(&format!("{from}::"));
            if !own && !allowed.contains(&to) {
                wrong.push(format!("{}:{line}: {from} may not use {to} ({path})", code.path));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn the_table_has_no_cycles() {
    let mut above = BTreeSet::new();
    for (name, allowed) in LAYERS {
        for a in *allowed {
            assert!(above.contains(a), "{name} uses {a}, which does not stand above it");
        }
        assert!(above.insert(*name), "{name} stands twice");
    }
}

/// The table as `ARCHITECTURE.md` shows it.
pub(crate) fn markdown() -> String {
    let mut text = String::from("| module | may use |\n|---|---|\n");
    for (name, allowed) in LAYERS {
        let allowed: Vec<String> = allowed.iter().map(|a| format!("`{a}`")).collect();
        let allowed = if allowed.is_empty() { "nothing".into() } else { allowed.join(", ") };
        text.push_str(&format!("| `{name}` | {allowed} |\n"));
    }
    text
}

#[test]
fn paths_are_read_from_use_trees() {
    let text = "use crate::{a::b, c::{self, d as e}}; fn f() { crate::g::h::<u8>(); super::super::i::j() }";
    let stream: proc_macro2::TokenStream = text.parse().unwrap();
    let code = Code { path: String::new(), module: "x::y".into(), tokens: source::flat(stream), text: String::new() };
    let paths: Vec<String> = uses(&code).into_iter().map(|(path, _)| path).collect();
    assert_eq!(paths, ["a::b", "c", "c::d", "g::h", "i::j"]);
}
