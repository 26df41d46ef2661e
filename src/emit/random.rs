//! Random models through both emitters, against the naive evaluator.
//!
//! A model is made from a list of small numbers ([`maker`]), so that a failure shrinks to few and simple steps. Every
//! value carries a bound of how far two targets may be apart, which follows from the operators that computed it
//! ([`bounds`]); where all of them are exact it is 0. Outputs must agree within it: atol is that bound, rtol is 0.
//!
//! The seed is fixed. `NEARSIDE_SEED` gives another one, `NEARSIDE_CASES` another number of models.

// Tests say what they expect by failing. Clippy knows them by a plain `cfg(test)` only, and this is built with a feature.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod bounds;
mod folds;
mod maker;
mod terms;
mod views;

use super::{wasm, wgsl};
use crate::emit::wasm::Variant;
use crate::kernel::reference::evaluate;
use crate::kernel::{AttentionAs, Form, Fusion, Schedule, fuse, schedule};
use crate::tensor::Array;
use maker::{Model, Recipe};
use proptest::test_runner::{Config, RngSeed, TestCaseError, TestError, TestRunner};
use std::cell::RefCell;
use std::collections::BTreeMap;

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).ok().and_then(|n| n.parse().ok()).unwrap_or(default)
}

/// Makes models, runs each and compares every output.
fn search(cases: u64, run: impl Fn(&Model) -> Vec<(String, Vec<Array>)>) {
    let mut runner = TestRunner::new(Config {
        cases: number("NEARSIDE_CASES", cases) as u32,
        rng_seed: RngSeed::Fixed(number("NEARSIDE_SEED", 1)),
        failure_persistence: None,
        max_shrink_iters: 200,
        ..Config::default()
    });
    let result = runner.run(&maker::recipes(), |recipe: Recipe| {
        let model = maker::make(&recipe);
        let all = evaluate(&model.values, &model.inputs, &model.dims)
            .map_err(|e| TestCaseError::fail(format!("the evaluator refuses: {e}")))?;
        for (target, outputs) in run(&model) {
            for (i, (o, got)) in model.outputs.iter().zip(&outputs).enumerate() {
                let wrong = difference(got, &all[o.id.0 as usize], o.bounds.error);
                if let Some(wrong) = wrong {
                    return Err(TestCaseError::fail(format!("{target}, output {i}: {wrong}")));
                }
            }
        }
        Ok(())
    });
    match result {
        Ok(()) => {}
        Err(TestError::Fail(why, recipe)) => {
            let model = maker::make(&recipe);
            panic!("{why}\n{recipe:?}\n{}", model.steps.join("\n"));
        }
        Err(e) => panic!("{e}"),
    }
}

/// What tells the two apart, where the difference is more than `atol`.
fn difference(got: &Array, want: &Array, atol: f64) -> Option<String> {
    if (got.dtype(), got.shape()) != (want.dtype(), want.shape()) {
        return Some(format!("{} {:?}, not {} {:?}", got.dtype(), got.shape(), want.dtype(), want.shape()));
    }
    match (got.to_f64(), want.to_f64()) {
        (Some(g), Some(w)) => {
            let same = |g: f64, w: f64| g == w || (g - w).abs() <= atol || (g.is_nan() && w.is_nan());
            let i = g.iter().zip(&w).position(|(g, w)| !same(*g, *w))?;
            Some(format!("element {i} of {:?} is {}, not {}, atol {atol:e}", got.shape(), g[i], w[i]))
        }
        _ => {
            let (g, w) = (got.to_i64().unwrap_or_default(), want.to_i64().unwrap_or_default());
            let i = g.iter().zip(&w).position(|(g, w)| g != w)?;
            Some(format!("element {i} of {:?} is {}, not {}", got.shape(), g[i], w[i]))
        }
    }
}

/// Counts the kernels of a schedule by what they are.
fn count(s: &Schedule, kinds: &mut BTreeMap<&str, u32>) {
    for k in &s.kernels {
        let kind = match k.form {
            Form::Loops => "loops",
            Form::Contract(_) => "contraction",
            Form::Attention(_) => "attention",
            Form::Program(_) => "program",
        };
        *kinds.entry(kind).or_default() += 1;
    }
}

#[test]
fn the_models_are_of_all_kinds() {
    let kinds = RefCell::new(BTreeMap::new());
    search(250, |model| {
        let mut values = model.values.clone();
        let outputs = model.output_ids();
        let stored = fuse(&mut values, &outputs, Fusion::On);
        count(&schedule(&mut values, &stored, &outputs, AttentionAs::One), &mut kinds.borrow_mut());
        vec![]
    });
    let kinds = kinds.into_inner();
    for (kind, least) in [("loops", 200), ("contraction", 50), ("attention", 10), ("program", 10)] {
        assert!(kinds.get(kind).is_some_and(|n| *n >= least), "{kind}: fewer than {least} in {kinds:?}");
    }
}

#[test]
fn wasm_agrees_with_the_evaluator() {
    search(250, |model| {
        let mut all = vec![];
        for fusion in [Fusion::On, Fusion::Off] {
            let mut values = model.values.clone();
            let outputs = model.output_ids();
            let stored = fuse(&mut values, &outputs, fusion);
            let s = schedule(&mut values, &stored, &outputs, AttentionAs::Three);
            for variant in [Variant::Simd, Variant::Relaxed, Variant::Threads] {
                let got = wasm::tests::run(&values, &s, variant, &model.inputs, &model.dims);
                all.push((format!("wasm, fusion {fusion:?}, {variant:?}"), got));
            }
        }
        all
    });
}

#[test]
fn wgsl_agrees_with_the_evaluator() {
    search(120, |model| {
        let each = [(0, Fusion::On), (1, Fusion::On), (0, Fusion::Off)];
        let run = |(which, fusion)| {
            let mut values = model.values.clone();
            let outputs = model.output_ids();
            let ran = wgsl::testing::run(&mut values, &outputs, &model.inputs, &model.dims, fusion, which);
            assert!(!ran.overflow, "overflow");
            (format!("wgsl, fusion {fusion:?}, candidate {which}"), ran.outputs)
        };
        each.map(run).into()
    });
}
