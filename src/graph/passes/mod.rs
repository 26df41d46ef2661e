//! Rewrites of the graph: folding, dead code, common subexpressions, pattern fusion. Each keeps the names at the interface
//! and leaves a graph with inferred types.

mod batch_norm;
mod bias;
mod common;
mod dead;
mod edit;
mod fold;
mod identity;
mod inline;
mod projections;
mod scales;
mod unroll;

pub use batch_norm::batch_norm;
pub use bias::bias;
pub use common::common_subexpressions;
pub use dead::dead_code;
pub use fold::{Evaluate, fold};
pub use identity::identities;
pub use inline::inline_ifs;
pub use projections::projections;
pub use scales::scales;
pub use unroll::{select_ifs, unroll};

use super::Graph;
use super::infer::infer;
use crate::error::Result;

/// Infers types and applies what a graph needs before it can be lowered: branches that are never taken go, other branches
/// are selected between, loops are written out, what nothing reads goes.
pub fn required(graph: &mut Graph) -> Result<()> {
    loop {
        let inferred = infer(graph);
        let unrolled = unroll(graph)?;
        let inlined = inferred.is_ok() && !unrolled && (inline_ifs(graph)? || select_ifs(graph)?);
        if !unrolled && !inlined {
            inferred?;
            break;
        }
    }
    dead_code(graph);
    Ok(())
}

/// Infers types and applies every pass, in an order in which each finds what the ones before it leave. `evaluate` computes
/// constants.
pub fn run(graph: &mut Graph, evaluate: &dyn Evaluate) -> Result<()> {
    required(graph)?;
    identities(graph);
    common_subexpressions(graph);
    // Before folding, which would make the weights of small layers floats.
    scales(graph)?;
    fold(graph, evaluate)?;
    // A bias between a product and its normalization goes first.
    bias(graph)?;
    fold(graph, evaluate)?;
    batch_norm(graph)?;
    bias(graph)?;
    projections(graph)?;
    identities(graph);
    common_subexpressions(graph);
    fold(graph, evaluate)?;
    dead_code(graph);
    Ok(())
}
