//! What the shape rules share: reading a node's inputs, broadcasting, axes.

use super::{Attr, Op};
use crate::error::{Error, Kind, Result};
use crate::graph::attrs::Default;
use crate::graph::infer::{Infer, Type};
use crate::tensor::{Array, DType, Dim, DimRange, Shape, show};

/// Content is only followed for tensors of at most as many elements.
pub const CONTENT_LIMIT: usize = 64;

/// A row of an operator with one output.
pub const fn row(
    name: &'static str,
    since: &'static [i64],
    inputs: (usize, usize),
    attrs: &'static [Attr],
    infer: fn(&Infer<'_>) -> Result<Vec<Type>>,
) -> Op {
    Op { name, since, inputs, outputs: (1, 1), attrs, infer }
}

/// Any number of inputs.
pub const MANY: usize = usize::MAX;

/// An integer attribute.
pub const fn int(name: &'static str, default: i64) -> Attr {
    Attr { name, default: Default::Int(default) }
}

/// A float attribute.
pub const fn float(name: &'static str, default: f32) -> Attr {
    Attr { name, default: Default::Float(default) }
}

/// A string attribute.
pub const fn string(name: &'static str, default: &'static str) -> Attr {
    Attr { name, default: Default::Str(default) }
}

/// An optional attribute of any kind.
pub const fn absent(name: &'static str) -> Attr {
    Attr { name, default: Default::Absent }
}

/// An attribute that must be given.
pub const fn required(name: &'static str) -> Attr {
    Attr { name, default: Default::Required }
}

impl Infer<'_> {
    /// The type of input `i`, which must be present.
    pub fn input(&self, i: usize) -> Result<&Type> {
        self.optional(i).ok_or_else(|| Error::new(Kind::InvalidModel, format!("input {i} is missing")))
    }

    /// The type of input `i`, where it is present.
    pub fn optional(&self, i: usize) -> Option<&Type> {
        self.inputs.get(i).and_then(Option::as_ref)
    }

    /// The shape of input `i`, which must be present.
    pub fn shape(&self, i: usize) -> Result<&Shape> {
        self.input(i).map(|t| &t.shape)
    }

    /// The data type of input `i`, which must be present.
    pub fn dtype(&self, i: usize) -> Result<DType> {
        self.input(i).map(|t| t.dtype)
    }

    /// The elements of integer input `i` as dims, row-major, where they are known: constants or symbolic content.
    pub fn content(&self, i: usize) -> Option<Vec<Dim>> {
        if let Some(c) = self.optional(i).and_then(|t| t.content.clone()) {
            return Some(c);
        }
        let ints = self.constants.get(i).and_then(Option::as_ref).filter(|a| a.dtype().size() <= 8 && a.len() <= 4096);
        ints.and_then(Array::to_i64).map(|v| v.into_iter().map(Dim::from).collect())
    }

    /// The elements of input `i` as dims; an error that says what to do where they depend on data.
    pub fn required_content(&self, i: usize, what: &str) -> Result<Vec<Dim>> {
        self.content(i).ok_or_else(|| depends_on_data(what))
    }

    /// The elements of input `i` as whole numbers; `None` where the input is absent.
    pub fn ints(&self, i: usize, what: &str) -> Result<Option<Vec<i64>>> {
        if self.optional(i).is_none() {
            return Ok(None);
        }
        let dims = self.required_content(i, what)?;
        dims.iter().map(|d| d.known().ok_or_else(|| depends_on_data(what))).collect::<Result<_>>().map(Some)
    }
}

/// A shape or index that is not known when the model is built.
pub fn depends_on_data(what: &str) -> Error {
    Error::new(Kind::InvalidShape, format!("{what} depends on data at run time"))
        .help("fold it to a constant when exporting the model, or fix the input dimensions that it is computed from")
}

/// An axis in `0..rank`; a negative one counts from the end.
pub fn axis(axis: i64, rank: usize) -> Result<usize> {
    let n = i64::try_from(rank).unwrap_or(i64::MAX);
    let at = if axis < 0 { axis.saturating_add(n) } else { axis };
    usize::try_from(at)
        .ok()
        .filter(|a| *a < rank)
        .ok_or_else(|| Error::new(Kind::InvalidModel, format!("axis {axis} of a tensor of rank {rank}")))
}

