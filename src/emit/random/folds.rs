//! Steps that fold: reductions, rows, products, convolutions, attention; and running sums, which are programs.

use super::bounds::Bounds;
use super::maker::{Item, MOST_ELEMENTS, MOST_FLOAT, MOST_WORK, Maker, Term, extent};
use crate::kernel::{Axis, BinaryOp, ExprId, FoldOp, Node, Scalar, Stmt, Ty, UnaryOp};
use crate::tensor::{DType, Dim};

impl Maker {
    /// `f` folded over axes of these extents.
    pub(super) fn fold(&mut self, op: FoldOp, extents: &[Dim], f: impl FnOnce(&mut Maker, &[ExprId]) -> Term) -> Term {
        let axes: Vec<Axis> = extents.iter().map(|d| self.vs.arena.axis(d.clone())).collect();
        let index: Vec<ExprId> = axes.iter().map(|a| self.vs.arena.axis_expr(*a)).collect();
        let t = f(self, &index);
        let e = self.vs.arena.add_node(Node::Fold { op, axes: axes.into(), body: t.e });
        let n = self.count(extents) as f64;
        let bounds = match op {
            FoldOp::Sum if t.ty == Ty::F32 => t.bounds.total(n),
            FoldOp::Sum => Bounds::exact(t.bounds.most * n, 1.0),
            FoldOp::ArgMax { .. } | FoldOp::ArgMin { .. } => Bounds::exact(n, 1.0),
            _ => t.bounds,
        };
        self.term(e, bounds)
    }

    /// Whether a function of `shape` may fold over `folded`.
    pub(super) fn affordable(&self, shape: &[Dim], folded: &[Dim]) -> bool {
        self.count(shape).saturating_mul(self.count(folded)) <= MOST_WORK
    }

    pub(super) fn reduce(&mut self, x: Item, s: &[u8; 6]) {
        let shape = self.shape(x);
        let folded: Vec<bool> = (0..shape.len()).map(|d| s[2] >> d & 1 == 1).collect();
        let keep = s[3].is_multiple_of(2);
        let over: Vec<Dim> = shape.iter().zip(&folded).filter(|(_, f)| **f).map(|(d, _)| d.clone()).collect();
        if over.is_empty() || self.count(&shape) > MOST_WORK {
            return self.map(x, s);
        }
        let mut result = vec![];
        for (d, f) in shape.iter().zip(&folded) {
            match (*f, keep) {
                (true, true) => result.push(Dim::from(1)),
                (true, false) => {}
                (false, _) => result.push(d.clone()),
            }
        }
        self.push(result, |m, i| {
            let outer: Vec<ExprId> =
                if keep { i.iter().zip(&folded).filter(|(_, f)| !**f).map(|(e, _)| *e).collect() } else { i.to_vec() };
            let body = |m: &mut Maker, k: &[ExprId]| {
                let (mut outer, mut k) = (outer.iter(), k.iter());
                let at: Vec<ExprId> =
                    folded.iter().map(|f| *if *f { k.next() } else { outer.next() }.unwrap()).collect();
                let t = m.load(x, &at);
                let t = if s[5].is_multiple_of(3) { m.unary(t, s[5] / 3) } else { t };
                if t.ty == Ty::Bool { m.cast(t, Ty::I32) } else { t }
            };
            let n = m.count(&over) as f64;
            let op = match s[4] % 4 {
                0 | 1 if x.bounds.most * n < MOST_FLOAT => FoldOp::Sum,
                3 => FoldOp::Max,
                _ => FoldOp::Min,
            };
            let t = m.fold(op, &over, body);
            if s[5].is_multiple_of(2) { m.unary(t, s[5] / 2) } else { t }
        });
    }

    /// Where the greatest or least element of an axis is, or the product of a few.
    pub(super) fn position(&mut self, x: Item, s: &[u8; 6]) {
        let shape = self.shape(x);
        if shape.is_empty() || !x.bounds.is_exact() || self.vs.dtype(x.id) == DType::Bool {
            return self.row(x, s);
        }
        let along = usize::from(s[2]) % shape.len();
        let mut result = shape.clone();
        let over = result.remove(along);
        let last = s[3].is_multiple_of(2);
        let few = self.most(&over) <= 4 && x.bounds.most <= 8.0;
        let op = match s[4] % 3 {
            0 => FoldOp::ArgMax { last },
            1 => FoldOp::ArgMin { last },
            _ if few => FoldOp::Prod,
            _ => FoldOp::Max,
        };
        self.push(result, |m, i| {
            let mut t = m.fold(op, &[over.clone()], |m, k| {
                let mut at = i.to_vec();
                at.insert(along, k[0]);
                m.load(x, &at)
            });
            if op == FoldOp::Prod {
                let n = m.most(&over) as i32;
                let (most, unit) = (x.bounds.most.max(1.0).powi(n), x.bounds.unit.min(1.0).powi(n));
                t.bounds = Bounds::arithmetic(most, unit, 0.0, f64::from(n));
            }
            t
        });
    }

