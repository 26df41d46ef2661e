//! The op table: every row has a lowering and is documented where it stands.

use std::collections::BTreeSet;

use nearside::graph::ops;
use nearside::lower;

use crate::source::{self, follows};

/// Operators that the importer and the shape rules know and that have no lowering yet. This list may only shrink.
const WITHOUT_LOWERING: &[(&str, &str)] = &[
    ("If", "control flow needs statements that run a body, or a plan that is cut there"),
    ("Loop", "control flow needs statements that run a body, or a plan that is cut there"),
    ("Scan", "control flow needs statements that run a body, or a plan that is cut there"),
];

/// The fewest operators that have a lowering.
const AT_LEAST: usize = 120;

#[test]
fn every_row_has_a_lowering() {
    let missing: Vec<&str> = ops::table()
        .map(|op| op.name)
        .filter(|name| lower::find(name).is_none() && !WITHOUT_LOWERING.iter().any(|(n, _)| n == name))
        .collect();
    assert!(missing.is_empty(), "no lowering of {missing:?}");
    for (name, _) in WITHOUT_LOWERING {
        assert!(ops::find(name).is_some(), "{name} is no operator of the table");
        assert!(lower::find(name).is_none(), "{name} has a lowering: strike it from the list");
    }
}

#[test]
fn every_lowering_has_a_row() {
    let mut seen = BTreeSet::new();
    for (name, _) in lower::table() {
        assert!(ops::find(name).is_some(), "{name} has a lowering and no row in the op table");
        assert!(seen.insert(name), "{name} has two lowerings");
    }
}

#[test]
fn there_are_enough_operators() {
    let count = lower::table().count();
    assert!(count >= AT_LEAST, "{count} operators, {AT_LEAST} are promised");
}

#[test]
fn rows_are_unique_and_tell_a_whole_story() {
    let mut names = BTreeSet::new();
    for op in ops::table() {
        let name = op.name;
        assert!(names.insert(name), "{name} has two rows");
        assert!(!op.since.is_empty(), "{name}: no opset");
        assert!(op.since.is_sorted() && op.since.windows(2).all(|w| w[0] != w[1]), "{name}: opsets {:?}", op.since);
        assert!(op.inputs.0 <= op.inputs.1, "{name}: inputs {:?}", op.inputs);
        assert!(op.outputs.0 <= op.outputs.1 && op.outputs.1 > 0, "{name}: outputs {:?}", op.outputs);
        let attrs: BTreeSet<&str> = op.attrs.iter().map(|a| a.name).collect();
        assert_eq!(attrs.len(), op.attrs.len(), "{name}: an attribute stands twice");
    }
}

/// The names in the rows of a file, in order.
fn rows(code: &source::Code) -> Vec<String> {
    let tokens = &code.tokens;
    let literal = |at: usize| tokens[at].text.strip_prefix('"')?.strip_suffix('"').map(str::to_owned);
    let mut found = vec![];
    for at in 0..tokens.len().saturating_sub(2) {
        let call = follows(tokens, at + 1, &["("]) && literal(at + 2).is_some();
        let name = if follows(tokens, at, &["name", ":"]) || call { literal(at + 2) } else { None };
        // Rules after the rows name operators again, in messages.
        found.extend(name.filter(|n| ops::find(n).is_some() && !found.contains(n)));
    }
    found
}

#[test]
fn a_familys_file_names_its_operators_at_the_top_and_sorts_its_rows() {
    let mut wrong = vec![];
    let mut seen = BTreeSet::new();
    for code in source::code().iter().filter(|c| c.module.starts_with("graph::ops::")) {
        let header: String = code.text.lines().take_while(|l| l.starts_with("//!")).collect::<Vec<_>>().join("\n");
        let words: BTreeSet<&str> = header.split(|c: char| !c.is_ascii_alphanumeric()).collect();
        let rows = rows(code);
        for name in &rows {
            if !words.contains(name.as_str()) {
                wrong.push(format!("{}: the file's first lines do not name {name}", code.path));
            }
        }
        for pair in rows.windows(2).filter(|w| w[0] >= w[1]) {
            wrong.push(format!("{}: {} stands before {}", code.path, pair[0], pair[1]));
        }
        seen.extend(rows);
    }
    for op in ops::table().filter(|op| !seen.contains(op.name)) {
        wrong.push(format!("{} stands in no file of src/graph/ops/", op.name));
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

/// The list of operators as `docs/ops.md` holds it.
pub(crate) fn markdown() -> String {
    let count = lower::table().count();
    let mut rows: Vec<&ops::Op> = ops::table().collect();
    rows.sort_by_key(|op| op.name);
    let mut text = format!(
        "# Operators\n\n\
         {count} operators of ai.onnx compile, from opset 7 to 27. The columns: the opsets at which an operator's \
         meaning changed (the importer brings older forms to the newest), how many inputs and outputs it takes, its \
         attributes. `cargo test --test meta` checks this file against the op table; with `UPDATE_DOCS=1` it writes \
         it.\n\n\
         | operator | opsets | inputs | outputs | attributes |\n|---|---|---|---|---|\n"
    );
    let range = |(least, most): (usize, usize)| match most {
        usize::MAX => format!("{least}…"),
        _ if least == most => format!("{least}"),
        _ => format!("{least}–{most}"),
    };
    for op in rows {
        let name = if lower::find(op.name).is_some() { op.name.to_owned() } else { format!("{} ¹", op.name) };
        let opsets: Vec<String> = op.since.iter().map(ToString::to_string).collect();
        let given =
            |a: &&nearside::graph::attrs::Attr| !matches!(a.default, nearside::graph::attrs::Default::Internal(_));
        let attrs: Vec<&str> = op.attrs.iter().filter(given).map(|a| a.name).collect();
        let (inputs, outputs) = (range(op.inputs), range(op.outputs));
        text.push_str(&format!("| {name} | {} | {inputs} | {outputs} | {} |\n", opsets.join(", "), attrs.join(", ")));
    }
    if ops::table().any(|op| lower::find(op.name).is_none()) {
        text.push_str("\n¹ Read and typed, not compiled yet: a model that uses it is refused with the node's name.\n");
    }
    text
}
