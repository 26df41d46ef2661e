//! Recurrent networks: RNN, GRU, LSTM.

use super::rules::{absent, int, string};
use super::{Attr, Op};
use crate::error::{Error, Kind, Result};
use crate::graph::Attrs;
use crate::graph::infer::{Infer, Type};
use crate::tensor::{Dim, Shape, show};

const ALPHA: Attr = absent("activation_alpha");
const BETA: Attr = absent("activation_beta");
const ACTIVATIONS: Attr = absent("activations");
const CLIP: Attr = absent("clip");
const DIRECTION: Attr = string("direction", "forward");
const SIZE: Attr = absent("hidden_size");
const LAYOUT: Attr = int("layout", 0);

pub(super) static ROWS: &[Op] = &[
    Op {
        name: "GRU",
        since: &[1, 3, 7, 14, 22],
        inputs: (3, 6),
        outputs: (0, 2),
        attrs: &[ALPHA, BETA, ACTIVATIONS, CLIP, DIRECTION, SIZE, LAYOUT, int("linear_before_reset", 0)],
        infer: |i| infer(i, 3),
    },
    Op {
        name: "LSTM",
        since: &[1, 7, 14, 22],
        inputs: (3, 8),
        outputs: (0, 3),
        attrs: &[ALPHA, BETA, ACTIVATIONS, CLIP, DIRECTION, SIZE, LAYOUT, int("input_forget", 0)],
        infer: |i| infer(i, 4),
    },
    Op {
        name: "RNN",
        since: &[1, 7, 14, 22],
        inputs: (3, 6),
        outputs: (0, 2),
        attrs: &[ALPHA, BETA, ACTIVATIONS, CLIP, DIRECTION, SIZE, LAYOUT],
        infer: |i| infer(i, 1),
    },
];

/// The sizes of a recurrent network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sizes {
    pub steps: Dim,
    pub batch: Dim,
    pub inputs: Dim,
    pub hidden: Dim,
    /// Which directions there are: whether each runs backwards.
    pub backwards: Vec<bool>,
    /// Whether the batch stands first (`layout` 1).
    pub batch_first: bool,
}

impl Sizes {
    /// Of input, weights and recurrent weights with that many gates.
    pub fn new(attrs: &Attrs, x: &[Dim], w: &[Dim], r: &[Dim], gates: i64) -> Result<Self> {
        let backwards = match attrs.str("direction")? {
            "forward" => vec![false],
            "reverse" => vec![true],
            "bidirectional" => vec![false, true],
            other => return Err(Error::new(Kind::InvalidModel, format!("attribute \"direction\" is \"{other}\""))),
        };
        let bad = || {
            let what = format!(
                "input {}, weights {}, recurrent weights {} in {} directions",
                show(x),
                show(w),
                show(r),
                backwards.len()
            );
            Error::new(Kind::InvalidShape, what)
        };
        let ([a, b, inputs], [directions, rows, columns], [_, _, hidden]) = (x, w, r) else { return Err(bad()) };
        let all = hidden.mul(&Dim::from(gates));
        let fits = directions.known() == i64::try_from(backwards.len()).ok()
            && (columns, rows) == (inputs, &all)
            && r == [directions.clone(), all.clone(), hidden.clone()];
        let stated = attrs.get("hidden_size").is_none() || hidden.is(attrs.int("hidden_size")?);
        if !fits || !stated {
            return Err(bad());
        }
        let batch_first = attrs.flag("layout")?;
        let (steps, batch) = if batch_first { (b, a) } else { (a, b) };
        Ok(Sizes {
            steps: steps.clone(),
            batch: batch.clone(),
            inputs: inputs.clone(),
            hidden: hidden.clone(),
            backwards,
            batch_first,
        })
    }

    /// The shape of a state of every direction.
    pub fn state(&self) -> Shape {
        let d = Dim::from(self.backwards.len());
        if self.batch_first {
            vec![self.batch.clone(), d, self.hidden.clone()]
        } else {
            vec![d, self.batch.clone(), self.hidden.clone()]
        }
    }

    /// The shape of all states of every direction.
    pub fn sequence(&self) -> Shape {
        let d = Dim::from(self.backwards.len());
        if self.batch_first {
            vec![self.batch.clone(), self.steps.clone(), d, self.hidden.clone()]
        } else {
            vec![self.steps.clone(), d, self.batch.clone(), self.hidden.clone()]
        }
    }
}

fn infer(i: &Infer<'_>, gates: i64) -> Result<Vec<Type>> {
    let s = Sizes::new(i.attrs, i.shape(0)?, i.shape(1)?, i.shape(2)?, gates)?;
    let d = Dim::from(s.backwards.len());
    let wanted: [(usize, Shape); 5] = [
        (3, vec![d.clone(), s.hidden.mul(&Dim::from(gates * 2))]),
        (4, vec![s.batch.clone()]),
        (5, s.state()),
        (6, s.state()),
        (7, vec![d, s.hidden.mul(&Dim::from(3))]),
    ];
    for (n, want) in wanted {
        if let Some(t) = i.optional(n)
            && t.shape != want
        {
            let what = format!("input {n} has shape {} where {} is needed", show(&t.shape), show(&want));
            return Err(Error::new(Kind::InvalidShape, what));
        }
    }
    let dtype = i.dtype(0)?;
    Ok(vec![Type::new(dtype, s.sequence()), Type::new(dtype, s.state()), Type::new(dtype, s.state())])
}
