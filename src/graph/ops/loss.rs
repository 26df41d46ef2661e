//! Losses: NegativeLogLikelihoodLoss, SoftmaxCrossEntropyLoss.

use super::rules::{absent, row, string};
use super::{Attr, Op};
use crate::error::{Error, Kind, Result};
use crate::graph::infer::{Infer, Type};
use crate::tensor::show;

const ATTRS: &[Attr] = &[absent("ignore_index"), string("reduction", "mean")];

pub(super) static ROWS: &[Op] = &[
    row("NegativeLogLikelihoodLoss", &[12, 13, 22], (2, 3), ATTRS, |i| Ok(vec![loss(i)?])),
    Op {
        name: "SoftmaxCrossEntropyLoss",
        since: &[12, 13],
        inputs: (2, 3),
        outputs: (1, 2),
        attrs: ATTRS,
        infer: |i| Ok(vec![loss(i)?, Type::new(i.dtype(0)?, i.shape(0)?.clone())]),
    },
];

fn loss(i: &Infer<'_>) -> Result<Type> {
    let (x, target) = (i.shape(0)?, i.shape(1)?);
    let weights = i.optional(2).map(|t| &t.shape);
    let fits = x.len() >= 2 && *target == [&x[..1], &x[2..]].concat() && weights.is_none_or(|w| w[..] == x[1..2]);
    if !fits {
        let weights = weights.map_or(String::new(), |w| format!(" and weights {}", show(w)));
        let what = format!("a loss of scores {}, labels {}{weights}", show(x), show(target));
        return Err(Error::new(Kind::InvalidShape, what));
    }
    let shape = match i.attrs.str("reduction")? {
        "none" => target.clone(),
        "mean" | "sum" => vec![],
        other => return Err(Error::new(Kind::InvalidModel, format!("attribute \"reduction\" is \"{other}\""))),
    };
    Ok(Type::new(i.dtype(0)?, shape))
}
