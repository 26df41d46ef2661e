//! Random models: inputs of random shapes, then steps that each compute a value from earlier ones.

use super::bounds::Bounds;
use crate::kernel::{Axis, BinaryOp, ExprId, FoldOp, Func, Node, Scalar, Stmt, Ty, UnaryOp, ValueId, Values};
use crate::tensor::{Array, Bindings, DType, Dim, DimRange, Shape, Sym, numel};
use proptest::prelude::*;

/// The numbers that a model is made from. Any numbers make one.
#[derive(Debug, Clone)]
pub(super) struct Recipe {
    /// The sizes of the symbolic dims `n` and `m`.
    sizes: (i64, i64),
    /// An input each: its data type, its rank and its extents.
    inputs: Vec<[u8; 6]>,
    /// A value each: what to do, and with what.
    steps: Vec<[u8; 6]>,
    outputs: usize,
}

pub(super) fn recipes() -> impl Strategy<Value = Recipe> {
    let list = |n| prop::collection::vec(any::<[u8; 6]>(), n);
    ((2i64..=12, 2i64..=5), list(1..4), list(1..8), 1usize..4).prop_map(|(sizes, inputs, steps, outputs)| Recipe {
        sizes,
        inputs,
        steps,
        outputs,
    })
}

/// A model, its inputs, and what its outputs should be like.
pub(super) struct Model {
    pub(super) values: Values,
    pub(super) inputs: Vec<Array>,
    pub(super) dims: Bindings,
    pub(super) outputs: Vec<Item>,
    /// What each step did, for people.
    pub(super) steps: Vec<String>,
}

impl Model {
    pub(super) fn output_ids(&self) -> Vec<ValueId> {
        self.outputs.iter().map(|o| o.id).collect()
    }
}

/// A value with what is known of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Item {
    pub(super) id: ValueId,
    pub(super) bounds: Bounds,
}

/// An expression with what is known of it.
#[derive(Clone, Copy)]
struct Term {
    e: ExprId,
    ty: Ty,
    bounds: Bounds,
}

/// No value has more elements than this, whatever the symbolic dims are.
const MOST_ELEMENTS: i64 = 3000;
/// No function evaluates the bodies of its folds more often than this.
const MOST_WORK: i64 = 60_000;
/// Floats stay below this.
const MOST_FLOAT: f64 = 1e4;
/// Integers of 64 bits stay below this: the GPU computes them in 32.
const MOST_LONG: f64 = 2e9;

pub(super) fn make(recipe: &Recipe) -> Model {
    let mut m = Maker { vs: Values::new(), items: vec![], data: vec![], dims: Bindings::new(), steps: vec![], seed: 1 };
    for (name, size, max) in [("n", recipe.sizes.0, 12), ("m", recipe.sizes.1, 5)] {
        m.dims.insert(Sym::from(name), size);
        m.vs.arena.ranges.insert(Sym::from(name), DimRange { min: 2, max });
    }
    for i in &recipe.inputs {
        let dtype = match i[0] % 8 {
            0..=4 => DType::Float32,
            5 => DType::Int32,
            6 => [DType::Int64, DType::Uint8][usize::from(i[5]) % 2],
            _ => [DType::Bool, DType::Int8][usize::from(i[5]) % 2],
        };
        let mut shape = vec![];
        for d in &i[2..2 + usize::from(i[1]) % 5] {
            shape.push(extent(*d));
            if m.count(&shape) > MOST_ELEMENTS {
                shape.pop();
            }
        }
        m.fresh(dtype, shape, false);
    }
    for s in &recipe.steps {
        m.vs.path = format!("step {}", m.steps.len());
        let before = m.items.len();
        m.step(s);
        if m.items.len() == before {
            m.steps.push("nothing".into());
        }
        while m.steps.len() < m.items.len() {
            let last = m.items[m.items.len() - 1].id;
            m.steps.push(format!("{:?} {} {}", s, m.vs.dtype(last), crate::tensor::show(m.vs.shape(last))));
        }
    }
    // The last value, and some before it.
    let mut outputs = vec![];
    for (i, item) in m.items.iter().rev().enumerate() {
        if i % 2 == 0 && outputs.len() < recipe.outputs {
            outputs.push(*item);
        }
    }
    Model { values: m.vs, inputs: m.data, dims: m.dims, outputs, steps: m.steps }
}