    /// A softmax, or a normalization by mean and variance, along one axis.
    pub(super) fn row(&mut self, x: Item, s: &[u8; 6]) {
        let shape = self.shape(x);
        let Some(along) = shape.len().checked_sub(1 + usize::from(s[2]) % 2) else { return self.map(x, s) };
        let over = [shape[along].clone()];
        if self.vs.dtype(x.id) != DType::Float32 || x.bounds.most > 30.0 || !self.affordable(&shape, &over) {
            return self.map(x, s);
        }
        self.push(shape.clone(), |m, i| {
            let at = |k: ExprId| {
                let mut index = i.to_vec();
                index[along] = k;
                index
            };
            let n = m.most(&over[0]) as f64;
            if s[3].is_multiple_of(2) {
                let most = m.fold(FoldOp::Max, &over, |m, k| m.load(x, &at(k[0])));
                let raised = |m: &mut Maker, k: ExprId| {
                    let t = m.load(x, &at(k));
                    let e = m.vs.arena.sub(t.e, most.e);
                    let e = m.vs.arena.unary(UnaryOp::Exp, e);
                    m.term(e, Bounds { most: 0.0, unit: 0.0, error: 2.0 * x.bounds.error }.function(1.0, 1.0))
                };
                let sum = m.fold(FoldOp::Sum, &over, |m, k| raised(m, k[0]));
                let top = raised(m, i[along]);
                let e = m.vs.arena.div(top.e, sum.e);
                // The sum is at least 1.
                return m.term(e, Bounds { most: 1.0, unit: 0.0, error: top.bounds.error + sum.bounds.error });
            }
            let size = m.vs.arena.dim(&over[0]);
            let size = m.vs.arena.cast(Ty::F32, size);
            let sum = m.fold(FoldOp::Sum, &over, |m, k| m.load(x, &at(k[0])));
            let mean = m.vs.arena.div(sum.e, size);
            let squares = m.fold(FoldOp::Sum, &over, |m, k| {
                let t = m.load(x, &at(k[0]));
                let e = m.vs.arena.sub(t.e, mean);
                let e = m.vs.arena.mul(e, e);
                m.term(e, x.bounds)
            });
            let variance = m.vs.arena.div(squares.e, size);
            let half = m.real(0.5);
            let e = m.vs.arena.add(variance, half.e);
            let root = m.vs.arena.unary(UnaryOp::Sqrt, e);
            let t = m.load(x, i);
            let e = m.vs.arena.sub(t.e, mean);
            let e = m.vs.arena.div(e, root);
            // d is twice the error of an element beside rounding; the variance moves by 2·most·d, its root by no more than
            // 0.71 times that, and the root is at least 0.7.
            let d = 2.0 * x.bounds.error + (n + 4.0) * x.bounds.most * 2.5e-7;
            let most = 2.0 * x.bounds.most * 1.42;
            let error = 1.42 * d + most * 1.42 * 0.71 * (4.0 * x.bounds.most * d) + most * (n + 8.0) * 2.5e-7;
            m.term(e, Bounds { most, unit: 0.0, error })
        });
    }

