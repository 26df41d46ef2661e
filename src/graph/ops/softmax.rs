//! The softmax family (ai.onnx). Before opset 13 the data was seen as a matrix whose rows are the axes before `axis`; the
//! importer marks that by the internal attribute `coerce`.
//!
//! Hardmax LogSoftmax Softmax

use super::Op;
use super::rules::{axis, int, row, same};
use crate::graph::attrs::{Attr, Default};

const ATTRS: &[Attr] = &[int("axis", -1), Attr { name: "coerce", default: Default::Internal(0) }];

pub(super) const ROWS: &[Op] = &[
    row("Hardmax", &[1, 11, 13], (1, 1), ATTRS, infer),
    row("LogSoftmax", &[1, 11, 13], (1, 1), ATTRS, infer),
    row("Softmax", &[1, 11, 13], (1, 1), ATTRS, infer),
];

fn infer(i: &super::Infer<'_>) -> crate::error::Result<Vec<super::Type>> {
    let rank = i.shape(0)?.len();
    // As a matrix, an axis equal to the rank means columns of one element.
    let past = i.attrs.flag("coerce")? && usize::try_from(i.attrs.int("axis")?) == Ok(rank);
    if !past && rank > 0 {
        axis(i.attrs.int("axis")?, rank)?;
    }
    same(i)
}
