//! The naive evaluator: computes the values of [`Values`] one element at a time, straight from the definitions in
//! [`super::expr`] and [`super::program`]. Tests compare lowerings, fusion, schedules and both emitters with it.
//!
//! It is strict where targets are not: a load outside of its value, an element of a program that is read before it is
//! written, and two parallel iterations that touch one element are errors.

use super::{Axis, BinaryOp, Def, ExprId, FoldOp, Node, Program, Scalar, Stmt, Ty, UnaryOp, ValueId, Values, Var};
use crate::error::{Error, Kind, Result};
use crate::tensor::{Array, Bindings, DType};
use std::collections::{BTreeSet, HashMap};
use std::rc::Rc;

/// The data of every value, in the order of [`Values::iter`], for the model's inputs by position.
pub fn evaluate(values: &Values, inputs: &[Array], dims: &Bindings) -> Result<Vec<Array>> {
    let mut m = Machine::new(values, dims);
    for (id, v) in values.iter() {
        if m.memory[id.0 as usize].is_some() {
            continue;
        }
        match &v.def {
            Def::Input(i) => {
                let array = inputs.get(*i).ok_or_else(|| internal(format!("no input {i}")))?;
                let want = m.shape(id)?;
                if array.dtype() != v.dtype || array.shape().iter().map(|n| *n as i64).ne(want.iter().copied()) {
                    let got = format!("{} {:?}", array.dtype(), array.shape());
                    return Err(internal(format!("input {i} is {got}, not {} {want:?}", v.dtype)));
                }
                m.memory[id.0 as usize] = Some(Tensor::of(array));
            }
            Def::Constant(array) => m.memory[id.0 as usize] = Some(Tensor::of(array)),
            Def::Func(f) => {
                let mut tensor = Tensor::empty(m.shape(id)?);
                let (f, mut at) = (f.clone(), 0);
                m.each(&f.axes, &mut |m| {
                    tensor.data[at] = Some(Cell { value: store(v.dtype, m.eval(f.expr)?), by: 0 });
                    at += 1;
                    Ok(())
                })
                .map_err(|e| e.at(&v.name))?;
                m.memory[id.0 as usize] = Some(tensor);
            }
            Def::Program(p, _) => m.program(p).map_err(|e| e.at(&v.name))?,
        }
    }
    values.iter().map(|(id, v)| m.array(id).map_err(|e| e.at(&v.name))).collect()
}

fn internal(message: impl Into<String>) -> Error {
    Error::new(Kind::Internal, message)
}

/// An element, and the parallel iteration that wrote it (0: written before).
#[derive(Clone, Copy)]
struct Cell {
    value: Scalar,
    by: u64,
}

struct Tensor {
    shape: Vec<i64>,
    data: Vec<Option<Cell>>,
}

impl Tensor {
    fn empty(shape: Vec<i64>) -> Self {
        let n = shape.iter().product::<i64>().max(0) as usize;
        Tensor { shape, data: vec![None; n] }
    }

    fn of(array: &Array) -> Self {
        let size = array.dtype().size();
        let data = array.bytes().chunks_exact(size).map(|b| Some(Cell { value: read(array.dtype(), b), by: 0 }));
        Tensor { shape: array.shape().iter().map(|n| *n as i64).collect(), data: data.collect() }
    }

    fn offset(&self, index: &[i64]) -> Result<usize> {
        let inside = index.len() == self.shape.len() && index.iter().zip(&self.shape).all(|(i, n)| (0..*n).contains(i));
        if !inside {
            return Err(internal(format!("index {index:?} is outside of shape {:?}", self.shape)));
        }
        Ok(index.iter().zip(&self.shape).fold(0, |at, (i, n)| at * n + i) as usize)
    }
}

/// What the value of an expression depends on.
#[derive(Default)]
struct Deps {
    axes: BTreeSet<Axis>,
    vars: BTreeSet<Var>,
    memory: bool,
}

