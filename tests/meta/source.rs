//! The project's files, and Rust code as a flat list of tokens: without comments, without tests.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use proc_macro2::{Delimiter, TokenStream, TokenTree};

/// A text file of the project.
pub(crate) struct Source {
    /// From the project's folder, with `/`.
    pub(crate) path: String,
    pub(crate) text: String,
}

/// A token and the line that it stands in.
#[derive(Clone)]
pub(crate) struct Token {
    pub(crate) text: String,
    pub(crate) line: usize,
}

/// Rust code outside tests.
pub(crate) struct Code {
    pub(crate) path: String,
    /// The module, as `graph::ops::conv`; empty for the crate's root.
    pub(crate) module: String,
    pub(crate) tokens: Vec<Token>,
    pub(crate) text: String,
}

/// The project's folder.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A file of the project.
pub(crate) fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// The text files of these endings in a folder of the project, sorted by path, without what is built, fetched or
/// recorded.
pub(crate) fn files(folder: &str, endings: &[&str]) -> Vec<Source> {
    let mut found = vec![];
    let mut folders: Vec<PathBuf> = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        for entry in entries {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            let left_out = ["target", "node_modules", "dist", ".git", ".cache"];
            if left_out.contains(&name.as_str()) || name == "package-lock.json" {
                continue;
            }
            if path.is_dir() {
                folders.push(path);
            } else if endings.iter().any(|e| name.ends_with(e)) {
                let relative = path.strip_prefix(root()).unwrap().to_str().unwrap().replace('\\', "/");
                // What is not UTF-8 is no text.
                found.extend(fs::read_to_string(&path).ok().map(|text| Source { path: relative, text }));
            }
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

/// All Rust code under `src/` that is not only there for tests.
pub(crate) fn code() -> Vec<Code> {
    let mut all = BTreeMap::new();
    let mut tests: Vec<String> = vec![];
    for source in files("src", &[".rs"]) {
        let module = module(&source.path);
        let stream: TokenStream = source.text.parse().unwrap_or_else(|e| panic!("{}: {e}", source.path));
        let mut flat = Flat::default();
        flat.add(stream);
        tests.extend(flat.test_modules.iter().map(|m| join(&module, m)));
        all.insert(source.path.clone(), Code { path: source.path, module, tokens: flat.tokens, text: source.text });
    }
    let in_tests = |module: &str| tests.iter().any(|t| module == t || module.starts_with(&format!("{t}::")));
    all.into_values().filter(|c| !in_tests(&c.module)).collect()
}

/// The module that a file under `src/` holds.
fn module(path: &str) -> String {
    let path = path.trim_start_matches("src/").trim_end_matches(".rs");
    match path {
        "lib" | "main" => String::new(),
        _ => path.trim_end_matches("/mod").replace('/', "::"),
    }
}

fn join(module: &str, name: &str) -> String {
    if module.is_empty() { name.into() } else { format!("{module}::{name}") }
}

#[derive(Default)]
struct Flat {
    tokens: Vec<Token>,
    /// Modules in files of their own that stand under `#[cfg(test)]`.
    test_modules: Vec<String>,
}

impl Flat {
    fn add(&mut self, stream: TokenStream) {
        let mut trees = stream.into_iter().peekable();
        while let Some(tree) = trees.next() {
            if is(&tree, "#") && trees.peek().is_some_and(is_cfg_test) {
                trees.next();
                let mut skipped: Vec<String> = vec![];
                for tree in trees.by_ref() {
                    let end =
                        is(&tree, ";") || matches!(&tree, TokenTree::Group(g) if g.delimiter() == Delimiter::Brace);
                    skipped.push(tree.to_string());
                    if end {
                        break;
                    }
                }
                if let [.., keyword, name, end] = &skipped[..]
                    && keyword == "mod"
                    && end == ";"
                {
                    self.test_modules.push(name.clone());
                }
                continue;
            }
            self.push(tree);
        }
    }

    fn push(&mut self, tree: TokenTree) {
        let line = tree.span().start().line;
        let TokenTree::Group(group) = tree else {
            return self.tokens.push(Token { text: tree.to_string(), line });
        };
        let (open, close) = match group.delimiter() {
            Delimiter::Parenthesis => ("(", ")"),
            Delimiter::Brace => ("{", "}"),
            Delimiter::Bracket => ("[", "]"),
            Delimiter::None => ("", ""),
        };
        self.tokens.push(Token { text: open.into(), line });
        self.add(group.stream());
        self.tokens.push(Token { text: close.into(), line: group.span_close().start().line });
    }
}

/// The tokens of code, without tests.
pub(crate) fn flat(stream: TokenStream) -> Vec<Token> {
    let mut flat = Flat::default();
    flat.add(stream);
    flat.tokens
}

fn is(tree: &TokenTree, punctuation: &str) -> bool {
    matches!(tree, TokenTree::Punct(p) if p.to_string() == punctuation)
}

/// Whether this is `[cfg(test)]` or `[cfg(all(test, …))]`.
fn is_cfg_test(tree: &TokenTree) -> bool {
    let TokenTree::Group(group) = tree else { return false };
    let text: String = group.stream().to_string().chars().filter(|c| !c.is_whitespace()).collect();
    text == "cfg(test)" || text.starts_with("cfg(all(test,")
}

/// The texts of `tokens` from `at`, as many as `wanted`, are these.
pub(crate) fn follows(tokens: &[Token], at: usize, wanted: &[&str]) -> bool {
    wanted.iter().enumerate().all(|(i, w)| tokens.get(at + i).is_some_and(|t| t.text == *w))
}

#[test]
fn tests_and_comments_are_not_code() {
    let text = r#"
        use crate::a; // crate::b
        #[cfg(test)]
        pub mod testing;
        #[cfg(all(test, feature = "x"))]
        mod tests { fn f() { x.unwrap(); } }
        #[cfg(not(test))]
        fn g() { "panic!()"; }
    "#;
    let mut flat = Flat::default();
    flat.add(text.parse().unwrap());
    let texts: Vec<&str> = flat.tokens.iter().map(|t| t.text.as_str()).collect();
    assert_eq!(texts[..6], ["use", "crate", ":", ":", "a", ";"]);
    assert!(!texts.contains(&"unwrap") && !texts.contains(&"panic") && texts.contains(&"g"));
    assert_eq!(flat.test_modules, ["testing"]);
}
