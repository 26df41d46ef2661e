//! Sums of products of 8-bit integers, as contractions in float32, which are the fast kernels of both targets. They are
//! exact: float32 holds every integer up to 2^24, and the sums are cut into blocks whose partial sums cannot pass that, in
//! whatever order they are added. Blocks are added as integers.
//!
//! Weights and their zero points must be known at build time, and the other operand has one zero point for all; where that
//! is not so, the operators are plain loops over integers.

use super::math::{fold, scalar, window};
use crate::error::Result;
use crate::graph::ops::conv::Geometry;
use crate::graph::ops::quantize::centred;
use crate::kernel::{ExprId, FoldOp, Ty, ValueId, Values};
use crate::tensor::{Array, DType, Dim, Shape};

/// Up to here, float32 holds every integer.
const EXACT: i64 = 1 << 24;

/// A tensor and its zero point.
pub(super) type Operand = (ValueId, Option<ValueId>);

/// The largest magnitude of an element less its zero point. `None` for types of more than 8 bits, and where there are
/// several zero points.
fn most(vs: &Values, (v, zero): Operand) -> Option<i64> {
    let (low, high) = match vs.dtype(v) {
        DType::Int8 => (-128, 127),
        DType::Uint8 => (0, 255),
        _ => return None,
    };
    let Some(zero) = zero else { return Some(high.max(-low)) };
    if !vs.shape(zero).iter().all(|d| d.is(1)) {
        return None;
    }
    match vs.constant(zero).and_then(Array::to_i64).as_deref() {
        Some([z]) => Some((high - z).max(z - low)),
        _ => Some(high - low),
    }
}

/// The left operand in float32, less its zero point.
fn left(vs: &mut Values, (v, zero): Operand) -> Result<ValueId> {
    let shape = vs.shape(v).to_vec();
    vs.func(DType::Float32, shape, |vs, i| {
        let x = vs.load(v, i);
        let mut x = vs.arena.cast(Ty::I32, x);
        if let Some(zero) = zero {
            let z = scalar(vs, zero);
            let z = vs.arena.cast(Ty::I32, z);
            x = vs.arena.sub(x, z);
        }
        Ok(vs.arena.cast(Ty::F32, x))
    })
}

/// Weights less their zero points, of which there is one or one for each index of the axis `channel`.
struct Weights {
    shape: Vec<usize>,
    elements: Vec<f32>,
    most: i64,
}

impl Weights {
    fn of(vs: &Values, (w, zero): Operand, channel: usize) -> Option<Weights> {
        let array = vs.constant(w).filter(|a| matches!(a.dtype(), DType::Int8 | DType::Uint8))?;
        let zeros = match zero {
            Some(z) => vs.constant(z)?.to_i64()?,
            None => vec![0],
        };
        let all = centred(array, &zeros, channel)?;
        let most = all.iter().map(|x| x.abs()).max().unwrap_or(0).max(1);
        Some(Weights { elements: all.iter().map(|x| *x as f32).collect(), shape: array.shape().to_vec(), most })
    }

    /// Into how many blocks of how many indices an axis is cut, each of which is summed with `others` more terms.
    fn blocks(&self, axis: usize, others: usize, left: i64) -> Option<Blocks> {
        let limit = usize::try_from(EXACT / (left * self.most)).ok()? / others.max(1);
        let n = self.shape[axis];
        if n == 0 || limit == 0 {
            return None;
        }
        let count = n.div_ceil(limit);
        Some(Blocks { n, count, size: n.div_ceil(count) })
    }

    /// The constant with `axis` cut into blocks, which come first; zeros where the last one is not full.
    fn cut(&self, vs: &mut Values, axis: usize, b: &Blocks) -> Result<ValueId> {
        if b.count == 1 {
            return Ok(vs.constant_array(Array::from_f32(self.shape.clone(), &self.elements)?));
        }
        let inner: usize = self.shape[axis + 1..].iter().product();
        let outer: usize = self.shape[..axis].iter().product();
        let mut data = vec![0f32; b.count * outer * b.size * inner];
        for (i, row) in self.elements.chunks_exact(inner.max(1)).enumerate() {
            let (o, k) = (i / b.n, i % b.n);
            let at = ((k / b.size * outer + o) * b.size + k % b.size) * inner;
            data[at..at + inner].copy_from_slice(row);
        }
        let mut shape = self.shape.clone();
        shape[axis] = b.size;
        shape.insert(0, b.count);
        Ok(vs.constant_array(Array::from_f32(shape, &data)?))
    }
}