struct Machine<'a> {
    values: &'a Values,
    dims: &'a Bindings,
    memory: Vec<Option<Tensor>>,
    /// Counts every change of an axis, a variable or the memory; a cached result holds until one of its own changes.
    clock: u64,
    axes: HashMap<Axis, (u64, i64)>,
    vars: HashMap<Var, (u64, Scalar)>,
    memory_time: u64,
    deps: HashMap<ExprId, Rc<Deps>>,
    cache: HashMap<ExprId, (u64, Scalar)>,
    /// The parallel iteration of a program, from 1; 0 outside of programs.
    iteration: u64,
}

impl<'a> Machine<'a> {
    fn new(values: &'a Values, dims: &'a Bindings) -> Self {
        Machine {
            values,
            dims,
            memory: values.iter().map(|_| None).collect(),
            clock: 0,
            axes: HashMap::new(),
            vars: HashMap::new(),
            memory_time: 0,
            deps: HashMap::new(),
            cache: HashMap::new(),
            iteration: 0,
        }
    }

    fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }

    fn shape(&self, id: ValueId) -> Result<Vec<i64>> {
        self.values.shape(id).iter().map(|d| d.eval(self.dims)).collect()
    }

    fn array(&self, id: ValueId) -> Result<Array> {
        let Some(t) = &self.memory[id.0 as usize] else { return Err(internal("never computed")) };
        let dtype = self.values.dtype(id);
        let mut out = Vec::with_capacity(t.data.len() * dtype.size());
        for (at, cell) in t.data.iter().enumerate() {
            match (cell, &self.values.get(id).def) {
                (Some(c), _) => out.extend(bytes(dtype, c.value)),
                // Scratch need not be filled; outputs must be, but only their reader knows which they are.
                (None, Def::Program(_, position)) if *position > 0 => out.extend(vec![0; dtype.size()]),
                (None, _) => return Err(internal(format!("element {at} is never written"))),
            }
        }
        Array::new(dtype, t.shape.iter().map(|n| *n as usize).collect(), out)
    }

    /// Runs `f` for every index of `axes`, outermost first.
    fn each(&mut self, axes: &[Axis], f: &mut dyn FnMut(&mut Self) -> Result<()>) -> Result<()> {
        let Some((first, rest)) = axes.split_first() else { return f(self) };
        for i in 0..self.values.arena.extent(*first).eval(self.dims)? {
            let now = self.tick();
            self.axes.insert(*first, (now, i));
            self.each(rest, f)?;
        }
        Ok(())
    }

    fn deps(&mut self, e: ExprId) -> Rc<Deps> {
        if let Some(d) = self.deps.get(&e) {
            return Rc::clone(d);
        }
        let mut all = Deps::default();
        match self.values.arena.node(e) {
            Node::Axis(a) => drop(all.axes.insert(*a)),
            Node::Var(v, _) => drop(all.vars.insert(*v)),
            Node::Load { .. } => all.memory = true,
            _ => {}
        }
        for c in self.values.arena.children(e) {
            let d = self.deps(c);
            all.axes.extend(&d.axes);
            all.vars.extend(&d.vars);
            all.memory |= d.memory;
        }
        if let Node::Fold { axes, .. } = self.values.arena.node(e) {
            all.axes.retain(|a| !axes.contains(a));
        }
        let all = Rc::new(all);
        self.deps.insert(e, Rc::clone(&all));
        all
    }

    fn eval(&mut self, e: ExprId) -> Result<Scalar> {
        let deps = self.deps(e);
        let axes = deps.axes.iter().map(|a| self.axes.get(a).map_or(0, |t| t.0));
        let vars = deps.vars.iter().map(|v| self.vars.get(v).map_or(0, |t| t.0));
        let changed = axes.chain(vars).fold(if deps.memory { self.memory_time } else { 0 }, u64::max);
        if let Some((time, value)) = self.cache.get(&e)
            && *time >= changed
        {
            return Ok(*value);
        }
        let value = self.compute(e)?;
        if value.ty != self.values.arena.ty(e) {
            let node = self.values.arena.node(e);
            return Err(internal(format!("{node:?} gives {:?}, not {:?}", value.ty, self.values.arena.ty(e))));
        }
        self.cache.insert(e, (self.clock, value));
        Ok(value)
    }

    fn index(&mut self, index: &[ExprId]) -> Result<Vec<i64>> {
        index.iter().map(|i| self.eval(*i)?.as_int().ok_or_else(|| internal("an index that is no integer"))).collect()
    }

    fn compute(&mut self, e: ExprId) -> Result<Scalar> {
        Ok(match self.values.arena.node(e).clone() {
            Node::Const(s) => s,
            Node::Dim(d) => Scalar::int(Ty::I32, d.eval(self.dims)?),
            Node::Axis(a) => match self.axes.get(&a) {
                Some((_, i)) => Scalar::int(Ty::I32, *i),
                None => return Err(internal(format!("{a:?} is not bound"))),
            },
            Node::Var(v, ty) => match self.vars.get(&v) {
                Some((_, s)) if s.ty == ty => *s,
                _ => return Err(internal(format!("{v:?} is not set, or not to {ty:?}"))),
            },
            Node::Load { value, index } => {
                let at = self.index(&index)?;
                let name = || format!("load of \"{}\"", self.values.get(value).name);
                let Some(t) = &self.memory[value.0 as usize] else { return Err(internal("used early").at(name())) };
                match t.data[t.offset(&at).map_err(|e| e.at(name()))?] {
                    Some(c) if c.by == 0 || c.by == self.iteration => c.value,
                    Some(_) => return Err(internal(format!("{at:?} belongs to another iteration")).at(name())),
                    None => return Err(internal(format!("{at:?} is read before it is written")).at(name())),
                }
            }
            Node::Unary(op, a) => unary(op, self.eval(a)?),
            Node::Binary(op, a, b) => {
                let (a, b) = (self.eval(a)?, self.eval(b)?);
                if a.ty != b.ty {
                    return Err(internal(format!("{op:?} of {:?} and {:?}", a.ty, b.ty)));
                }
                binary(op, a, b)
            }
            Node::Select { condition, then, otherwise } => match self.eval(condition)? {
                Scalar { ty: Ty::Bool, bits } => self.eval(if bits != 0 { then } else { otherwise })?,
                c => return Err(internal(format!("a condition of type {:?}", c.ty))),
            },
            Node::Fold { op, axes, body } => self.fold(op, &axes, body)?,
        })
    }

    fn fold(&mut self, op: FoldOp, axes: &[Axis], body: ExprId) -> Result<Scalar> {
        let ty = self.values.arena.ty(body);
        let real = |inf: f64, int: i64| if ty.is_float() { Scalar::real(ty, inf) } else { Scalar::int(ty, int) };
        let least = match ty {
            Ty::I32 => i64::from(i32::MIN),
            Ty::I64 => i64::MIN,
            _ => 0,
        };
        let greatest = match ty {
            Ty::I32 => i64::from(i32::MAX),
            Ty::I64 => i64::MAX,
            _ => -1,
        };
        let mut all = match op {
            FoldOp::Sum => real(0.0, 0),
            FoldOp::Prod => real(1.0, 1),
            FoldOp::Max | FoldOp::ArgMax { .. } => real(f64::NEG_INFINITY, least),
            FoldOp::Min | FoldOp::ArgMin { .. } => real(f64::INFINITY, greatest),
        };
        let (mut best, mut at) = (None, 0);
        self.each(axes, &mut |m| {
            let x = m.eval(body)?;
            all = binary(
                match op {
                    FoldOp::Sum => BinaryOp::Add,
                    FoldOp::Prod => BinaryOp::Mul,
                    FoldOp::Max | FoldOp::ArgMax { .. } => BinaryOp::Max,
                    FoldOp::Min | FoldOp::ArgMin { .. } => BinaryOp::Min,
                },
                all,
                x,
            );
            if let FoldOp::ArgMax { last } | FoldOp::ArgMin { last } = op {
                let max = matches!(op, FoldOp::ArgMax { .. });
                let better = match best {
                    None => true,
                    Some((_, b)) if binary(BinaryOp::Eq, x, b).bits != 0 => last,
                    Some((_, b)) => binary(if max { BinaryOp::Gt } else { BinaryOp::Lt }, x, b).bits != 0,
                };
                best = if better { Some((at, x)) } else { best };
                at += 1;
            }
            Ok(())
        })?;
        Ok(match op {
            FoldOp::ArgMax { .. } | FoldOp::ArgMin { .. } => Scalar::int(Ty::I32, best.map_or(0, |b| b.0)),
            _ => all,
        })
    }

    fn program(&mut self, p: &Program) -> Result<()> {
        for w in &p.writes {
            self.memory[w.0 as usize] = Some(Tensor::empty(self.shape(*w)?));
        }
        self.each(&p.parallel, &mut |m| {
            m.iteration += 1;
            m.vars.clear();
            m.memory_time = m.tick();
            m.run(&p.body)
        })?;
        for w in &p.writes {
            let cells = self.memory[w.0 as usize].iter_mut().flat_map(|t| &mut t.data).flatten();
            cells.for_each(|c| c.by = 0);
        }
        self.iteration = 0;
        self.memory_time = self.tick();
        Ok(())
    }

    fn run(&mut self, body: &[Stmt]) -> Result<()> {
        for s in body {
            match s {
                Stmt::Set { var, ty, to } => {
                    let to = self.eval(*to)?;
                    if to.ty != *ty {
                        return Err(internal(format!("{var:?} of type {ty:?} is set to a {:?}", to.ty)));
                    }
                    let now = self.tick();
                    self.vars.insert(*var, (now, to));
                }
                Stmt::Store { value, index, to } => {
                    let (dtype, at, to) = (self.values.dtype(*value), self.index(index)?, self.eval(*to)?);
                    if to.ty != Ty::of(dtype) {
                        return Err(internal(format!("a {:?} is stored to a {dtype} value", to.ty)));
                    }
                    let by = self.iteration;
                    let Some(t) = &mut self.memory[value.0 as usize] else { return Err(internal("no such memory")) };
                    let offset = t.offset(&at).map_err(|e| e.at("store"))?;
                    if t.data[offset].is_some_and(|c| c.by != by) {
                        return Err(internal(format!("two iterations write {at:?}")));
                    }
                    t.data[offset] = Some(Cell { value: store(dtype, to), by });
                    self.memory_time = self.tick();
                }
                Stmt::For { axis, body } => self.each(&[*axis], &mut |m| m.run(body))?,
                Stmt::While { condition, body } => {
                    while self.eval(*condition)?.bits != 0 {
                        self.run(body)?;
                    }
                }
                Stmt::If { condition, then, otherwise } => {
                    let taken = self.eval(*condition)?.bits != 0;
                    self.run(if taken { then } else { otherwise })?;
                }
            }
        }
        Ok(())
    }
}

