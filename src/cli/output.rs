//! What commands print: results on standard output, notes, progress and errors on standard error.
//!
//! With `--json` standard output carries JSON lines only, the last of them the result or the error. Colours follow
//! `NO_COLOR`, `CLICOLOR` and whether a terminal reads them.

use std::io::Write;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use owo_colors::OwoColorize;
use serde::Serialize;

use crate::error::{Error, Kind, Result};

/// How to print.
#[derive(Debug, Clone, Copy)]
pub struct Output {
    json: bool,
    quiet: bool,
}

/// An error as `--json` prints it: `{"error": {…}}`.
#[derive(Serialize)]
struct JsonError<'a> {
    code: &'static str,
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    place: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    help: Option<&'a str>,
}

impl Output {
    pub(super) fn new(json: bool, quiet: bool) -> Self {
        Output { json, quiet }
    }

    /// Whether `--json` was given.
    pub fn is_json(&self) -> bool {
        self.json
    }

    /// Prints a result: `value` as one line of JSON, or `text` for people.
    pub fn result(&self, value: &impl Serialize, text: impl AsRef<str>) -> Result<()> {
        let line = if self.json {
            serde_json::to_string(value).map_err(|e| Error::new(Kind::Internal, e.to_string()))?
        } else {
            text.as_ref().trim_end().to_owned()
        };
        let mut out = anstream::stdout();
        match writeln!(out, "{line}").and_then(|()| out.flush()) {
            // Nobody reads any more, as in `nearside … | head`.
            Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
            other => other.map_err(|e| Error::new(Kind::Io, e.to_string()).at("standard output")),
        }
    }

    /// Prints a note for people on standard error.
    pub fn note(&self, text: impl AsRef<str>) {
        if !self.json && !self.quiet {
            // Nothing is left to tell the user where standard error is closed.
            let _ = writeln!(anstream::stderr(), "{}", text.as_ref());
        }
    }

    /// Prints an error.
    pub fn error(&self, error: &Error) {
        if self.json {
            let (code, message) = (error.kind().code(), error.message());
            let body = JsonError { code, message, place: error.place(), help: error.help_text() };
            // If even this cannot be printed, the exit code remains.
            let _ = self.result(&std::collections::BTreeMap::from([("error", body)]), "");
            return;
        }
        let mut err = anstream::stderr();
        let place = error.place().map(|place| format!("{}: ", place.bold())).unwrap_or_default();
        let code = format!("[{}]", error.kind().code());
        let _ = writeln!(err, "{} {place}{} {}", "error:".red().bold(), error.message(), code.dimmed());
        if let Some(help) = error.help_text() {
            let _ = writeln!(err, "  {} {help}", "help:".cyan().bold());
        }
    }

    /// A progress bar over `total` bytes, hidden with `--json`, `--quiet`, and where nobody looks.
    pub fn bytes(&self, message: &'static str, total: u64) -> ProgressBar {
        self.bar(message, total, "{msg:>10} [{bar:30}] {bytes}/{total_bytes} {bytes_per_sec} {eta}")
    }

    /// A progress bar over `total` steps.
    pub fn steps(&self, message: &'static str, total: u64) -> ProgressBar {
        self.bar(message, total, "{msg:>10} [{bar:30}] {pos}/{len}")
    }

    /// A spinner for what has no measure.
    pub fn spinner(&self, message: &'static str) -> ProgressBar {
        if self.json || self.quiet {
            return ProgressBar::hidden();
        }
        let spinner = ProgressBar::new_spinner().with_message(message);
        spinner.enable_steady_tick(Duration::from_millis(100));
        spinner
    }

    fn bar(&self, message: &'static str, total: u64, template: &str) -> ProgressBar {
        if self.json || self.quiet {
            return ProgressBar::hidden();
        }
        let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
        ProgressBar::new(total).with_style(style.progress_chars("=> ")).with_message(message)
    }
}