    /// A matrix product with constant or computed weights, and something behind it.
    pub(super) fn product(&mut self, x: Item, s: &[u8; 6]) {
        let shape = self.shape(x);
        let Some((k, rows)) = shape.split_last() else { return };
        let n = extent(s[2]);
        let constant = k.known().is_some() && n.known().is_some() && !s[3].is_multiple_of(4);
        let turned = s[4].is_multiple_of(2);
        let mut weights = if turned { vec![n.clone(), k.clone()] } else { vec![k.clone(), n.clone()] };
        let batch = if constant || s[4].is_multiple_of(3) { 0 } else { rows.len().saturating_sub(1) };
        weights.splice(0..0, rows[..batch].iter().cloned());
        let result = [rows, std::slice::from_ref(&n)].concat();
        let fits = self.affordable(&result, std::slice::from_ref(k)) && self.count(&weights) <= MOST_ELEMENTS;
        let most = x.bounds.most * 2.0 * self.most(k) as f64;
        if self.vs.dtype(x.id) != DType::Float32 || !fits || most > MOST_FLOAT {
            return self.map(x, s);
        }
        let w = self.fresh(DType::Float32, weights, constant);
        let bias = self.fresh(DType::Float32, vec![n.clone()], n.known().is_some());
        self.push(result, |m, i| {
            let (last, outer) = i.split_last().unwrap();
            let sum = m.fold(FoldOp::Sum, std::slice::from_ref(k), |m, k| {
                let a = m.load(x, &[outer, k].concat());
                let pair = if turned { [*last, k[0]] } else { [k[0], *last] };
                let b = m.load(w, &[&outer[..batch], &pair[..]].concat());
                m.apply2(BinaryOp::Mul, a, b, a.bounds.product(b.bounds))
            });
            let t = if s[5].is_multiple_of(2) {
                let b = m.load(bias, &[*last]);
                m.apply2(BinaryOp::Add, sum, b, sum.bounds.sum(b.bounds))
            } else {
                sum
            };
            if s[5].is_multiple_of(3) { m.unary(t, s[5] / 3) } else { t }
        });
    }

    /// A convolution over one or two axes, with padding, strides, and perhaps one filter a channel.
    pub(super) fn convolution(&mut self, x: Item, s: &[u8; 6]) {
        let suits = |m: &Maker, v: Item| {
            let shape = m.vs.shape(v.id);
            let known = shape.get(1).is_some_and(|c| c.known().is_some_and(|c| c <= 17));
            known && (3..=4).contains(&shape.len()) && m.vs.dtype(v.id) == DType::Float32 && v.bounds.most < 30.0
        };
        let x = if suits(self, x) {
            x
        } else {
            let channels = Dim::from([1, 3, 8, 16][usize::from(s[1]) % 4]);
            let size = || if s[1].is_multiple_of(3) { Dim::sym("n") } else { Dim::from(7) };
            let flat = s[1].is_multiple_of(5);
            let shape = vec![Dim::from(1 + i64::from(s[1] % 2)), channels, Dim::from(5), size()];
            self.fresh(DType::Float32, if flat { shape[..3].to_vec() } else { shape }, false)
        };
        let shape = self.shape(x);
        let (size, stride, pad) = (1 + i64::from(s[2] % 3), 1 + i64::from(s[3] % 2), i64::from(s[4] % 2));
        let alone = s[5].is_multiple_of(3);
        let mut result = vec![shape[0].clone()];
        let filters = if alone { shape[1].clone() } else { Dim::from([1, 5, 8, 12][usize::from(s[5] / 3) % 4]) };
        result.push(filters.clone());
        for d in &shape[2..] {
            let room = d.add(&Dim::from(2 * pad - size));
            if self.least(&room) < 0 {
                return self.map(x, s);
            }
            result.push(room.floor_div(&Dim::from(stride)).add(&Dim::from(1)));
        }
        let channels = if alone { Dim::from(1) } else { shape[1].clone() };
        let taps = vec![Dim::from(size); shape.len() - 2];
        let folded = [&[channels.clone()][..], &taps].concat();
        if !self.affordable(&result, &folded) {
            return self.map(x, s);
        }
        let w = self.fresh(DType::Float32, [&[filters][..], &folded].concat(), true);
        self.push(result, |m, i| {
            let over: Vec<Dim> = if alone { taps.clone() } else { folded.clone() };
            let sum = m.fold(FoldOp::Sum, &over, |m, k| {
                let (channel, k) = if alone { (i[1], k) } else { (k[0], &k[1..]) };
                let mut at = vec![i[0], channel];
                let mut inside = m.vs.arena.constant(Scalar::bool(true));
                for (d, tap) in k.iter().enumerate() {
                    let a = &mut m.vs.arena;
                    let (stride, shift) = (a.int(stride), a.int(pad));
                    let from = a.mul(i[2 + d], stride);
                    let from = a.add(from, *tap);
                    let from = a.sub(from, shift);
                    if pad > 0 {
                        let (zero, end) = (a.int(0), a.dim(&shape[2 + d]));
                        let (low, high) = (a.ge(from, zero), a.lt(from, end));
                        let both = a.and(low, high);
                        inside = a.and(inside, both);
                    }
                    at.push(from);
                }
                let a = m.load(x, &at);
                let zero = m.vs.arena.real(Ty::F32, 0.0);
                let e = if pad > 0 { m.vs.arena.select(inside, a.e, zero) } else { a.e };
                let a = m.term(e, a.bounds);
                let zero = m.vs.arena.int(0);
                let filter = [&[i[1], if alone { zero } else { channel }], k].concat();
                let b = m.load(w, &filter);
                m.apply2(BinaryOp::Mul, a, b, a.bounds.product(b.bounds))
            });
            if s[5].is_multiple_of(2) { m.unary(sum, s[5] / 2) } else { sum }
        });
    }

