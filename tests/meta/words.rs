//! Words that do not stand outside tests, and files of one subject.

use crate::source::{self, Token, follows};

/// The most lines of a file.
const MAX_LINES: usize = 700;

/// Files that are longer: their lines, and why. This list may only shrink.
const LONG: &[(&str, usize, &str)] = &[];

fn report(wrong: &[String]) {
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

/// What stands at this token and may not: bytes from outside must end in an error, never in a panic.
fn forbidden(path: &str, tokens: &[Token], at: usize) -> Option<&'static str> {
    let text = tokens[at].text.as_str();
    let called = follows(tokens, at + 1, &["("]);
    let of_value = at > 0 && (tokens[at - 1].text == "." || tokens[at - 1].text == ":");
    let makro = follows(tokens, at + 1, &["!"]) && !follows(tokens, at + 2, &["="]);
    let prints = path == "src/main.rs" || path.starts_with("src/cli/") || path.starts_with("xtask/");
    match text {
        "unwrap" | "unwrap_err" | "expect" | "expect_err" if called && of_value => Some("a panic on an error"),
        "unwrap_unchecked" | "get_unchecked" | "get_unchecked_mut" if called => Some("an access without a check"),
        "panic" | "todo" | "unimplemented" | "unreachable" if makro => Some("a panic"),
        "dbg" if makro => Some("a trace for debugging"),
        "println" | "print" | "eprintln" | "eprint" if makro && !prints => Some("output of a library"),
        _ => None,
    }
}

#[test]
fn code_holds_no_forbidden_words() {
    let mut wrong = vec![];
    for code in source::code() {
        for (at, token) in code.tokens.iter().enumerate() {
            if let Some(why) = forbidden(&code.path, &code.tokens, at) {
                wrong.push(format!("{}:{}: {} is {why}", code.path, token.line, token.text));
            }
        }
    }
    report(&wrong);
}

#[test]
fn unsafe_code_says_why_it_is_sound() {
    let mut wrong = vec![];
    for code in source::code() {
        let lines: Vec<&str> = code.text.lines().collect();
        for token in code.tokens.iter().filter(|t| t.text == "unsafe") {
            // The comment stands above the statement that the block is part of.
            let above = &lines[token.line.saturating_sub(6)..token.line];
            if !above.iter().any(|l| l.contains("SAFETY:") || l.contains("# Safety")) {
                wrong.push(format!("{}:{}: unsafe without a SAFETY comment", code.path, token.line));
            }
        }
    }
    report(&wrong);
}

/// A line of TypeScript without its comment. A `//` in a string, as in a URL, follows a colon.
fn without_comment(line: &str) -> &str {
    let trimmed = line.trim_start();
    if trimmed.starts_with('*') || trimmed.starts_with("/*") {
        return "";
    }
    let comment = line.match_indices("//").find(|(at, _)| !line[..*at].ends_with(':'));
    comment.map_or(line, |(at, _)| &line[..at])
}

#[test]
fn typescript_is_typed() {
    let mut wrong = vec![];
    for source in source::files(".", &[".ts", ".mts", ".tsx"]) {
        for (number, line) in source.text.lines().enumerate() {
            let place = format!("{}:{}", source.path, number + 1);
            for word in ["@ts-ignore", "@ts-nocheck", "eslint-disable"] {
                if line.contains(word) {
                    wrong.push(format!("{place}: {word}"));
                }
            }
            let code = without_comment(line);
            let mut words = code.split_inclusive(|c: char| !c.is_alphanumeric() && c != '_');
            let is_any = words.by_ref().any(|w| w.trim_end_matches(|c: char| !c.is_alphanumeric()) == "any");
            let typed = [": any", "as any", "<any", "| any", "any |", "any>", "any["];
            if is_any && typed.iter().any(|t| code.contains(t)) {
                wrong.push(format!("{place}: any"));
            }
        }
    }
    report(&wrong);
}

#[test]
fn files_have_one_subject() {
    let mut wrong = vec![];
    let sources = source::files(".", &[".rs", ".ts", ".mts", ".js", ".mjs", ".py", ".css"]);
    for source in &sources {
        let lines = source.text.lines().count();
        let allowed = LONG.iter().find(|(path, ..)| *path == source.path).map(|(_, lines, _)| *lines);
        match allowed {
            None if lines > MAX_LINES => wrong.push(format!("{}: {lines} lines: find its second subject", source.path)),
            Some(allowed) if lines > allowed => wrong.push(format!("{}: grew to {lines} lines", source.path)),
            Some(_) if lines <= MAX_LINES => wrong.push(format!("{}: short now: strike it from the list", source.path)),
            _ => {}
        }
    }
    for (path, ..) in LONG.iter().filter(|(path, ..)| !sources.iter().any(|s| s.path == *path)) {
        wrong.push(format!("{path}: is gone: strike it from the list"));
    }
    report(&wrong);
}

#[test]
fn nothing_names_a_folder_of_one_machine() {
    // Joined here, or this file would hold them.
    let folders =
        [["/wo", "rk/"], ["/ho", "me/"], ["/ro", "ot/"], ["/Us", "ers/"], ["/tmp", "/wt"], ["../sha", "red/"]];
    let mut wrong = vec![];
    for source in source::files(".", &["", "Dockerfile"]) {
        for (number, line) in source.text.lines().enumerate() {
            for folder in folders.iter().map(|f| f.concat()).filter(|f| line.contains(f)) {
                wrong.push(format!("{}:{}: {folder}", source.path, number + 1));
            }
        }
    }
    report(&wrong);
}
