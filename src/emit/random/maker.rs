//! Random models: inputs of random shapes, then steps that each compute a value from earlier ones.

use super::bounds::Bounds;
use crate::kernel::{Axis, BinaryOp, ExprId, Func, Ty, UnaryOp, ValueId, Values};
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
pub(super) struct Term {
    pub(super) e: ExprId,
    pub(super) ty: Ty,
    pub(super) bounds: Bounds,
}

/// No value has more elements than this, whatever the symbolic dims are.
pub(super) const MOST_ELEMENTS: i64 = 3000;
/// No function evaluates the bodies of its folds more often than this.
pub(super) const MOST_WORK: i64 = 60_000;
/// Floats stay below this.
pub(super) const MOST_FLOAT: f64 = 1e4;
/// Integers of 64 bits stay below this: the GPU computes them in 32.
pub(super) const MOST_LONG: f64 = 2e9;

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

pub(super) fn extent(pick: u8) -> Dim {
    match usize::from(pick) % 14 {
        11 | 13 => Dim::sym("n"),
        12 => Dim::sym("m"),
        i => Dim::from([1, 2, 3, 4, 5, 7, 8, 9, 16, 17, 6][i]),
    }
}

pub(super) struct Maker {
    pub(super) vs: Values,
    pub(super) items: Vec<Item>,
    data: Vec<Array>,
    dims: Bindings,
    steps: Vec<String>,
    seed: u64,
}

impl Maker {
    /// Elements at the upper bounds of the dims.
    pub(super) fn count(&self, shape: &[Dim]) -> i64 {
        self.most(&numel(shape))
    }

    pub(super) fn most(&self, d: &Dim) -> i64 {
        d.range(&self.vs.arena.ranges).max
    }

    pub(super) fn least(&self, d: &Dim) -> i64 {
        d.range(&self.vs.arena.ranges).min
    }

    pub(super) fn pick(&self, by: u8) -> Item {
        // Late values first: chains are what fusion is about.
        let n = self.items.len();
        self.items[n - 1 - usize::from(by) % n]
    }

    pub(super) fn shape(&self, i: Item) -> Shape {
        self.vs.shape(i.id).to_vec()
    }

    pub(super) fn random(&mut self) -> i64 {
        self.seed = self.seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.seed >> 33) as i64
    }

    /// A constant or an input. Floats are multiples of 1/4 up to 2.
    pub(super) fn fresh(&mut self, dtype: DType, shape: Shape, constant: bool) -> Item {
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
    pub(super) fn push(&mut self, shape: Shape, f: impl FnOnce(&mut Maker, &[ExprId]) -> Term) {
        self.push_as(None, shape, f);
    }

    /// The same, stored as a type of its own.
    pub(super) fn push_as(
        &mut self,
        dtype: Option<DType>,
        shape: Shape,
        f: impl FnOnce(&mut Maker, &[ExprId]) -> Term,
    ) {
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

    pub(super) fn map(&mut self, x: Item, s: &[u8; 6]) {
        self.push(self.shape(x), |m, i| {
            let t = m.load(x, i);
            let t = m.unary(t, s[2]);
            // The element's place takes part now and then.
            let t = match i.first().filter(|_| s[3].is_multiple_of(3)) {
                Some(first) => {
                    let place = m.term(*first, Bounds::exact(MOST_ELEMENTS as f64, 1.0));
                    m.binary(t, place, s[4])
                }
                None => t,
            };
            m.unary(t, s[5])
        });
    }

    pub(super) fn broadcast(&mut self, x: Item, s: &[u8; 6]) {
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
            let p = if s[5].is_multiple_of(4) { m.unary(p, s[5] / 4) } else { p };
            let t = m.binary(p, q, s[3]);
            if s[4].is_multiple_of(2) { m.unary(t, s[4] / 2) } else { t }
        });
    }

    /// A value stored in a narrow type.
    fn narrow(&mut self, x: Item, s: &[u8; 6]) {
        let (exact, most) = (x.bounds.is_exact(), x.bounds.most);
        let dtype = match self.vs.ty(x.id) {
            Ty::F32 if exact && most < 6e4 => [DType::Float16, DType::BFloat16][usize::from(s[2]) % 2],
            Ty::I32 if most < 128.0 && s[2].is_multiple_of(3) => DType::Int8,
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
}