fn int(s: Scalar) -> i64 {
    s.as_int().unwrap_or(0)
}

/// A real number in a floating-point type.
fn real(ty: Ty, x: f64) -> Scalar {
    Scalar::real(ty, x)
}

/// One operator on one scalar. Functions of `F32` are computed in `f64` and rounded: the best that a target can do.
pub fn unary(op: UnaryOp, a: Scalar) -> Scalar {
    let f = |g: fn(f64) -> f64| real(a.ty, g(a.as_f64()));
    match op {
        UnaryOp::Neg if a.ty.is_float() => f(|x| -x),
        UnaryOp::Neg => Scalar::int(a.ty, int(a).wrapping_neg()),
        UnaryOp::Abs if a.ty.is_float() => f(f64::abs),
        UnaryOp::Abs if matches!(a.ty, Ty::I32 | Ty::I64) => Scalar::int(a.ty, int(a).wrapping_abs()),
        UnaryOp::Abs => a,
        UnaryOp::Not if a.ty == Ty::Bool => Scalar::bool(a.bits == 0),
        UnaryOp::Not => Scalar::int(a.ty, !int(a)),
        UnaryOp::Sign if a.ty.is_float() => f(|x| {
            if x == 0.0 {
                0.0
            } else if x.is_nan() {
                x
            } else {
                x.signum()
            }
        }),
        UnaryOp::Sign if matches!(a.ty, Ty::I32 | Ty::I64) => Scalar::int(a.ty, int(a).signum()),
        UnaryOp::Sign => Scalar::int(a.ty, i64::from(a.bits != 0)),
        UnaryOp::Floor => f(f64::floor),
        UnaryOp::Ceil => f(f64::ceil),
        UnaryOp::Trunc => f(f64::trunc),
        UnaryOp::Round => f(f64::round_ties_even),
        UnaryOp::Sqrt => f(f64::sqrt),
        UnaryOp::Exp => f(f64::exp),
        UnaryOp::Log => f(f64::ln),
        UnaryOp::Sin => f(f64::sin),
        UnaryOp::Cos => f(f64::cos),
        UnaryOp::Asin => f(f64::asin),
        UnaryOp::Acos => f(f64::acos),
        UnaryOp::Atan => f(f64::atan),
        UnaryOp::Tanh => f(f64::tanh),
        UnaryOp::Erf => f(erf),
        UnaryOp::IsNan => Scalar::bool(a.as_f64().is_nan()),
        UnaryOp::IsInf => Scalar::bool(a.as_f64().is_infinite()),
        UnaryOp::Bitcast(ty) => Scalar { ty, bits: a.bits },
        UnaryOp::Cast(ty) => cast(ty, a),
        UnaryOp::RoundF16 => Scalar::f32(half::f16::from_f32(a.as_f64() as f32).to_f32()),
        UnaryOp::RoundBf16 => Scalar::f32(half::bf16::from_f32(a.as_f64() as f32).to_f32()),
    }
}

