//! Steps that move elements: views, padding, gathers.

use super::bounds::Bounds;
use super::maker::{Item, Maker, extent};
use crate::kernel::{BinaryOp, Scalar, Ty};
use crate::tensor::{DType, Dim, Shape, numel};

impl Maker {
    /// Axes in another order, one of them backwards or only a part of it.
    pub(super) fn permute(&mut self, x: Item, s: &[u8; 6]) {
        let shape = self.shape(x);
        let rank = shape.len();
        if rank == 0 {
            return;
        }
        let turn = usize::from(s[2]) % rank;
        let order: Vec<usize> =
            (0..rank).map(|i| if s[3].is_multiple_of(2) { (i + turn) % rank } else { rank - 1 - i }).collect();
        let part = usize::from(s[4]) % rank;
        let (way, one) = (s[5] % 4, Dim::from(1));
        let cut = way == 2 && self.least(&shape[part]) > 1;
        let half = way == 3 && shape[part].known().is_some_and(|n| n > 1);
        let mut small = shape.clone();
        if cut {
            small[part] = shape[part].sub(&one);
        }
        if half {
            small[part] = shape[part].ceil_div(&Dim::from(2));
        }
        let result = order.iter().map(|d| small[*d].clone()).collect();
        self.push(result, |m, i| {
            let mut at = vec![m.vs.arena.int(0); rank];
            for (d, e) in order.iter().zip(i) {
                at[*d] = *e;
            }
            let a = &mut m.vs.arena;
            at[part] = match way {
                1 => {
                    let last = a.dim(&shape[part].sub(&one));
                    a.sub(last, at[part])
                }
                2 if cut => {
                    let one = a.int(1);
                    a.add(at[part], one)
                }
                3 if half => {
                    let two = a.int(2);
                    a.mul(at[part], two)
                }
                _ => at[part],
            };
            m.load(x, &at)
        });
    }

    /// More elements before and behind, along one axis.
    pub(super) fn pad(&mut self, x: Item, s: &[u8; 6]) {
        let shape = self.shape(x);
        if shape.is_empty() {
            return;
        }
        let part = usize::from(s[2]) % shape.len();
        let (before, behind) = (i64::from(s[3] % 3), i64::from(s[4] % 4));
        let mut wide = shape.clone();
        wide[part] = shape[part].add(&Dim::from(before + behind));
        self.push(wide, |m, i| {
            let mut at = i.to_vec();
            let a = &mut m.vs.arena;
            let (shift, zero, size) = (a.int(before), a.int(0), a.dim(&shape[part]));
            at[part] = a.sub(i[part], shift);
            let (low, high) = (a.ge(at[part], zero), a.lt(at[part], size));
            let inside = a.and(low, high);
            let t = m.load(x, &at);
            let none = m.vs.arena.constant(Scalar::int(t.ty, i64::from(s[5] % 2)));
            let e = m.vs.arena.select(inside, t.e, none);
            m.term(e, t.bounds.either(Bounds::exact(1.0, 1.0)))
        });
    }

    /// Two neighbouring axes become one, or all do, or one becomes two.
    pub(super) fn reshape(&mut self, x: Item, s: &[u8; 6]) {
        let shape = self.shape(x);
        let rank = shape.len();
        let at = usize::from(s[2]) % rank.max(1);
        let result: Shape = match s[3] % 3 {
            0 if rank > 1 && at + 1 < rank => {
                [&shape[..at], &[shape[at].mul(&shape[at + 1])], &shape[at + 2..]].concat()
            }
            1 if rank > 0 && shape[at].known().is_some_and(|n| n % 2 == 0) => {
                let half = shape[at].floor_div(&Dim::from(2));
                [&shape[..at], &[Dim::from(2), half], &shape[at + 1..]].concat()
            }
            _ => vec![numel(&shape)],
        };
        self.push(result.clone(), |m, i| {
            let mut flat = m.vs.arena.int(0);
            for (d, e) in result.iter().zip(i) {
                let d = m.vs.arena.dim(d);
                flat = m.vs.arena.mul(flat, d);
                flat = m.vs.arena.add(flat, *e);
            }
            let mut index = vec![];
            for d in 0..rank {
                let stride = m.vs.arena.dim(&numel(&shape[d + 1..]));
                let mut e = m.vs.arena.binary(BinaryOp::FloorDiv, flat, stride);
                if d > 0 {
                    let n = m.vs.arena.dim(&shape[d]);
                    e = m.vs.arena.binary(BinaryOp::FloorMod, e, n);
                }
                index.push(e);
            }
            m.load(x, &index)
        });
    }

    /// Rows of one value, chosen by the elements of another.
    pub(super) fn gather(&mut self, x: Item, s: &[u8; 6]) {
        let by = self.pick(s[2]);
        let (shape, chosen) = (self.shape(x), self.shape(by));
        let whole = self.vs.dtype(by.id).is_int();
        if shape.is_empty() || chosen.len() > 2 {
            return self.map(x, s);
        }
        let by = if whole {
            by
        } else {
            self.fresh(DType::Int32, vec![extent(s[3])], s[4].is_multiple_of(2) && extent(s[3]).known().is_some())
        };
        let chosen = self.shape(by);
        self.push([&chosen[..], &shape[1..]].concat(), |m, i| {
            let t = m.load(by, &i[..chosen.len()]);
            let t = m.cast(t, Ty::I32);
            let n = m.vs.arena.dim(&shape[0]);
            let at = m.vs.arena.binary(BinaryOp::FloorMod, t.e, n);
            let t = m.load(x, &[&[at], &i[chosen.len()..]].concat());
            if s[5].is_multiple_of(2) { m.unary(t, s[5] / 2) } else { t }
        });
    }
}