/// An axis of `n` indices in `count` blocks of `size`.
struct Blocks {
    n: usize,
    count: usize,
    size: usize,
}

impl Blocks {
    /// The axis of the blocks, where there is more than one.
    fn axis(&self) -> Option<Dim> {
        (self.count > 1).then(|| Dim::from(self.count))
    }

    /// The index of the whole axis for index `inner` of a block, and whether it is there.
    fn whole(&self, vs: &mut Values, block: Option<ExprId>, inner: ExprId) -> (ExprId, Option<ExprId>) {
        let Some(block) = block else { return (inner, None) };
        let size = vs.arena.int(self.size as i64);
        let first = vs.arena.mul(block, size);
        let at = vs.arena.add(first, inner);
        let inside = (self.count * self.size > self.n).then(|| {
            let end = vs.arena.int(self.n as i64);
            vs.arena.binary(crate::kernel::BinaryOp::Lt, at, end)
        });
        (at, inside)
    }

    /// The sums over all blocks as integers: `part` has them in front where there is more than one.
    fn sum(&self, vs: &mut Values, part: ValueId, shape: Shape) -> Result<ValueId> {
        let blocks = self.axis();
        vs.func(DType::Int32, shape, |vs, i| match blocks {
            None => {
                let x = vs.load(part, i);
                Ok(vs.arena.cast(Ty::I32, x))
            }
            Some(blocks) => fold(vs, FoldOp::Sum, &[blocks], |vs, b| {
                let x = vs.load(part, &[b, i].concat());
                Ok(vs.arena.cast(Ty::I32, x))
            }),
        })
    }
}

/// `select(inside, x, 0)`.
fn guarded(vs: &mut Values, inside: Option<ExprId>, x: ExprId) -> ExprId {
    let Some(inside) = inside else { return x };
    let zero = vs.arena.real(Ty::F32, 0.0);
    vs.arena.select(inside, x, zero)
}

/// `Σ (a - zero_a) · (b - zero_b)` for `a[…, m, k]` and `b[k, n]`, as `I32`.
pub(super) fn product(vs: &mut Values, a: Operand, b: Operand) -> Result<Option<ValueId>> {
    let (Some(left_most), Some(w)) = (most(vs, a), Weights::of(vs, b, 1)) else { return Ok(None) };
    let mut shape = vs.shape(a.0).to_vec();
    if shape.len() < 2 || w.shape.len() != 2 {
        return Ok(None);
    }
    let Some(blocks) = w.blocks(0, 1, left_most) else { return Ok(None) };
    let (x, b) = (left(vs, a)?, w.cut(vs, 0, &blocks)?);
    let last = shape.len() - 1;
    shape[last] = Dim::from(w.shape[1]);
    let all: Shape = blocks.axis().into_iter().chain(shape.iter().cloned()).collect();
    let part = vs.func(DType::Float32, all, |vs, i| {
        let (block, i) = i.split_at(i.len() - last - 1);
        let (row, n) = (i[..last].to_vec(), i[last]);
        fold(vs, FoldOp::Sum, &[Dim::from(blocks.size)], |vs, k| {
            let (at, inside) = blocks.whole(vs, block.first().copied(), k[0]);
            let x = vs.load(x, &[&row[..], &[at]].concat());
            let x = guarded(vs, inside, x);
            let y = vs.load(b, &[block, &[k[0], n]].concat());
            Ok(vs.arena.mul(x, y))
        })
    })?;
    blocks.sum(vs, part, shape).map(Some)
}

/// The same for a convolution of `x[N, C, D…]` with weights `[M, C, k…]`, whose output has this shape.
pub(super) fn convolution(
    vs: &mut Values,
    g: &Geometry,
    x: Operand,
    w: Operand,
    shape: Shape,
) -> Result<Option<ValueId>> {
    let (Some(left_most), Some(weights)) = (most(vs, x), Weights::of(vs, w, 0)) else { return Ok(None) };
    let taps: usize = weights.shape[2..].iter().product();
    let Some(blocks) = weights.blocks(1, taps, left_most) else { return Ok(None) };
    // The channels of a group are few: one block holds them.
    if g.group != 1 && blocks.count > 1 {
        return Ok(None);
    }
    let (x, w) = (left(vs, x)?, weights.cut(vs, 1, &blocks)?);
    let all: Shape = blocks.axis().into_iter().chain(shape.iter().cloned()).collect();
    let extents = [g.window.kernel(), vec![Dim::from(blocks.size)]].concat();
    let part = vs.func(DType::Float32, all, |vs, i| {
        let (block, i) = i.split_at(i.len() - shape.len());
        fold(vs, FoldOp::Sum, &extents, |vs, k| {
            let (taps, inner) = (&k[..k.len() - 1], k[k.len() - 1]);
            let (at, mut inside) = window(vs, &g.window, &i[2..], taps);
            let (c, there) = blocks.whole(vs, block.first().copied(), inner);
            if let Some(there) = there {
                inside = vs.arena.and(inside, there);
            }
            let c = super::conv::channel(vs, g, i[1], c);
            let a = vs.load(x, &[&[i[0], c], &at[..]].concat());
            let a = guarded(vs, Some(inside), a);
            let b = vs.load(w, &[block, &[i[1], inner], taps].concat());
            Ok(vs.arena.mul(a, b))
        })
    })?;
    blocks.sum(vs, part, shape).map(Some)
}