fn cast(ty: Ty, a: Scalar) -> Scalar {
    match (a.ty.is_float(), ty) {
        (true, Ty::F32 | Ty::F64) => real(ty, a.as_f64()),
        (_, Ty::Bool) => Scalar::bool(a.as_f64() != 0.0),
        (true, Ty::I32) => Scalar::int(ty, i64::from(a.as_f64() as i32)),
        (true, Ty::U32) => Scalar::int(ty, i64::from(a.as_f64() as u32)),
        (true, Ty::U64) => Scalar { ty, bits: a.as_f64() as u64 },
        (true, Ty::I64) => Scalar::int(ty, a.as_f64() as i64),
        (false, Ty::F32) if a.ty == Ty::U64 => Scalar::f32(a.bits as f32),
        (false, Ty::F64) if a.ty == Ty::U64 => Scalar::f64(a.bits as f64),
        (false, _) => Scalar::int(ty, int(a)),
    }
}

/// One operator on two scalars of one type.
pub fn binary(op: BinaryOp, a: Scalar, b: Scalar) -> Scalar {
    use BinaryOp as B;
    use std::cmp::Ordering::{Equal, Greater, Less};
    let order = match a.ty {
        Ty::F32 | Ty::F64 => a.as_f64().partial_cmp(&b.as_f64()),
        Ty::U64 => Some(a.bits.cmp(&b.bits)),
        _ => Some(int(a).cmp(&int(b))),
    };
    let is = |list: &[std::cmp::Ordering]| Scalar::bool(order.is_some_and(|o| list.contains(&o)));
    match op {
        B::Eq => return is(&[Equal]),
        B::Ne => return Scalar::bool(order != Some(Equal)),
        B::Lt => return is(&[Less]),
        B::Le => return is(&[Less, Equal]),
        B::Gt => return is(&[Greater]),
        B::Ge => return is(&[Greater, Equal]),
        B::Min | B::Max => {
            return match (op, order) {
                (_, None) => real(a.ty, f64::NAN),
                (B::Min, Some(Greater)) | (B::Max, Some(Less)) => b,
                _ => a,
            };
        }
        _ => {}
    }
    if a.ty == Ty::Bool {
        return Scalar::bool(match op {
            B::And | B::Mul => a.bits & b.bits != 0,
            B::Or | B::Add => a.bits | b.bits != 0,
            _ => a.bits ^ b.bits != 0,
        });
    }
    if a.ty.is_float() {
        // The result of one f64 operation on two f32, rounded to f32, is the correctly rounded f32 result.
        let (x, y) = (a.as_f64(), b.as_f64());
        return real(
            a.ty,
            match op {
                B::Add => x + y,
                B::Sub => x - y,
                B::Mul => x * y,
                B::Div => x / y,
                B::Rem => x % y,
                B::FloorDiv => (x / y).floor(),
                B::FloorMod => {
                    let r = x % y;
                    if r != 0.0 && (r < 0.0) != (y < 0.0) { r + y } else { r }
                }
                B::Pow => x.powf(y),
                _ => f64::NAN,
            },
        );
    }
    let (x, y) = (int(a), int(b));
    let width = if matches!(a.ty, Ty::I64 | Ty::U64) { 64 } else { 32 };
    let unsigned = a.ty == Ty::U64;
    let n = match op {
        B::Add => x.wrapping_add(y),
        B::Sub => x.wrapping_sub(y),
        B::Mul => x.wrapping_mul(y),
        B::Div | B::Rem | B::FloorDiv | B::FloorMod if y == 0 => 0,
        B::Div | B::FloorDiv if unsigned => (a.bits / b.bits) as i64,
        B::Rem | B::FloorMod if unsigned => (a.bits % b.bits) as i64,
        B::Div => x.wrapping_div(y),
        B::Rem => x.wrapping_rem(y),
        B::FloorDiv => x.wrapping_div(y) - i64::from(x.wrapping_rem(y) != 0 && (x < 0) != (y < 0)),
        B::FloorMod => {
            let r = x.wrapping_rem(y);
            if r != 0 && (r < 0) != (y < 0) { r + y } else { r }
        }
        B::And => x & y,
        B::Or => x | y,
        B::Xor => x ^ y,
        B::Shl => x.wrapping_shl((y % width) as u32),
        B::Shr if unsigned => (a.bits >> (y % width)) as i64,
        B::Shr => x >> (y % width),
        _ => 0,
    };
    Scalar::int(a.ty, n)
}

