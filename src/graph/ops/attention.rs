//! Attention and RotaryEmbedding.

use super::rules::{absent, broadcast, float, int, rank, row};
use super::{Op, rules};
use crate::error::{Error, Kind, Result};
use crate::graph::Attrs;
use crate::graph::infer::{Infer, Type};
use crate::tensor::{Dim, Shape, show};

pub(super) static ROWS: &[Op] = &[
    Op {
        name: "Attention",
        since: &[23, 24],
        inputs: (3, 7),
        outputs: (1, 4),
        attrs: &[
            int("is_causal", 0),
            absent("kv_num_heads"),
            absent("q_num_heads"),
            int("qk_matmul_output_mode", 0),
            absent("scale"),
            float("softcap", 0.0),
            absent("softmax_precision"),
        ],
        infer: attention,
    },
    row(
        "RotaryEmbedding",
        &[23],
        (3, 4),
        &[int("interleaved", 0), int("num_heads", 0), int("rotary_embedding_dim", 0)],
        rotary,
    ),
];

/// The sizes of an attention.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heads {
    pub batch: Dim,
    pub q_heads: i64,
    pub kv_heads: i64,
    /// Query positions, new key positions, those of the past.
    pub queries: Dim,
    pub keys: Dim,
    pub past: Dim,
    /// Elements of a query or key, and of a value.
    pub size: Dim,
    pub v_size: Dim,
    /// Whether heads lie side by side in the last axis (`[batch, sequence, heads · size]`).
    pub packed: bool,
}

impl Heads {
    /// Key positions, those of the past first.
    pub fn total(&self) -> Dim {
        self.past.add(&self.keys)
    }

    /// Of the operator's attributes and the shapes of queries, keys, values and past keys.
    pub fn new(attrs: &Attrs, q: &[Dim], k: &[Dim], v: &[Dim], past: Option<&[Dim]>) -> Result<Self> {
        let bad = |why: &str| {
            let what = format!("attention of {} to {} and {}: {why}", show(q), show(k), show(v));
            Err(Error::new(Kind::InvalidShape, what))
        };
        let packed = q.len() == 3;
        if !(packed || q.len() == 4) || k.len() != q.len() || v.len() != q.len() {
            return bad("all need rank 3, or all rank 4");
        }
        let given = |name: &str, x: &Dim| -> Result<i64> {
            let n = if packed { attrs.int(name)? } else { x.known().unwrap_or(0) };
            if (1..=1 << 20).contains(&n) {
                return Ok(n);
            }
            Err(Error::new(Kind::InvalidModel, format!("{n} heads in \"{name}\"")))
        };
        let (q_heads, kv_heads) = (given("q_num_heads", &q[1])?, given("kv_num_heads", &k[1])?);
        if q_heads % kv_heads != 0 {
            return bad(&format!("{q_heads} query heads are no multiple of {kv_heads} key heads"));
        }
        let parts = |x: &[Dim], heads: i64| -> Option<(Dim, Dim)> {
            if packed {
                Some((x[1].clone(), x[2].div_exact(&Dim::from(heads))?))
            } else {
                (x[1].is(heads)).then(|| (x[2].clone(), x[3].clone()))
            }
        };
        let (Some((queries, size)), Some((keys, k_size)), Some((v_keys, v_size))) =
            (parts(q, q_heads), parts(k, kv_heads), parts(v, kv_heads))
        else {
            return bad("the heads do not divide the last axis");
        };
        if size != k_size || keys != v_keys || q[0] != k[0] || k[0] != v[0] {
            return bad("batch, sequence or head sizes differ");
        }
        let past = match past {
            Some(p) if p.len() == 4 => p[2].clone(),
            Some(p) => return bad(&format!("past keys of shape {}", show(p))),
            None => Dim::from(0),
        };
        Ok(Heads { batch: q[0].clone(), q_heads, kv_heads, queries, keys, past, size, v_size, packed })
    }

    /// `[batch, query heads, queries, keys]`.
    pub fn scores(&self) -> Shape {
        vec![self.batch.clone(), self.q_heads.into(), self.queries.clone(), self.total()]
    }
}

