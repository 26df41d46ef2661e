//! Layouts: where the element at a logical index lies in its value's buffer.

use super::arena::Arena;
use super::expr::{BinaryOp, ExprId};
use super::scheduled::PANEL;
use crate::error::{Error, Kind, Result};
use crate::tensor::{Array, Dim, numel};

/// The order of a value's elements in memory.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Layout {
    /// Dense; the logical dims from the outermost to the innermost in memory. Row-major is `0, 1, 2…`; an image tensor
    /// that convolutions make is `0, 2, 3, 1` (NHWC).
    Dense(Vec<usize>),
    /// The right operand of contractions: batch dims, then panels of [`PANEL`] columns, in each the fold dims, then the
    /// columns of the panel. The last panel is filled with zeros. All lists hold logical dims, outermost first.
    Panel { batch: Vec<usize>, k: Vec<usize>, n: usize },
}

impl Layout {
    /// Row-major.
    pub fn row_major(rank: usize) -> Self {
        Layout::Dense((0..rank).collect())
    }

    /// Whether this is row-major.
    pub fn is_row_major(&self) -> bool {
        matches!(self, Layout::Dense(order) if order.iter().copied().eq(0..order.len()))
    }

    /// How many elements the buffer of a value of `shape` has.
    pub fn len(&self, shape: &[Dim]) -> Dim {
        match self {
            Layout::Dense(_) => numel(shape),
            Layout::Panel { n, .. } => {
                let panel = Dim::from(PANEL);
                let mut padded = shape.to_vec();
                if let Some(d) = padded.get_mut(*n) {
                    *d = d.ceil_div(&panel).mul(&panel);
                }
                numel(&padded)
            }
        }
    }

    /// The flat element offset of the element at `index` of a value of `shape`.
    pub fn offset(&self, arena: &mut Arena, shape: &[Dim], index: &[ExprId]) -> ExprId {
        let dense = |arena: &mut Arena, order: &[usize], mut at: ExprId| {
            for d in order {
                let n = arena.dim(&shape[*d]);
                at = arena.mul(at, n);
                at = arena.add(at, index[*d]);
            }
            at
        };
        let zero = arena.int(0);
        match self {
            // Products are summed from the outermost in, with every stride multiplied out, so that the affine form is
            // plain and equal offsets are one node.
            Layout::Dense(order) => {
                let mut stride = Dim::from(1);
                let mut terms = vec![];
                for d in order.iter().rev() {
                    let s = arena.dim(&stride);
                    terms.push(arena.mul(index[*d], s));
                    stride = stride.mul(&shape[*d]);
                }
                terms.into_iter().rev().fold(zero, |sum, t| arena.add(sum, t))
            }
            Layout::Panel { batch, k, n } => {
                let width = arena.int(PANEL as i64);
                let panels = arena.dim(&shape[*n].ceil_div(&Dim::from(PANEL)));
                let column = index[*n];
                let p = arena.binary(BinaryOp::FloorDiv, column, width);
                let j = arena.binary(BinaryOp::FloorMod, column, width);
                let mut at = dense(arena, batch, zero);
                at = arena.mul(at, panels);
                at = arena.add(at, p);
                let depth = k.iter().fold(Dim::from(1), |d, i| d.mul(&shape[*i]));
                let depth = arena.dim(&depth);
                at = arena.mul(at, depth);
                let row = dense(arena, k, zero);
                at = arena.add(at, row);
                at = arena.mul(at, width);
                arena.add(at, j)
            }
        }
    }

    /// The array's data in this layout, as the kernels read it.
    pub fn arrange(&self, array: &Array) -> Result<Vec<u8>> {
        if self.is_row_major() {
            return Ok(array.bytes().to_vec());
        }
        let shape = array.shape();
        let size = array.dtype().size();
        let bad = || Error::new(Kind::Internal, format!("layout {self:?} of a tensor of shape {shape:?}"));
        // The loops of the arranged data: (logical dim or panel part, extent, source stride in elements).
        let stride = |d: usize| shape[d + 1..].iter().product::<usize>();
        let mut loops: Vec<(usize, usize)> = vec![];
        let mut column = None;
        match self {
            Layout::Dense(order) => loops.extend(order.iter().map(|d| (shape[*d], stride(*d)))),
            Layout::Panel { batch, k, n } => {
                loops.extend(batch.iter().map(|d| (shape[*d], stride(*d))));
                column = Some((loops.len(), shape[*n]));
                loops.push((shape[*n].div_ceil(PANEL), stride(*n) * PANEL));
                loops.extend(k.iter().map(|d| (shape[*d], stride(*d))));
                loops.push((PANEL, stride(*n)));
            }
        }
        let total: usize = loops.iter().map(|l| l.0).product();
        let mut out = vec![0u8; total * size];
        let mut at = vec![0usize; loops.len()];
        let mut source = 0usize;
        for i in 0..total {
            let inside = column.is_none_or(|(p, n)| at[p] * PANEL + at[at.len() - 1] < n);
            if inside {
                let from = array.bytes().get(source * size..(source + 1) * size).ok_or_else(bad)?;
                out[i * size..(i + 1) * size].copy_from_slice(from);
            }
            for l in (0..loops.len()).rev() {
                at[l] += 1;
                source += loops[l].1;
                if at[l] < loops[l].0 {
                    break;
                }
                source -= loops[l].1 * loops[l].0;
                at[l] = 0;
            }
        }
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn panels_are_filled_with_zeros() {
        let a = Array::from_f32(vec![2, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]).unwrap();
        let l = Layout::Panel { batch: vec![], k: vec![0], n: 1 };
        let got = l.arrange(&a).unwrap();
        let got: Vec<f32> = got.as_chunks().0.iter().map(|c| f32::from_le_bytes(*c)).collect();
        assert_eq!(got, [1., 2., 3., 0., 0., 0., 0., 0., 4., 5., 6., 0., 0., 0., 0., 0.]);
        assert!(l.len(&[Dim::from(2), Dim::from(3)]).is(16));
    }

    #[test]
    fn data_lies_where_offset_says() {
        let a = Array::from_i64(vec![2, 3, 4], &(0..24).collect::<Vec<i64>>()).unwrap();
        let shape = [2, 3, 4].map(|n: i64| Dim::from(n));
        for l in [Layout::Dense(vec![0, 2, 1]), Layout::Panel { batch: vec![0], k: vec![2], n: 1 }] {
            let data = l.arrange(&a).unwrap();
            let data: Vec<i64> = data.as_chunks().0.iter().map(|c| i64::from_le_bytes(*c)).collect();
            let mut arena = Arena::default();
            for i in 0..24i64 {
                let index = [i / 12, i / 4 % 3, i % 4].map(|n| arena.int(n));
                let at = l.offset(&mut arena, &shape, &index);
                let at = usize::try_from(arena.as_int(at).unwrap()).unwrap();
                assert_eq!(data[at], i, "{l:?}");
            }
        }
    }
}