/// erf in `f64`: the series near 0, the continued fraction of erfc beyond. Maximum absolute error 1e-14.
fn erf(x: f64) -> f64 {
    if x.is_nan() {
        return x;
    }
    let (z, root_pi) = (x.abs(), std::f64::consts::PI.sqrt());
    let value = if z < 2.5 {
        let (mut term, mut sum) = (z, z);
        for n in 1..80 {
            let n = f64::from(n);
            term *= -z * z / n;
            sum += term / (2.0 * n + 1.0);
        }
        2.0 / root_pi * sum
    } else {
        let tail = (1..=80).rev().fold(z, |t, k| z + f64::from(k) / 2.0 / t);
        1.0 - (-z * z).exp() / (root_pi * tail)
    };
    value.copysign(x)
}

/// A scalar as it comes back from memory: wrapped or rounded to the data type.
pub fn store(dtype: DType, s: Scalar) -> Scalar {
    read(dtype, &bytes(dtype, s))
}

/// A scalar's little-endian bytes in memory.
pub fn bytes(dtype: DType, s: Scalar) -> Vec<u8> {
    match dtype {
        DType::Float16 => half::f16::from_f32(s.as_f64() as f32).to_le_bytes().to_vec(),
        DType::BFloat16 => half::bf16::from_f32(s.as_f64() as f32).to_le_bytes().to_vec(),
        _ => s.bits.to_le_bytes()[..dtype.size()].to_vec(),
    }
}

