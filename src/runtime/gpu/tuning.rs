//! Choosing among a plan's candidates by timing them on the adapter at hand.

use super::platform;
use super::session::{GpuSession, Pipelines, gpu_plan, workgroups};
use super::signal::Signal;
use crate::error::{Error, Kind, Result};
use crate::plan::{Candidate, Dispatch, GpuPlan, Role};
use crate::tensor::Bindings;
use std::sync::Arc;

/// How often each candidate runs for one time, and how many times are taken.
const REPEATS: usize = 4;
const ROUNDS: usize = 3;

impl GpuSession {
    /// Times the candidates of each distinct dispatch, takes the fastest of each, and returns what was chosen, for
    /// [`GpuSession::new`]. On a software adapter the defaults are the fastest, and nothing is timed; neither is anything
    /// before the first run, whose dims are those that count. `wgsl` is the package's `model.wgsl`. What buffers hold
    /// between runs is lost.
    pub async fn tune(&mut self, wgsl: &str) -> Result<Vec<u32>> {
        if !self.gpu.info().software && self.bound.is_some() {
            self.time_candidates(wgsl).await?;
        }
        Ok(self.choice.clone())
    }

    /// Times all candidates, whatever the adapter.
    pub(super) async fn time_candidates(&mut self, wgsl: &str) -> Result<()> {
        let plan = Arc::clone(&self.plan);
        let g = gpu_plan(&plan)?;
        let open: Vec<&Candidate> =
            g.dispatches.iter().filter(|d| d.candidates.len() > 1).flat_map(|d| &d.candidates).collect();
        if open.is_empty() {
            return Ok(());
        }
        let bound = self.bound.iter().flatten().map(|n| i64::from(*n));
        let bindings: Bindings = plan.dims.iter().map(|d| d.name.clone()).zip(bound).collect();
        let scope = self.gpu.device.push_error_scope(wgpu::ErrorFilter::Validation);
        let pipelines = self.pipelines(wgsl, &open).await?;
        let choice = self.fastest(g, &pipelines, &bindings).await;
        if let Some(e) = scope.pop().await {
            self.gpu.check()?;
            return Err(Error::new(Kind::Internal, format!("the GPU refuses the model's other shaders: {e}")));
        }
        for (i, (n, d)) in choice?.into_iter().zip(&g.dispatches).enumerate() {
            if let (Some(c), true) = (d.candidates.get(n as usize), d.candidates.len() > 1) {
                self.steps[i] = self.step(&pipelines, c)?;
                self.choice[i] = n;
            }
        }
        self.stats.tuned = self.choice.iter().filter(|c| **c > 0).count();
        Ok(())
    }

    /// The fastest candidate of every dispatch.
    async fn fastest(&self, g: &GpuPlan, pipelines: &Pipelines, bindings: &Bindings) -> Result<Vec<u32>> {
        let mut known: Vec<(&Dispatch, u32)> = vec![];
        let mut choice = vec![];
        for d in &g.dispatches {
            let before = known.iter().find(|(other, _)| same_work(g, d, other)).map(|(_, n)| *n);
            let n = match before {
                Some(n) => n,
                None if d.candidates.len() < 2 => 0,
                None => {
                    let mut best = (f64::INFINITY, 0);
                    for (n, c) in (0u32..).zip(&d.candidates) {
                        let ms = self.time(pipelines, c, bindings).await?;
                        if ms < best.0 {
                            best = (ms, n);
                        }
                    }
                    known.push((d, best.1));
                    best.1
                }
            };
            choice.push(n);
        }
        Ok(choice)
    }

    /// Milliseconds of a candidate, the least of some.
    async fn time(&self, pipelines: &Pipelines, c: &Candidate, bindings: &Bindings) -> Result<f64> {
        let step = self.step(pipelines, c)?;
        let size = workgroups(c, bindings)?;
        let mut best = f64::INFINITY;
        for round in 0..=ROUNDS {
            let mut encoder = self.gpu.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
            let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
            for _ in 0..REPEATS {
                step.dispatch(&mut pass, size);
            }
            drop(pass);
            let begin = platform::now();
            self.gpu.queue.submit([encoder.finish()]);
            let done = Signal::new();
            let callback = done.clone();
            self.gpu.queue.on_submitted_work_done(move || callback.send(()));
            platform::settle(&self.gpu.device).or_else(|e| self.gpu.check().and(Err(e)))?;
            done.await;
            self.gpu.check()?;
            // The first round is for the caches.
            if round > 0 {
                best = best.min((platform::now() - begin) / REPEATS as f64);
            }
        }
        Ok(best)
    }
}

/// Whether two dispatches run the same shaders at the same sizes, so that one time serves both.
fn same_work(g: &GpuPlan, a: &Dispatch, b: &Dispatch) -> bool {
    let numbers = |c: &Candidate| {
        let of = |b: &&crate::plan::Binding| {
            g.buffers.get(b.buffer as usize).is_some_and(|buffer| buffer.role == Role::Numbers)
        };
        c.bindings.iter().find(of).copied()
    };
    a.candidates.len() == b.candidates.len()
        && a.candidates
            .iter()
            .zip(&b.candidates)
            .all(|(a, b)| a.shader == b.shader && a.workgroups == b.workgroups && numbers(a) == numbers(b))
}