/// Axes in `0..rank`, in the order given; a repeated one is an error.
pub fn axes(list: &[i64], rank: usize) -> Result<Vec<usize>> {
    let mut out = Vec::with_capacity(list.len());
    for a in list {
        let a = axis(*a, rank)?;
        if out.contains(&a) {
            return Err(Error::new(Kind::InvalidModel, format!("axis {a} stands twice in {list:?}")));
        }
        out.push(a);
    }
    Ok(out)
}

/// The shape of two tensors combined under numpy's broadcasting: from the right, dims are equal or one of them is 1.
pub fn broadcast(a: &[Dim], b: &[Dim]) -> Result<Shape> {
    let rank = a.len().max(b.len());
    let at = |s: &[Dim], i: usize| (i + s.len()).checked_sub(rank).map_or(Dim::from(1), |i| s[i].clone());
    (0..rank)
        .map(|i| {
            let (x, y) = (at(a, i), at(b, i));
            if x == y || y.is(1) {
                return Ok(x);
            }
            if x.is(1) {
                return Ok(y);
            }
            let e = Error::new(
                Kind::InvalidShape,
                format!("shapes {} and {} do not broadcast: {x} against {y}", show(a), show(b)),
            );
            Err(match (x.known(), y.known()) {
                (Some(_), Some(_)) => e,
                _ => e.help("give both dimensions one name, or fix them, so that they are known to be equal"),
            })
        })
        .collect()
}

/// The broadcast shape of every input that is present.
pub fn broadcast_inputs(i: &Infer<'_>) -> Result<Shape> {
    i.inputs.iter().flatten().try_fold(vec![], |s, t| broadcast(&s, &t.shape))
}

/// An error unless every present input has one data type.
pub fn one_dtype(i: &Infer<'_>) -> Result<DType> {
    let first = i.dtype(0)?;
    match i.inputs.iter().flatten().find(|t| t.dtype != first) {
        Some(t) => Err(Error::new(Kind::InvalidModel, format!("inputs of types {first} and {}", t.dtype))),
        None => Ok(first),
    }
}

/// The rule of an operator whose output has the type of its first input.
pub fn same(i: &Infer<'_>) -> Result<Vec<Type>> {
    let t = i.input(0)?;
    Ok(vec![Type::new(t.dtype, t.shape.clone())])
}

/// An error unless the tensor has that rank.
pub fn rank(what: &str, shape: &[Dim], want: usize) -> Result<()> {
    if shape.len() == want {
        return Ok(());
    }
    Err(Error::new(Kind::InvalidShape, format!("{what} has shape {} where rank {want} is needed", show(shape))))
}

/// The least and greatest value of a dim. Shape rules count every symbol from 1: a model has no empty inputs.
pub fn range(d: &Dim) -> DimRange {
    let from_one = DimRange { min: 1, max: i64::MAX };
    d.range(&d.syms().into_iter().map(|s| (s, from_one)).collect())
}

/// The lesser of two dims, simplified by what is known of their ranges.
pub fn least(a: &Dim, b: &Dim) -> Dim {
    let d = range(&a.sub(b));
    match (d.max <= 0, d.min >= 0) {
        (true, _) => a.clone(),
        (_, true) => b.clone(),
        _ => a.minimum(b),
    }
}

/// The greater of two dims, simplified by what is known of their ranges.
pub fn greatest(a: &Dim, b: &Dim) -> Dim {
    let d = range(&a.sub(b));
    match (d.max <= 0, d.min >= 0) {
        (true, _) => b.clone(),
        (_, true) => a.clone(),
        _ => a.maximum(b),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broadcasts_symbols_with_themselves_and_ones() {
        let (s, t) = (Dim::sym("s"), Dim::sym("t"));
        let one = Dim::from(1);
        assert_eq!(broadcast(&[s.clone(), one.clone()], &[t.clone()]), Ok(vec![s.clone(), t.clone()]));
        assert_eq!(broadcast(&[s.clone()], &[s.clone()]), Ok(vec![s.clone()]));
        let e = broadcast(&[s], &[t]).err();
        assert_eq!(e.as_ref().map(Error::kind), Some(Kind::InvalidShape));
        assert_eq!(e.as_ref().map(Error::message), Some("shapes [s] and [t] do not broadcast: s against t"));
    }

    #[test]
    fn axes_count_from_either_end() {
        assert_eq!(axes(&[-1, 0], 3), Ok(vec![2, 0]));
        assert_eq!(axes(&[2, -1], 3).err().map(|e| e.kind()), Some(Kind::InvalidModel));
        assert_eq!(axis(3, 3).err().map(|e| e.kind()), Some(Kind::InvalidModel));
    }
}