    /// Attention: scores of queries and keys, their softmax, the values by that.
    pub(super) fn attention(&mut self, s: &[u8; 6]) {
        let heads = Dim::from([1, 2, 3][usize::from(s[1]) % 3]);
        let (rows, keys) = (extent(s[2]), extent(s[3]));
        let width = Dim::from([4, 8, 16][usize::from(s[4]) % 3]);
        let columns = Dim::from([4, 8, 5][usize::from(s[5]) % 3]);
        let mut made = vec![];
        for shape in [[&rows, &width], [&keys, &width], [&keys, &columns]] {
            let shape = [&heads, shape[0], shape[1]].map(Dim::clone).to_vec();
            made.push(self.fresh(DType::Float32, shape, false));
        }
        let mask = self.fresh(DType::Float32, vec![keys.clone()], false);
        let before = self.items.len();
        self.push(vec![heads.clone(), rows.clone(), keys.clone()], |m, i| {
            let sum = m.fold(FoldOp::Sum, std::slice::from_ref(&width), |m, k| {
                let (a, b) = (m.load(made[0], &[i[0], i[1], k[0]]), m.load(made[1], &[i[0], i[2], k[0]]));
                m.apply2(BinaryOp::Mul, a, b, a.bounds.product(b.bounds))
            });
            let scale = m.real(0.25);
            let t = m.apply2(BinaryOp::Mul, sum, scale, sum.bounds.product(scale.bounds));
            let mask = m.load(mask, &[i[2]]);
            if s[5].is_multiple_of(2) { m.apply2(BinaryOp::Add, t, mask, t.bounds.sum(mask.bounds)) } else { t }
        });
        if self.items.len() == before {
            return;
        }
        let scores = self.items[before];
        self.row(scores, &[0; 6]);
        let weights = self.items[self.items.len() - 1];
        self.push(vec![heads, rows, columns], |m, i| {
            m.fold(FoldOp::Sum, std::slice::from_ref(&keys), |m, t| {
                let (a, b) = (m.load(weights, &[i[0], i[1], t[0]]), m.load(made[2], &[i[0], t[0], i[2]]));
                m.apply2(BinaryOp::Mul, a, b, a.bounds.product(b.bounds))
            })
        });
    }

    /// A program: sums along the last axis, each element with those before it.
    pub(super) fn running_sum(&mut self, x: Item, s: &[u8; 6]) {
        let shape = self.shape(x);
        let Some((last, rows)) = shape.split_last() else { return };
        let dtype = self.vs.dtype(x.id);
        let n = self.most(last) as f64;
        if !matches!(dtype, DType::Float32 | DType::Int32 | DType::Int64) || x.bounds.most * n > MOST_FLOAT {
            return self.map(x, s);
        }
        let bounds = if dtype == DType::Float32 { x.bounds.total(n) } else { Bounds::exact(x.bounds.most * n, 1.0) };
        let ty = Ty::of(dtype);
        let ids = self.vs.program(vec![(dtype, shape.clone())], |vs, out| {
            let a = &mut vs.arena;
            let parallel: Vec<Axis> = rows.iter().map(|d| a.axis(d.clone())).collect();
            let along = a.axis(last.clone());
            let at: Vec<ExprId> = parallel.iter().chain([&along]).map(|x| a.axis_expr(*x)).collect();
            let sum = a.var();
            let (so_far, zero) = (a.add_node(Node::Var(sum, ty)), a.constant(Scalar::int(ty, 0)));
            let element = vs.load(x.id, &at);
            let next = vs.arena.add(so_far, element);
            let body = vec![
                Stmt::Set { var: sum, ty, to: if s[2].is_multiple_of(2) { next } else { so_far } },
                Stmt::Store { value: out[0], index: at, to: so_far },
                Stmt::Set { var: sum, ty, to: if s[2].is_multiple_of(2) { so_far } else { next } },
            ];
            Ok((parallel, vec![Stmt::Set { var: sum, ty, to: zero }, Stmt::For { axis: along, body }]))
        });
        self.items.push(Item { id: ids.unwrap()[0], bounds });
    }
}
