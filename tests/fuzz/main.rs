//! Everything that parses bytes from outside, on damaged input: bits flipped, ends cut, pieces spliced, values replaced by
//! ones that are known to hurt. An input may be refused; it may not crash, take more than a gigabyte, or take long.
//!
//! `NEARSIDE_FUZZ_SECONDS` is how long each target runs, `NEARSIDE_FUZZ_SEED` repeats a run. A failure leaves its input in
//! `target/tmp/`; once it is mended, the input goes to `found/`, where every run begins. A stack overflow kills the process
//! before it can be told: with `NEARSIDE_FUZZ_KEEP=1` every input is written first.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod driver;
mod memory;
mod models;
mod mutate;
mod packages;

use nearside::error::Result;
use nearside::graph::{Graph, infer};
use nearside::onnx::{self, NoExternalData};
use nearside::plan::golden::Golden;
use nearside::plan::manifest::Manifest;
use nearside::plan::{self, Plan, resolve};

#[global_allocator]
static MEMORY: memory::Limited = memory::Limited;

fn read_and_infer(bytes: &[u8]) -> Result<Graph> {
    let mut graph = onnx::read(bytes, &NoExternalData)?;
    infer::infer(&mut graph)?;
    Ok(graph)
}

#[test]
fn onnx_files() {
    driver::bytes("onnx", &models::seeds(), models::WORDS, &|bytes| read_and_infer(bytes).map(drop));
}

/// Nodes with inputs and attributes that nobody would write.
#[test]
fn onnx_operators() {
    driver::made("operators", &|random| models::one_operator(random), &|bytes| read_and_infer(bytes).map(drop));
}

/// What the runtime does with a plan before anything runs.
fn use_plan(plan: &Plan) -> Result<()> {
    assert_eq!(plan::parse(&plan::serialize(plan)?)?, *plan, "a plan that was read comes back");
    let least = |shape: &[nearside::tensor::Dim]| -> Vec<usize> {
        shape.iter().map(|d| d.known().and_then(|n| usize::try_from(n).ok()).unwrap_or(1)).collect()
    };
    let shapes: Vec<Vec<usize>> = plan.inputs.iter().map(|p| least(&p.shape)).collect();
    let bindings = plan.bind(&shapes.iter().map(Vec::as_slice).collect::<Vec<_>>())?;
    for port in &plan.outputs {
        resolve(&port.shape, &bindings)?;
    }
    for candidate in plan.gpu.iter().flat_map(|gpu| &gpu.dispatches).flat_map(|d| &d.candidates) {
        resolve(&candidate.workgroups, &bindings)?;
    }
    Ok(())
}

#[test]
fn plans() {
    driver::bytes("plan", &packages::plans(), packages::WORDS, &|bytes| plan::parse(bytes).and_then(|p| use_plan(&p)));
}

#[test]
fn golden_outputs() {
    let plan = packages::plan();
    driver::bytes("golden", &packages::goldens(), packages::WORDS, &|bytes| {
        let golden = Golden::parse(bytes, &plan)?;
        golden.cases.iter().try_for_each(|case| golden.compare(&plan, case, &case.outputs))
    });
}

#[test]
fn manifests() {
    driver::bytes("manifest", &packages::manifests(), packages::JSON, &|bytes| {
        let manifest = Manifest::parse(bytes)?;
        assert_eq!(Manifest::parse(&manifest.to_json()?)?, manifest, "a manifest that was read comes back");
        for file in &manifest.files {
            let covered: u64 =
                (0..file.chunks.len()).map(|i| file.chunk_range(i).map_or(0, |range| range.end - range.start)).sum();
            assert_eq!(covered, file.size, "chunks cover the file");
        }
        Ok(())
    });
}
