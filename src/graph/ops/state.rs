//! Operators that hand a state from call to call: CausalConvWithState, LinearAttention.

use super::Op;
use super::rules::{absent, float, rank, required, string};
use crate::error::{Error, Kind, Result};
use crate::graph::Attrs;
use crate::graph::infer::{Infer, Type};
use crate::tensor::{Dim, Shape, show};

pub(super) static ROWS: &[Op] = &[
    Op {
        name: "CausalConvWithState",
        since: &[27],
        inputs: (2, 4),
        outputs: (1, 2),
        attrs: &[string("activation", "none")],
        infer: causal_conv,
    },
    Op {
        name: "LinearAttention",
        since: &[27],
        inputs: (3, 6),
        outputs: (1, 2),
        attrs: &[
            absent("chunk_size"),
            required("kv_num_heads"),
            required("q_num_heads"),
            float("scale", 0.0),
            string("update_rule", "gated_delta"),
        ],
        infer: linear_attention,
    },
];

fn causal_conv(i: &Infer<'_>) -> Result<Vec<Type>> {
    let (x, w) = (i.shape(0)?, i.shape(1)?);
    rank("the input", x, 3)?;
    rank("the weights", w, 3)?;
    let state: Shape = vec![x[0].clone(), x[1].clone(), w[2].sub(&Dim::from(1))];
    let bad = w[0] != x[1]
        || !w[1].is(1)
        || i.optional(2).is_some_and(|b| b.shape != x[1..2])
        || i.optional(3).is_some_and(|s| s.shape != state);
    if bad {
        let what = format!("a causal convolution of {} with weights {}, bias or state", show(x), show(w));
        return Err(Error::new(Kind::InvalidShape, what).help(format!("the state has shape {}", show(&state))));
    }
    let dtype = i.dtype(0)?;
    Ok(vec![Type::new(dtype, x.clone()), Type::new(dtype, state)])
}

/// The sizes of a linear attention.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sizes {
    pub q_heads: i64,
    pub kv_heads: i64,
    /// Elements of a key, and of a value.
    pub key: Dim,
    pub value: Dim,
}

impl Sizes {
    /// Of queries, keys and values `[batch, sequence, heads · size]`.
    pub fn new(attrs: &Attrs, q: &[Dim], k: &[Dim], v: &[Dim]) -> Result<Self> {
        let (q_heads, kv_heads) = (attrs.int("q_num_heads")?, attrs.int("kv_num_heads")?);
        let heads = (1..=1 << 20).contains(&q_heads) && (1..=1 << 20).contains(&kv_heads) && q_heads % kv_heads == 0;
        let fits = heads && q.len() == 3 && k.len() == 3 && v.len() == 3 && q[..2] == k[..2] && k[..2] == v[..2];
        let sizes = fits.then(|| {
            let size = |x: &Dim, heads: i64| x.div_exact(&Dim::from(heads));
            Some((size(&q[2], q_heads)?, size(&k[2], kv_heads)?, size(&v[2], kv_heads)?))
        });
        match sizes.flatten() {
            Some((a, key, value)) if a == key => Ok(Sizes { q_heads, kv_heads, key, value }),
            _ => {
                let what = format!(
                    "attention of {} to {} and {} with {q_heads} and {kv_heads} heads",
                    show(q),
                    show(k),
                    show(v)
                );
                Err(Error::new(Kind::InvalidShape, what))
            }
        }
    }
}

fn linear_attention(i: &Infer<'_>) -> Result<Vec<Type>> {
    let (q, k, v) = (i.shape(0)?, i.shape(1)?, i.shape(2)?);
    let s = Sizes::new(i.attrs, q, k, v)?;
    let heads = Dim::from(s.kv_heads);
    let state: Shape = vec![q[0].clone(), heads.clone(), s.key.clone(), s.value.clone()];
    let (gated, delta) = match i.attrs.str("update_rule")? {
        "linear" => (false, false),
        "gated" => (true, false),
        "delta" => (false, true),
        "gated_delta" => (true, true),
        other => return Err(Error::new(Kind::InvalidModel, format!("attribute \"update_rule\" is \"{other}\""))),
    };
    if gated != i.optional(4).is_some() || delta != i.optional(5).is_some() {
        let what = "decay goes with the gated update rules, beta with those of delta, and neither with others";
        return Err(Error::new(Kind::InvalidModel, what));
    }
    let beside = |n: usize, last: [Dim; 2]| match i.optional(n) {
        Some(t) => t.shape.len() == 3 && t.shape[..2] == q[..2] && last.contains(&t.shape[2]),
        None => true,
    };
    let fits = beside(4, [heads.clone(), heads.mul(&s.key)])
        && beside(5, [heads, Dim::from(1)])
        && i.optional(3).is_none_or(|t| t.shape == state);
    if !fits {
        let what = format!("state, decay or beta of an attention whose state has shape {}", show(&state));
        return Err(Error::new(Kind::InvalidShape, what));
    }
    let dtype = i.dtype(0)?;
    let y = vec![q[0].clone(), q[1].clone(), s.value.mul(&Dim::from(s.q_heads))];
    Ok(vec![Type::new(dtype, y), Type::new(i.optional(3).map_or(dtype, |t| t.dtype), state)])
}
