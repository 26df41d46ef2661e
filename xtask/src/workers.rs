//! A pool of child processes that answer one line with one line. One that crashes or hangs costs its own line only.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use anyhow::{Context, Result};

/// Sends each of `lines` to one of `count` children that `start` makes, and hands each answer, or what went wrong, to
/// `answered` with the line's index.
pub(crate) fn map(
    lines: &[String],
    count: usize,
    limit: Duration,
    start: impl Fn() -> Command + Sync,
    answered: impl Fn(usize, Result<String, String>) + Sync,
) -> Result<()> {
    let next = Mutex::new(0..lines.len());
    let take = || next.lock().ok().and_then(|mut next| next.next());
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..count)
            .map(|_| {
                scope.spawn(|| -> Result<()> {
                    let mut worker: Option<Worker> = None;
                    while let Some(index) = take() {
                        let mut ready = match worker.take() {
                            Some(worker) => worker,
                            None => Worker::start(start())?,
                        };
                        let answer = ready.ask(&lines[index], limit);
                        if answer.is_ok() {
                            worker = Some(ready);
                        } else {
                            ready.stop();
                        }
                        answered(index, answer);
                    }
                    if let Some(worker) = worker {
                        worker.stop();
                    }
                    Ok(())
                })
            })
            .collect();
        threads
            .into_iter()
            .try_for_each(|thread| thread.join().unwrap_or_else(|_| anyhow::bail!("a worker thread died")))
    })
}

struct Worker {
    child: Child,
    input: ChildStdin,
    output: Receiver<String>,
}

impl Worker {
    fn start(mut command: Command) -> Result<Self> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("cannot start {}", command.get_program().display()))?;
        let input = child.stdin.take().context("no standard input")?;
        let pipe = child.stdout.take().context("no standard output")?;
        let (sender, output) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(pipe).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Ok(Worker { child, input, output })
    }

    fn ask(&mut self, line: &str, limit: Duration) -> Result<String, String> {
        let crashed = |child: &mut Child| match child.wait() {
            Ok(status) => format!("crashed ({status})"),
            Err(error) => format!("crashed ({error})"),
        };
        if writeln!(self.input, "{line}").and_then(|()| self.input.flush()).is_err() {
            return Err(crashed(&mut self.child));
        }
        match self.output.recv_timeout(limit) {
            Ok(answer) => Ok(answer),
            Err(RecvTimeoutError::Timeout) => Err(format!("took longer than {} s", limit.as_secs())),
            Err(RecvTimeoutError::Disconnected) => Err(crashed(&mut self.child)),
        }
    }

    fn stop(mut self) {
        // It holds nothing that would have to be saved; an error means that it has ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