fn attention(i: &Infer<'_>) -> Result<Vec<Type>> {
    let past = i.optional(4).map(|t| &t.shape[..]);
    let h = Heads::new(i.attrs, i.shape(0)?, i.shape(1)?, i.shape(2)?, past)?;
    if past.is_some() != i.optional(5).is_some() {
        return Err(Error::new(Kind::InvalidModel, "past keys and past values come together or not at all"));
    }
    let present = |size: &Dim, keys: Dim| vec![h.batch.clone(), h.kv_heads.into(), keys, size.clone()];
    for (n, size) in [(4, &h.size), (5, &h.v_size)] {
        let want = present(size, h.past.clone());
        if let Some(t) = i.optional(n)
            && t.shape != want
        {
            let what = format!("past of shape {} where {} is needed", show(&t.shape), show(&want));
            return Err(Error::new(Kind::InvalidShape, what));
        }
    }
    if let Some(mask) = i.optional(3) {
        let (mut shape, scores) = (mask.shape.clone(), h.scores());
        // A mask may end before the keys do; what it leaves out is masked.
        if let (Some(last), Some(n)) = (shape.last_mut(), h.total().known())
            && last.known().is_some_and(|m| m < n)
        {
            *last = Dim::from(n);
        }
        if broadcast(&shape, &scores)? != scores {
            let what = format!("a mask of shape {} for scores of shape {}", show(&mask.shape), show(&scores));
            return Err(Error::new(Kind::InvalidShape, what));
        }
    }
    if let Some(lengths) = i.optional(6) {
        rules::rank("the number of keys", &lengths.shape, 1)?;
    }
    let y = if h.packed {
        vec![h.batch.clone(), h.queries.clone(), h.v_size.mul(&Dim::from(h.q_heads))]
    } else {
        vec![h.batch.clone(), h.q_heads.into(), h.queries.clone(), h.v_size.clone()]
    };
    let dtype = i.dtype(0)?;
    Ok(vec![
        Type::new(dtype, y),
        Type::new(i.dtype(1)?, present(&h.size, h.total())),
        Type::new(i.dtype(2)?, present(&h.v_size, h.total())),
        Type::new(dtype, h.scores()),
    ])
}

/// The sizes of a rotary embedding: heads, elements of a head, and how many of them turn.
pub fn rotation(attrs: &Attrs, x: &[Dim]) -> Result<(Dim, Dim, i64)> {
    let bad = |why: String| Err(Error::new(Kind::InvalidShape, format!("rotary embedding of {}: {why}", show(x))));
    let (heads, size) = match x {
        [_, heads, _, size] => (heads.clone(), size.clone()),
        [_, _, hidden] => {
            let n = attrs.int("num_heads")?;
            match hidden.div_exact(&Dim::from(n)) {
                Some(size) if n > 0 => (Dim::from(n), size),
                _ => return bad(format!("attribute \"num_heads\" is {n}")),
            }
        }
        _ => return bad("it needs rank 3 or 4".into()),
    };
    let given = attrs.int("rotary_embedding_dim")?;
    let turning = if given == 0 { size.known() } else { Some(given) };
    match (turning, size.known()) {
        (Some(t), Some(s)) if t > 0 && t <= s && t % 2 == 0 => Ok((heads, size, t)),
        _ => bad(format!("{given} elements of {size} cannot turn in pairs")),
    }
}

fn rotary(i: &Infer<'_>) -> Result<Vec<Type>> {
    let x = i.shape(0)?;
    let (_, _, turning) = rotation(i.attrs, x)?;
    let length = if x.len() == 4 { &x[2] } else { &x[1] };
    let positions = i.optional(3);
    for n in [1, 2] {
        let cache = i.shape(n)?;
        rank("the cache of a rotary embedding", cache, if positions.is_some() { 2 } else { 3 })?;
        let fits = positions.is_some() || cache[0] == x[0] && cache[1] == *length;
        if !fits || !cache[cache.len() - 1].is(turning / 2) {
            let what = format!("a cache of shape {} for an input of shape {}", show(cache), show(x));
            return Err(Error::new(Kind::InvalidShape, what));
        }
    }
    if let Some(p) = positions
        && p.shape[..] != [x[0].clone(), length.clone()]
    {
        let what = format!("positions of shape {} for an input of shape {}", show(&p.shape), show(x));
        return Err(Error::new(Kind::InvalidShape, what));
    }
    rules::same(i)
}
