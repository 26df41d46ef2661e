//! Spinners and bars on standard error. Standard output carries results only.

use std::sync::LazyLock;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

/// All bars on the screen: builds run beside each other.
static BARS: LazyLock<MultiProgress> = LazyLock::new(MultiProgress::new);

/// A spinner that says what is being done; finish it with [`done`].
pub(crate) fn spinner(message: impl Into<String>) -> ProgressBar {
    let bar = BARS.add(ProgressBar::new_spinner());
    if let Ok(style) = ProgressStyle::with_template("{spinner:.cyan} {prefix} {wide_msg:.dim} {elapsed:.dim}") {
        bar.set_style(style);
    }
    bar.set_prefix(message.into());
    bar.enable_steady_tick(Duration::from_millis(120));
    bar
}

/// A bar over `total` steps.
pub(crate) fn bar(message: impl Into<String>, total: u64) -> ProgressBar {
    let bar = BARS.add(ProgressBar::new(total));
    let template = "{prefix} {bar:30.cyan/dim} {pos}/{len} {wide_msg:.dim} {elapsed:.dim}";
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.progress_chars("━━─"));
    }
    bar.set_prefix(message.into());
    bar
}

/// Ends a spinner or bar with one line that stays, also where standard error is not a terminal.
pub(crate) fn done(bar: &ProgressBar) {
    let seconds = bar.elapsed().as_secs_f64();
    let line = format!("✓ {} ({seconds:.1} s)", bar.prefix());
    bar.finish_and_clear();
    BARS.suspend(|| eprintln!("{line}"));
}
