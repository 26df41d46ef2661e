//! Runs a target on input after input, and keeps those that show something new.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Once;
use std::time::{Duration, Instant, SystemTime};

use nearside::error::Result;

use crate::memory;
use crate::mutate::{Random, damage};

/// The longest time that an input may take. Generous, because tests run beside each other on slow machines.
const PATIENCE: Duration = Duration::from_secs(5);

/// How many inputs are kept to damage further.
const KEPT: usize = 512;

/// After so many different failures a run ends.
const ENOUGH: usize = 12;

type Target<'a> = &'a dyn Fn(&[u8]) -> Result<()>;

thread_local! {
    static CURRENT: RefCell<(&'static str, Vec<u8>)> = const { RefCell::new(("", Vec::new())) };
    static RUNNING: Cell<bool> = const { Cell::new(false) };
    static PANIC: RefCell<String> = const { RefCell::new(String::new()) };
}

fn seconds() -> Duration {
    let text = std::env::var("NEARSIDE_FUZZ_SECONDS").unwrap_or_else(|_| "3".into());
    Duration::from_secs_f64(text.parse().unwrap_or_else(|_| panic!("NEARSIDE_FUZZ_SECONDS={text} is no number")))
}

fn seed() -> u64 {
    match std::env::var("NEARSIDE_FUZZ_SEED") {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("NEARSIDE_FUZZ_SEED={text} is no number")),
        Err(_) => SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(1, |t| t.as_micros() as u64),
    }
}

fn file(name: &str, number: usize) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("fuzz-{name}-{number}"))
}

/// Writes the input that runs now to a file and says what it does. For failures that end the process.
pub(crate) fn tell(what: &dyn fmt::Display) {
    CURRENT.with_borrow(|(name, bytes)| {
        let path = file(name, 0);
        let kept = std::fs::write(&path, bytes).is_ok();
        // Not a macro: the test harness holds back what those print, and the process ends.
        let _ = writeln!(std::io::stderr(), "fuzz {name}: {what}; input in {} ({kept})", path.display());
    });
}

/// Where a panic happened: of our own code, also where the standard library raised it.
fn place(location: Option<&std::panic::Location<'_>>) -> String {
    let place = location.map_or_else(String::new, ToString::to_string);
    if !place.starts_with("/rustc/") {
        return place;
    }
    let trace = std::backtrace::Backtrace::force_capture().to_string();
    let ours = trace.lines().find(|l| l.contains("at ./src/") || l.contains("/src/graph/") || l.contains("/src/onnx/"));
    ours.map_or(place, |l| l.trim().trim_start_matches("at ").to_owned())
}

/// Panics of inputs are counted, not printed.
fn hook() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if RUNNING.get() {
                let place = place(info.location());
                let what = info.payload_as_str().unwrap_or("a panic").to_owned();
                PANIC.set(format!("{place}: {what}"));
            } else {
                usual(info);
            }
        }));
    });
}

/// The text without numbers and quoted names: two inputs with the same are refused for the same reason.
fn reason(text: &str) -> String {
    let mut quoted = false;
    let keep = |c: &char| {
        quoted ^= *c == '"';
        !quoted && !c.is_ascii_digit()
    };
    text.chars().filter(keep).take(200).collect()
}

struct Run<'a> {
    name: &'static str,
    target: Target<'a>,
    keep: bool,
    /// Reasons and results that were seen.
    seen: BTreeSet<String>,
    /// Failure → file with the first input that shows it.
    failures: BTreeMap<String, PathBuf>,
    inputs: u64,
    accepted: u64,
}

impl<'a> Run<'a> {
    fn new(name: &'static str, target: Target<'a>) -> Self {
        hook();
        let keep = std::env::var_os("NEARSIDE_FUZZ_KEEP").is_some();
        let mut run =
            Run { name, target, keep, seen: BTreeSet::new(), failures: BTreeMap::new(), inputs: 0, accepted: 0 };
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/found").join(name);
        for entry in std::fs::read_dir(folder).into_iter().flatten() {
            run.input(&std::fs::read(entry.unwrap().path()).unwrap());
        }
        run
    }