fn extent(pick: u8) -> Dim {
    match usize::from(pick) % 14 {
        11 | 13 => Dim::sym("n"),
        12 => Dim::sym("m"),
        i => Dim::from([1, 2, 3, 4, 5, 7, 8, 9, 16, 17, 6][i]),
    }
}

struct Maker {
    vs: Values,
    items: Vec<Item>,
    data: Vec<Array>,
    dims: Bindings,
    steps: Vec<String>,
    seed: u64,
}

impl Maker {
    /// Elements at the upper bounds of the dims.
    fn count(&self, shape: &[Dim]) -> i64 {
        self.most(&numel(shape))
    }

    fn most(&self, d: &Dim) -> i64 {
        d.range(&self.vs.arena.ranges).max
    }

    fn least(&self, d: &Dim) -> i64 {
        d.range(&self.vs.arena.ranges).min
    }

    fn pick(&self, by: u8) -> Item {
        // Late values first: chains are what fusion is about.
        let n = self.items.len();
        self.items[n - 1 - usize::from(by) % n]
    }

    fn shape(&self, i: Item) -> Shape {
        self.vs.shape(i.id).to_vec()
    }

    fn random(&mut self) -> i64 {
        self.seed = self.seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.seed >> 33) as i64
    }

    /// A constant or an input. Floats are multiples of 1/4 up to 2.
    fn fresh(&mut self, dtype: DType, shape: Shape, constant: bool) -> Item {
        let sizes: Vec<usize> = shape.iter().map(|d| d.eval(&self.dims).unwrap() as usize).collect();
        let mut bytes = vec![];
        for _ in 0..sizes.iter().product::<usize>() {
            let r = self.random();
            match dtype {
                DType::Float32 => bytes.extend(((r % 17 - 8) as f32 / 4.0).to_le_bytes()),
                DType::Bool | DType::Uint8 => bytes.push((r % if dtype == DType::Bool { 2 } else { 256 }) as u8),
                _ => bytes.extend(&(r % 101 - 50).to_le_bytes()[..dtype.size()]),
            }
        }
        let bounds = match dtype {
            DType::Float32 => Bounds::exact(2.0, 0.25),
            DType::Bool => Bounds::exact(1.0, 1.0),
            DType::Uint8 => Bounds::exact(255.0, 1.0),
            _ => Bounds::exact(50.0, 1.0),
        };
        let array = Array::new(dtype, sizes, bytes).unwrap();
        let id = if constant {
            self.vs.constant_array(array)
        } else {
            self.data.push(array);
            self.vs.input(self.data.len() - 1, dtype, shape)
        };
        let item = Item { id, bounds };
        self.items.push(item);
        item
    }

    /// A value whose elements `f` gives for an index, where it is small enough.
    fn push(&mut self, shape: Shape, f: impl FnOnce(&mut Maker, &[ExprId]) -> Term) {
        self.push_as(None, shape, f);
    }

    /// The same, stored as a type of its own.
    fn push_as(&mut self, dtype: Option<DType>, shape: Shape, f: impl FnOnce(&mut Maker, &[ExprId]) -> Term) {
        if self.count(&shape) > MOST_ELEMENTS || shape.len() > 5 {
            return;
        }
        let axes: Vec<Axis> = shape.iter().map(|d| self.vs.arena.axis(d.clone())).collect();
        let index: Vec<ExprId> = axes.iter().map(|a| self.vs.arena.axis_expr(*a)).collect();
        let t = f(self, &index);
        let plain = match t.ty {
            Ty::I32 => DType::Int32,
            Ty::I64 => DType::Int64,
            Ty::U32 => DType::Uint32,
            Ty::Bool => DType::Bool,
            _ => DType::Float32,
        };
        let id = self.vs.define(dtype.unwrap_or(plain), shape, Func { axes, expr: t.e });
        self.items.push(Item { id, bounds: t.bounds });
    }

    fn term(&self, e: ExprId, bounds: Bounds) -> Term {
        Term { e, ty: self.vs.arena.ty(e), bounds }
    }

    fn load(&mut self, x: Item, index: &[ExprId]) -> Term {
        let e = self.vs.load(x.id, index);
        let t = self.term(e, x.bounds);
        // Narrow types are for storing only.
        if t.ty == Ty::U32 { self.cast(t, Ty::I32) } else { t }
    }

    fn cast(&mut self, t: Term, ty: Ty) -> Term {
        let e = self.vs.arena.cast(ty, t.e);
        let bounds = match (t.ty, ty) {
            (from, to) if from == to => t.bounds,
            (_, Ty::F32) if !t.ty.is_float() => Bounds::arithmetic(t.bounds.most, t.bounds.unit, 0.0, 1.0),
            (_, Ty::Bool) => Bounds::exact(1.0, 1.0),
            _ => Bounds::exact(t.bounds.most, 1.0),
        };
        Term { e, ty, bounds }
    }

    fn real(&mut self, x: f64) -> Term {
        let e = self.vs.arena.real(Ty::F32, x);
        Term { e, ty: Ty::F32, bounds: Bounds::exact(x.abs(), if x == 0.0 { 1.0 } else { 0.25 }) }
    }

    fn apply(&mut self, op: UnaryOp, t: Term, bounds: Bounds) -> Term {
        let e = self.vs.arena.unary(op, t.e);
        self.term(e, bounds)
    }

    fn apply2(&mut self, op: BinaryOp, a: Term, b: Term, bounds: Bounds) -> Term {
        let e = self.vs.arena.binary(op, a.e, b.e);
        self.term(e, bounds)
    }

    /// An operator of one operand. What jumps is only applied to what all targets know exactly.
    fn unary(&mut self, t: Term, by: u8) -> Term {
        use UnaryOp as U;
        let (b, one) = (t.bounds, Bounds::exact(1.0, 1.0));
        match t.ty {
            Ty::F32 => match by % 18 {
                0 => self.apply(U::Neg, t, b),
                1 => self.apply(U::Abs, t, b),
                2 => self.apply(U::Tanh, t, b.function(1.0, 1.0)),
                3 => self.apply(U::Erf, t, b.function(1.0, 1.2)),
                4 | 5 if b.most <= 100.0 => {
                    // Large arguments lose what their own rounding is.
                    let at = Bounds { error: b.error + b.most * 3e-7, ..b };
                    self.apply(if by % 18 == 4 { U::Sin } else { U::Cos }, t, at.function(1.0, 1.0))
                }
                6 => self.apply(U::Atan, t, b.function(1.6, 1.0)),
                7 => {
                    let limit = self.real(2.0);
                    let x = self.apply2(BinaryOp::Min, t, limit, b);
                    self.apply(U::Exp, x, b.function(7.4, 7.4))
                }
                8 => {
                    let x = self.apply(U::Abs, t, b);
                    // Between 0 and the error, the root grows fastest.
                    let error = b.error.sqrt() + b.most.sqrt() * 1e-6;
                    self.apply(U::Sqrt, x, Bounds { most: b.most.sqrt(), unit: 0.0, error })
                }
                9 => {
                    let x = self.apply(U::Abs, t, b);
                    let one = self.real(1.0);
                    let x = self.apply2(BinaryOp::Add, x, one, b.sum(Bounds::exact(1.0, 1.0)));
                    self.apply(U::Log, x, x.bounds.function(x.bounds.most.ln(), 1.0))
                }
                10..=13 if b.is_exact() => {
                    let op = [U::Floor, U::Ceil, U::Trunc, U::Round][usize::from(by % 18) - 10];
                    self.apply(op, t, Bounds::exact(b.most.ceil(), 1.0))
                }
                14 if b.is_exact() => self.apply(U::Sign, t, one),
                15 if b.is_exact() => self.cast(t, Ty::I32),
                16 if b.is_exact() && b.most < 6e4 => self.apply(U::RoundF16, t, b),
                17 if b.is_exact() => self.apply(U::RoundBf16, t, Bounds { most: b.most * 1.01, ..b }),
                _ => self.apply(U::Neg, t, b),
            },
            Ty::I32 | Ty::I64 => match by % 7 {
                0 => self.apply(U::Neg, t, b),
                1 => self.apply(U::Abs, t, b),
                2 => self.apply(U::Sign, t, one),
                3 if t.ty == Ty::I32 => self.apply(U::Not, t, Bounds::exact(b.most + 1.0, 1.0)),
                4 if b.most < MOST_LONG => self.cast(t, if t.ty == Ty::I32 { Ty::I64 } else { Ty::I32 }),
                5 => self.cast(t, Ty::Bool),
                _ => self.cast(t, Ty::F32),
            },
            _ => match by % 3 {
                0 => self.apply(U::Not, t, one),
                1 => self.cast(t, Ty::I32),
                _ => self.cast(t, Ty::F32),
            },
        }
    }

    /// Both in one type.
    fn alike(&mut self, a: Term, b: Term) -> (Term, Term) {
        if a.ty == b.ty { (a, b) } else { (self.cast(a, Ty::F32), self.cast(b, Ty::F32)) }
    }

    fn binary(&mut self, a: Term, b: Term, by: u8) -> Term {
        use BinaryOp as B;
        let (a, b) = self.alike(a, b);
        let (x, y, one) = (a.bounds, b.bounds, Bounds::exact(1.0, 1.0));
        let exact = x.is_exact() && y.is_exact();
        let comparisons = [B::Eq, B::Ne, B::Lt, B::Le, B::Gt, B::Ge];
        match a.ty {
            Ty::F32 => match by % 13 {
                0 | 1 if x.most + y.most < MOST_FLOAT => {
                    self.apply2(if by % 13 == 0 { B::Add } else { B::Sub }, a, b, x.sum(y))
                }
                2 | 3 if x.most * y.most < MOST_FLOAT => self.apply2(B::Mul, a, b, x.product(y)),
                4 => {
                    let (size, plus) = (self.apply(UnaryOp::Abs, b, y), self.real(1.0));
                    let below = self.apply2(B::Add, size, plus, y.sum(Bounds::exact(1.0, 1.0)));
                    let error = x.error + x.most * below.bounds.error;
                    self.apply2(B::Div, a, below, Bounds::arithmetic(x.most, 0.0, error, 2.0))
                }
                5 => {
                    // (1/2 + |a|)^b with |a| up to 4 and |b| up to 2.
                    let (four, half) = (self.real(4.0), self.real(0.5));
                    let base = self.apply(UnaryOp::Abs, a, x);
                    let base = self.apply2(B::Min, base, four, x);
                    let base = self.apply2(B::Add, base, half, x);
                    let (low, high) = (self.real(-2.0), self.real(2.0));
                    let power = self.apply2(B::Max, b, low, y);
                    let power = self.apply2(B::Min, power, high, y);
                    let error = Bounds { most: 0.0, unit: 0.0, error: x.error + 2e-7 + y.error };
                    self.apply2(B::Pow, base, power, error.function(20.25, 40.0))
                }
                6 if exact => self.apply2(comparisons[usize::from(by / 13) % 6], a, b, one),
                7 | 8 if exact => {
                    // The divisor is an exact number of at least 1.
                    let (size, plus) = (self.apply(UnaryOp::Abs, b, y), self.real(1.0));
                    let below = self.apply2(B::Add, size, plus, y.sum(Bounds::exact(1.0, 1.0)));
                    let op = if by % 13 == 7 { B::Rem } else { B::FloorMod };
                    self.apply2(
                        op,
                        a,
                        below,
                        Bounds::arithmetic(x.most.max(y.most + 1.0), x.unit.min(y.unit), 0.0, 1.0),
                    )
                }
                9 | 10 if exact => {
                    let condition = self.apply2(comparisons[usize::from(by / 13) % 6], a, b, one);
                    let otherwise = if by % 13 == 9 { self.unary(b, 2) } else { b };
                    let e = self.vs.arena.select(condition.e, a.e, otherwise.e);
                    self.term(e, x.either(otherwise.bounds))
                }
                11 => self.apply2(B::Max, a, b, x.either(y)),
                _ => self.apply2(B::Min, a, b, x.either(y)),
            },
            Ty::I32 | Ty::I64 => {
                let wide = a.ty == Ty::I64;
                let room = |most: f64| !wide || most < MOST_LONG;
                let least = Bounds::exact(x.most.max(y.most), 1.0);
                let wrapped = |most: f64| Bounds::exact(if wide { most } else { most.min(2f64.powi(31)) }, 1.0);
                match by % 14 {
                    0 if room(x.most + y.most) => self.apply2(B::Add, a, b, wrapped(x.most + y.most)),
                    1 if room(x.most + y.most) => self.apply2(B::Sub, a, b, wrapped(x.most + y.most)),
                    2 if room(x.most * y.most) => self.apply2(B::Mul, a, b, wrapped(x.most * y.most)),
                    3 => self.apply2(B::Div, a, b, x),
                    4 => self.apply2(B::Rem, a, b, x),
                    5 => self.apply2(B::FloorDiv, a, b, wrapped(x.most + 1.0)),
                    6 => self.apply2(B::FloorMod, a, b, least),
                    7 if !wide => {
                        let op = [B::And, B::Or, B::Xor][usize::from(by / 14) % 3];
                        self.apply2(op, a, b, wrapped(2.0 * least.most + 1.0))
                    }
                    8 | 9 if !wide => {
                        let seven = self.vs.arena.int(7);
                        let seven = self.term(seven, Bounds::exact(7.0, 1.0));
                        let by_bits = self.apply2(B::And, b, seven, Bounds::exact(7.0, 1.0));
                        let (op, most) = if by % 14 == 8 { (B::Shl, x.most * 128.0) } else { (B::Shr, x.most) };
                        self.apply2(op, a, by_bits, wrapped(most))
                    }
                    10 | 11 => self.apply2(comparisons[usize::from(by / 14) % 6], a, b, one),
                    12 => self.apply2(B::Max, a, b, least),
                    _ => self.apply2(B::Min, a, b, least),
                }
            }
            _ => self.apply2([B::And, B::Or, B::Xor, B::Eq, B::Ne][usize::from(by) % 5], a, b, one),
        }
    }

    fn step(&mut self, s: &[u8; 6]) {
        let x = self.pick(s[1]);
        match s[0] % 18 {
            0 | 1 => self.map(x, s),
            2..=5 => self.broadcast(x, s),
            6 => self.permute(x, s),
            7 => self.pad(x, s),
            8 => self.reshape(x, s),
            9 => self.reduce(x, s),
            10 => self.position(x, s),
            11 => self.row(x, s),
            12 => self.product(x, s),
            13 => self.convolution(x, s),
            14 => self.gather(x, s),
            15 => self.running_sum(x, s),
            16 => self.attention(s),
            _ => self.narrow(x, s),
        }
    }

    fn map(&mut self, x: Item, s: &[u8; 6]) {
        self.push(self.shape(x), |m, i| {
            let t = m.load(x, i);
            let t = m.unary(t, s[2]);
            // The element's place takes part now and then.
            let t = match i.first().filter(|_| s[3] % 3 == 0) {
                Some(first) => {
                    let place = m.term(*first, Bounds::exact(MOST_ELEMENTS as f64, 1.0));
                    m.binary(t, place, s[4])
                }
                None => t,
            };
            m.unary(t, s[5])
        });
    }

    fn broadcast(&mut self, x: Item, s: &[u8; 6]) {
        let y = self.pick(s[2]);
        let (a, b) = (self.shape(x), self.shape(y));
        let rank = a.len().max(b.len());
        let mut shape = vec![];
        for i in 0..rank {
            let at = |d: &[Dim]| (i + d.len()).checked_sub(rank).map_or_else(|| Dim::from(1), |i| d[i].clone());
            let (p, q) = (at(&a), at(&b));
            if p != q && !p.is(1) && !q.is(1) {
                return self.map(x, s);
            }
            shape.push(if p.is(1) { q } else { p });
        }
        let load = |m: &mut Maker, v: Item, i: &[ExprId]| {
            let e = m.vs.load_broadcast(v.id, i);
            let t = m.term(e, v.bounds);
            if t.ty == Ty::U32 { m.cast(t, Ty::I32) } else { t }
        };
        self.push(shape, |m, i| {
            let (p, q) = (load(m, x, i), load(m, y, i));
            let p = if s[5] % 4 == 0 { m.unary(p, s[5] / 4) } else { p };
            let t = m.binary(p, q, s[3]);
            if s[4] % 2 == 0 { m.unary(t, s[4] / 2) } else { t }
        });
    }

    /// Axes in another order, one of them backwards or only a part of it.
    fn permute(&mut self, x: Item, s: &[u8; 6]) {
        let shape = self.shape(x);
        let rank = shape.len();
        if rank == 0 {
            return;
        }
        let turn = usize::from(s[2]) % rank;
        let order: Vec<usize> =
            (0..rank).map(|i| if s[3] % 2 == 0 { (i + turn) % rank } else { rank - 1 - i }).collect();
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
    fn pad(&mut self, x: Item, s: &[u8; 6]) {
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
    fn reshape(&mut self, x: Item, s: &[u8; 6]) {
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

    /// `f` folded over axes of these extents.
    fn fold(&mut self, op: FoldOp, extents: &[Dim], f: impl FnOnce(&mut Maker, &[ExprId]) -> Term) -> Term {
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
    fn affordable(&self, shape: &[Dim], folded: &[Dim]) -> bool {
        self.count(shape).saturating_mul(self.count(folded)) <= MOST_WORK
    }

    fn reduce(&mut self, x: Item, s: &[u8; 6]) {
        let shape = self.shape(x);
        let folded: Vec<bool> = (0..shape.len()).map(|d| s[2] >> d & 1 == 1).collect();
        let keep = s[3] % 2 == 0;
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
                let t = if s[5] % 3 == 0 { m.unary(t, s[5] / 3) } else { t };
                if t.ty == Ty::Bool { m.cast(t, Ty::I32) } else { t }
            };
            let n = m.count(&over) as f64;
            let op = match s[4] % 4 {
                0 | 1 if x.bounds.most * n < MOST_FLOAT => FoldOp::Sum,
                3 => FoldOp::Max,
                _ => FoldOp::Min,
            };
            let t = m.fold(op, &over, body);
            if s[5] % 2 == 0 { m.unary(t, s[5] / 2) } else { t }
        });
    }

    /// Where the greatest or least element of an axis is, or the product of a few.
    fn position(&mut self, x: Item, s: &[u8; 6]) {
        let shape = self.shape(x);
        if shape.is_empty() || !x.bounds.is_exact() || self.vs.dtype(x.id) == DType::Bool {
            return self.row(x, s);
        }
        let along = usize::from(s[2]) % shape.len();
        let mut result = shape.clone();
        let over = result.remove(along);
        let last = s[3] % 2 == 0;
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
    fn row(&mut self, x: Item, s: &[u8; 6]) {
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
            if s[3] % 2 == 0 {
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
    fn product(&mut self, x: Item, s: &[u8; 6]) {
        let shape = self.shape(x);
        let Some((k, rows)) = shape.split_last() else { return };
        let n = extent(s[2]);
        let constant = k.known().is_some() && n.known().is_some() && s[3] % 4 != 0;
        let turned = s[4] % 2 == 0;
        let mut weights = if turned { vec![n.clone(), k.clone()] } else { vec![k.clone(), n.clone()] };
        let batch = if constant || s[4] % 3 == 0 { 0 } else { rows.len().saturating_sub(1) };
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
            let t = if s[5] % 2 == 0 {
                let b = m.load(bias, &[*last]);
                m.apply2(BinaryOp::Add, sum, b, sum.bounds.sum(b.bounds))
            } else {
                sum
            };
            if s[5] % 3 == 0 { m.unary(t, s[5] / 3) } else { t }
        });
    }

    /// A convolution over one or two axes, with padding, strides, and perhaps one filter a channel.
    fn convolution(&mut self, x: Item, s: &[u8; 6]) {
        let suits = |m: &Maker, v: Item| {
            let shape = m.vs.shape(v.id);
            let known = shape.get(1).is_some_and(|c| c.known().is_some_and(|c| c <= 17));
            known && (3..=4).contains(&shape.len()) && m.vs.dtype(v.id) == DType::Float32 && v.bounds.most < 30.0
        };
        let x = if suits(self, x) {
            x
        } else {
            let channels = Dim::from([1, 3, 8, 16][usize::from(s[1]) % 4]);
            let size = || if s[1] % 3 == 0 { Dim::sym("n") } else { Dim::from(7) };
            let flat = s[1] % 5 == 0;
            let shape = vec![Dim::from(1 + i64::from(s[1] % 2)), channels, Dim::from(5), size()];
            self.fresh(DType::Float32, if flat { shape[..3].to_vec() } else { shape }, false)
        };
        let shape = self.shape(x);
        let (size, stride, pad) = (1 + i64::from(s[2] % 3), 1 + i64::from(s[3] % 2), i64::from(s[4] % 2));
        let alone = s[5] % 3 == 0;
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
            if s[5] % 2 == 0 { m.unary(sum, s[5] / 2) } else { sum }
        });
    }

    /// Attention: scores of queries and keys, their softmax, the values by that.
    fn attention(&mut self, s: &[u8; 6]) {
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
            if s[5] % 2 == 0 { m.apply2(BinaryOp::Add, t, mask, t.bounds.sum(mask.bounds)) } else { t }
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

    /// A value stored in a narrow type.
    fn narrow(&mut self, x: Item, s: &[u8; 6]) {
        let (exact, most) = (x.bounds.is_exact(), x.bounds.most);
        let dtype = match self.vs.ty(x.id) {
            Ty::F32 if exact && most < 6e4 => [DType::Float16, DType::BFloat16][usize::from(s[2]) % 2],
            Ty::I32 if most < 128.0 && s[2] % 3 == 0 => DType::Int8,
            Ty::I32 if most < 32768.0 && s[2] % 3 == 1 => DType::Int16,
            Ty::I32 => DType::Uint8,
            _ => return self.map(x, s),
        };
        self.push_as(Some(dtype), self.shape(x), |m, i| {
            let t = m.load(x, i);
            match dtype {
                DType::Float16 => m.apply(UnaryOp::RoundF16, t, t.bounds),
                DType::BFloat16 => m.apply(UnaryOp::RoundBf16, t, Bounds { most: most * 1.01, ..t.bounds }),
                DType::Uint8 => {
                    let all = m.vs.arena.int(256);
                    let e = m.vs.arena.binary(BinaryOp::FloorMod, t.e, all);
                    let e = m.vs.arena.cast(Ty::U32, e);
                    m.term(e, Bounds::exact(255.0, 1.0))
                }
                _ => t,
            }
        });
    }

    /// Rows of one value, chosen by the elements of another.
    fn gather(&mut self, x: Item, s: &[u8; 6]) {
        let by = self.pick(s[2]);
        let (shape, chosen) = (self.shape(x), self.shape(by));
        let whole = self.vs.dtype(by.id).is_int();
        if shape.is_empty() || chosen.len() > 2 {
            return self.map(x, s);
        }
        let by = if whole {
            by
        } else {
            self.fresh(DType::Int32, vec![extent(s[3])], s[4] % 2 == 0 && extent(s[3]).known().is_some())
        };
        let chosen = self.shape(by);
        self.push([&chosen[..], &shape[1..]].concat(), |m, i| {
            let t = m.load(by, &i[..chosen.len()]);
            let t = m.cast(t, Ty::I32);
            let n = m.vs.arena.dim(&shape[0]);
            let at = m.vs.arena.binary(BinaryOp::FloorMod, t.e, n);
            let t = m.load(x, &[&[at], &i[chosen.len()..]].concat());
            if s[5] % 2 == 0 { m.unary(t, s[5] / 2) } else { t }
        });
    }

    /// A program: sums along the last axis, each element with those before it.
    fn running_sum(&mut self, x: Item, s: &[u8; 6]) {
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
                Stmt::Set { var: sum, ty, to: if s[2] % 2 == 0 { next } else { so_far } },
                Stmt::Store { value: out[0], index: at, to: so_far },
                Stmt::Set { var: sum, ty, to: if s[2] % 2 == 0 { so_far } else { next } },
            ];
            Ok((parallel, vec![Stmt::Set { var: sum, ty, to: zero }, Stmt::For { axis: along, body }]))
        });
        self.items.push(Item { id: ids.unwrap()[0], bounds });
    }
}