#[cfg(test)]
mod tests {
    use crate::graph::AttrValue::{Int, Ints};
    use crate::lower::testing::{In, array, near};
    use crate::tensor::DType::{Int8, Int32, Uint8};

    /// Sums of integers are exact.
    const EXACT: (f64, f64) = (0.0, 0.0);

    fn numbers(n: usize, seed: u64, low: i64, high: i64) -> Vec<f64> {
        let mut x = seed;
        let step = || {
            x = x.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (low + (x >> 33) as i64 % (high - low + 1)) as f64
        };
        std::iter::repeat_with(step).take(n).collect()
    }

    /// Inner lengths of one block, of several that are even, and of several with a rest.
    #[test]
    fn products_are_exact() {
        for (k, extreme) in [(96, false), (1024, false), (1031, false), (1031, true)] {
            let (m, n) = (5, 9);
            let a = if extreme { vec![255.0; m * k] } else { numbers(m * k, 3, 0, 255) };
            let b = if extreme { vec![-128.0; k * n] } else { numbers(k * n, 5, -128, 127) };
            let (za, zb) = (if extreme { 0.0 } else { 119.0 }, numbers(n, 7, -3, 3));
            let zb = if extreme { vec![0.0; n] } else { zb };
            let mut want = vec![0.0; m * n];
            for (i, w) in want.iter_mut().enumerate() {
                *w = (0..k).map(|l| (a[i / n * k + l] - za) * (b[l * n + i % n] - zb[i % n])).sum();
            }
            near(
                &format!("{k} terms"),
                "MatMulInteger",
                &[],
                &[
                    In::Data(array(Uint8, &[m, k], &a)),
                    In::Constant(array(Int8, &[k, n], &b)),
                    In::Data(array(Uint8, &[], &[za])),
                    In::Constant(array(Int8, &[n], &zb)),
                ],
                &[array(Int32, &[m, n], &want)],
                EXACT,
            );
        }
    }

    #[test]
    fn convolutions_are_exact() {
        // 9 taps of 70 channels pass 2^24 / (255 · 255) = 258 terms: three blocks, of which the last is not full.
        for (c, group) in [(4, 1), (70, 1), (6, 6)] {
            let (m, size, zx) = (6, 5, 7.0);
            let inner = c / group;
            let x = numbers(c * size * size, 11, 0, 255);
            let w = numbers(m * inner * 9, 13, 0, 255);
            let zw = numbers(m, 17, 0, 255);
            let mut want = vec![];
            for (o, y, z) in (0..m).flat_map(|o| (0..size).flat_map(move |y| (0..size).map(move |z| (o, y, z)))) {
                let mut sum = 0.0;
                for (i, t) in (0..inner).flat_map(|i| (0..9).map(move |t| (i, t))) {
                    let (h, v) = (y + t / 3, z + t % 3);
                    if (1..=size).contains(&h) && (1..=size).contains(&v) {
                        let channel = o / (m / group) * inner + i;
                        sum += (x[(channel * size + h - 1) * size + v - 1] - zx) * (w[(o * inner + i) * 9 + t] - zw[o]);
                    }
                }
                want.push(sum);
            }
            near(
                &format!("{c} channels in {group} groups"),
                "ConvInteger",
                &[("pads", Ints(vec![1, 1, 1, 1])), ("group", Int(group as i64))],
                &[
                    In::Data(array(Uint8, &[1, c, size, size], &x)),
                    In::Constant(array(Uint8, &[m, inner, 3, 3], &w)),
                    In::Data(array(Uint8, &[], &[zx])),
                    In::Constant(array(Uint8, &[m], &zw)),
                ],
                &[array(Int32, &[1, m, size, size], &want)],
                EXACT,
            );
        }
    }
}
