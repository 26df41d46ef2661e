//! Control flow: If, Loop, Scan. Types go through their bodies, which is done by inference itself.

use super::Op;
use super::rules::{MANY, absent, required};
use crate::error::{Error, Kind, Result};
use crate::graph::attrs::{Attr, Default};
use crate::graph::infer::{Infer, Type};

/// A body.
const fn graph(name: &'static str) -> Attr {
    Attr { name, default: Default::Graph }
}

/// A node of these operators always has a body, so that this rule is only asked where a pass has lost it.
fn from_bodies(_: &Infer<'_>) -> Result<Vec<Type>> {
    Err(Error::new(Kind::Internal, "a control-flow node has lost its body"))
}

pub const ROWS: &[Op] = &[
    // https://onnx.ai/onnx/operators/onnx__If.html
    Op {
        name: "If",
        since: &[1, 11, 13, 16, 19, 21, 23],
        inputs: (1, 1),
        outputs: (1, MANY),
        attrs: &[graph("then_branch"), graph("else_branch")],
        infer: from_bodies,
    },
    // https://onnx.ai/onnx/operators/onnx__Loop.html
    Op {
        name: "Loop",
        since: &[1, 11, 13, 16, 19, 21, 23],
        inputs: (0, MANY),
        outputs: (1, MANY),
        attrs: &[graph("body")],
        infer: from_bodies,
    },
    // https://onnx.ai/onnx/operators/onnx__Scan.html
    Op {
        name: "Scan",
        since: &[8, 9, 11, 16, 19, 21, 23],
        inputs: (1, MANY),
        outputs: (1, MANY),
        attrs: &[
            graph("body"),
            required("num_scan_inputs"),
            absent("scan_input_axes"),
            absent("scan_input_directions"),
            absent("scan_output_axes"),
            absent("scan_output_directions"),
        ],
        infer: from_bodies,
    },
];