fn read(dtype: DType, bytes: &[u8]) -> Scalar {
    let mut b = [0u8; 8];
    b[..bytes.len()].copy_from_slice(bytes);
    let (bits, ty) = (u64::from_le_bytes(b), Ty::of(dtype));
    match dtype {
        DType::Float16 => Scalar::f32(half::f16::from_bits(bits as u16).to_f32()),
        DType::BFloat16 => Scalar::f32(half::bf16::from_bits(bits as u16).to_f32()),
        DType::Float32 | DType::Float64 => Scalar { ty, bits },
        DType::Int8 => Scalar::int(ty, i64::from(bits as u8 as i8)),
        DType::Int16 => Scalar::int(ty, i64::from(bits as u16 as i16)),
        _ => Scalar::int(ty, bits as i64),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::Dim;

    #[test]
    fn evaluates_a_row_softmax() {
        let mut vs = Values::new();
        let shape = vec![Dim::from(2), Dim::sym("n")];
        let x = vs.input(0, DType::Float32, shape.clone());
        let n = [Dim::sym("n")];
        let y = vs.func(DType::Float32, shape, |vs, i| {
            let row = i[0];
            let max = vs.fold(FoldOp::Max, &n, |vs, k| Ok(vs.load(x, &[row, k[0]])))?;
            let e = |vs: &mut Values, j: ExprId| {
                let x = vs.load(x, &[row, j]);
                let d = vs.arena.sub(x, max);
                vs.arena.unary(UnaryOp::Exp, d)
            };
            let sum = vs.fold(FoldOp::Sum, &n, |vs, k| Ok(e(vs, k[0])))?;
            let top = e(vs, i[1]);
            Ok(vs.arena.div(top, sum))
        });
        let y = y.unwrap();
        let input = Array::from_f32(vec![2, 2], &[0.0, 0.0, 1.0, f32::NEG_INFINITY]).unwrap();
        let all = evaluate(&vs, &[input], &Bindings::from([("n".into(), 2)])).unwrap();
        assert_eq!(all[y.0 as usize].to_f64(), Some(vec![0.5, 0.5, 1.0, 0.0]));
    }

    #[test]
    fn runs_a_program_and_catches_races_and_stray_reads() {
        let run = |parallel_over_rows: bool| {
            let mut vs = Values::new();
            let x = vs.input(0, DType::Int8, vec![Dim::from(3)]);
            let ids = vs.program(vec![(DType::Int8, vec![Dim::from(1)])], |vs, out| {
                let axis = vs.arena.axis(Dim::from(3));
                let i = vs.arena.axis_expr(axis);
                let zero = vs.arena.int(0);
                let sum = vs.arena.var();
                let start = Stmt::Set { var: sum, ty: Ty::I32, to: zero };
                let s = vs.arena.add_node(Node::Var(sum, Ty::I32));
                let x = vs.load(x, &[i]);
                let next = vs.arena.add(s, x);
                let step = Stmt::Set { var: sum, ty: Ty::I32, to: next };
                let end = Stmt::Store { value: out[0], index: vec![zero], to: s };
                Ok(match parallel_over_rows {
                    true => (vec![axis], vec![start, step, end]),
                    false => (vec![], vec![start, Stmt::For { axis, body: vec![step] }, end]),
                })
            });
            let id = ids.unwrap()[0];
            let input = Array::new(DType::Int8, vec![3], [100u8, 27, 1]).unwrap();
            evaluate(&vs, &[input], &Bindings::new()).map(|all| all[id.0 as usize].to_i64())
        };
        assert_eq!(run(false), Ok(Some(vec![-128])));
        assert_eq!(run(true).err().map(|e| e.message().to_string()), Some("two iterations write [0]".into()));
    }

    #[test]
    fn scalar_operators() {
        let i = |n| Scalar::int(Ty::I32, n);
        let f = Scalar::f32;
        assert_eq!(binary(BinaryOp::FloorMod, i(-7), i(3)), i(2));
        assert_eq!(binary(BinaryOp::Rem, i(-7), i(3)), i(-1));
        assert_eq!(binary(BinaryOp::FloorDiv, i(-7), i(3)), i(-3));
        assert_eq!(binary(BinaryOp::Div, i(-7), i(0)), i(0));
        assert_eq!(binary(BinaryOp::Shr, i(-8), i(1)), i(-4));
        assert_eq!(binary(BinaryOp::Shr, Scalar::int(Ty::U32, -8), Scalar::int(Ty::U32, 28)).bits, 15);
        assert!(binary(BinaryOp::Max, f(f32::NAN), f(1.0)).as_f64().is_nan());
        assert_eq!(unary(UnaryOp::Cast(Ty::I32), f(-3.9)), i(-3));
        assert_eq!(unary(UnaryOp::Cast(Ty::U32), f(-3.9)), Scalar::int(Ty::U32, 0));
        assert_eq!(unary(UnaryOp::Round, f(2.5)), f(2.0));
        assert_eq!(store(DType::Uint8, Scalar::int(Ty::U32, 257)), Scalar::int(Ty::U32, 1));
        assert_eq!(store(DType::Float16, f(2049.0)), f(2048.0));
        for (x, y) in [(0.5, 0.520_499_877_8), (1.0, 0.842_700_792_9), (3.0, 0.999_977_909_5), (-2.0, -0.995_322_265)] {
            assert!((erf(x) - y).abs() < 1e-9, "erf({x})");
        }
    }
}