    /// Runs one input; whether it showed something new.
    fn input(&mut self, bytes: &[u8]) -> bool {
        self.inputs += 1;
        CURRENT.with_borrow_mut(|(name, current)| {
            *name = self.name;
            current.clear();
            current.extend_from_slice(bytes);
        });
        if self.keep {
            std::fs::write(file(self.name, 0), bytes).unwrap();
        }
        let start = Instant::now();
        RUNNING.set(true);
        let result = memory::limited(|| {
            catch_unwind(AssertUnwindSafe(|| (self.target)(bytes).map_err(|e| reason(&format!("{:?} {e}", e.kind())))))
        });
        RUNNING.set(false);
        let failure = match &result {
            Err(_) => Some(PANIC.take()),
            Ok(_) if start.elapsed() > PATIENCE => Some("slow".to_owned()),
            Ok(_) => None,
        };
        if let Some(what) = failure {
            let number = self.failures.len() + 1;
            self.failures.entry(reason_of_panic(&what)).or_insert_with(|| {
                let path = file(self.name, number);
                std::fs::write(&path, bytes).unwrap();
                path
            });
            return false;
        }
        match result {
            Ok(Ok(())) => {
                self.accepted += 1;
                self.accepted.is_multiple_of(64)
            }
            Ok(Err(reason)) => self.seen.insert(reason),
            Err(_) => false,
        }
    }

    fn done(&self, until: Instant) -> bool {
        Instant::now() >= until || self.failures.len() >= ENOUGH
    }

    fn end(self, seed: u64) {
        let Run { name, inputs, accepted, .. } = self;
        println!("fuzz {name}: {inputs} inputs, {accepted} accepted, {} reasons, seed {seed}", self.seen.len());
        let list: Vec<String> =
            self.failures.iter().map(|(what, file)| format!("{what}\n  {}", file.display())).collect();
        assert!(list.is_empty(), "seed {seed}:\n{}", list.join("\n"));
        assert!(inputs > 20, "only {inputs} inputs were tried");
    }
}

/// A panic's place, and its message without what depends on the input.
fn reason_of_panic(what: &str) -> String {
    match what.split_once(": ") {
        Some((place, message)) => format!("{place}: {}", reason(message)),
        None => what.to_owned(),
    }
}

/// Damages the seeds. Every seed is valid, and is cut at every byte first.
pub(crate) fn bytes(name: &'static str, seeds: &[Vec<u8>], words: &[&[u8]], target: Target<'_>) {
    let number = seed();
    let mut run = Run::new(name, target);
    for seed in seeds {
        let result = target(seed);
        assert!(result.is_ok(), "a seed is refused: {}", result.unwrap_err());
    }
    let until = Instant::now() + seconds();
    'cuts: for seed in seeds {
        for end in 0..seed.len() {
            run.input(&seed[..end]);
            if run.done(until) {
                break 'cuts;
            }
        }
    }
    let mut random = Random::new(number);
    let mut kept = seeds.to_vec();
    while !run.done(until) {
        let other = random.pick(&kept).clone();
        let mut input = random.pick(&kept).clone();
        damage(&mut input, &other, words, &mut random);
        if run.input(&input) {
            if kept.len() < KEPT {
                kept.push(input);
            } else {
                let at = seeds.len() + random.below(KEPT - seeds.len());
                kept[at] = input;
            }
        }
    }
    run.end(number);
}

/// Makes every input anew.
pub(crate) fn made(name: &'static str, make: &dyn Fn(&mut Random) -> Vec<u8>, target: Target<'_>) {
    let number = seed();
    let mut run = Run::new(name, target);
    let until = Instant::now() + seconds();
    let mut random = Random::new(number);
    while !run.done(until) {
        let input = make(&mut random);
        run.input(&input);
    }
    run.end(number);
}
