//! What all kernel forms share while a kernel's function is written: code in nested frames, values of expressions in
//! locals.
//!
//! Code is written in frames, one for each loop body and each branch. A value that does not depend on a loop goes to the
//! frame outside of it, whose code runs before the loop; there it is computed once. So loop-invariant code is hoisted as
//! it is written, whatever its form: index arithmetic, conditions, folds, splats.

use super::Memory;
use super::address::Atom;
use super::shared::{Function, Shared};
use crate::error::{Error, Kind, Result};
use crate::kernel::{Axis, ExprId, Node, Ty, ValueId, Values, Var};
use crate::tensor::{Dim, DimStep, numel};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::rc::Rc;
use wasm_encoder::{BlockType, InstructionSink, MemArg, ValType};

/// What an axis is at the moment: `local + add`, or `add` where it is unrolled.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bind {
    /// The local, and the frame in which it is set.
    pub(super) base: Option<(u32, usize)>,
    pub(super) add: i64,
}

/// What a frame is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FrameKind {
    /// Runs where its parent runs.
    Straight,
    /// A loop's body, which runs at least once.
    Loop,
    /// A loop's body, which may not run.
    MaybeLoop,
    /// Runs where a condition holds.
    Branch,
}

/// An expression under the offsets of its unrolled axes.
pub(super) type Key = (ExprId, Vec<(Axis, i64)>);

#[derive(Debug)]
pub(super) struct Frame {
    kind: FrameKind,
    code: Vec<u8>,
    scalars: HashMap<Key, u32>,
    lanes: HashMap<Key, u32>,
    pub(super) pointers: HashMap<(ValueId, Vec<(Atom, Dim)>, i64), u32>,
}

/// The writer of one kernel's function.
pub(super) struct Writer<'a> {
    pub(super) values: &'a Values,
    pub(super) memory: &'a Memory,
    /// Bytes of zeros in memory.
    pub(super) zeros: u64,
    pub(super) shared: &'a mut Shared,
    pub(super) relaxed: bool,
    /// The buffers whose byte offsets are the function's first parameters.
    pub(super) buffers: Vec<ValueId>,
    /// The last two parameters: `part` and `parts`.
    pub(super) parts: (u32, u32),
    params: Vec<ValType>,
    locals: Vec<ValType>,
    pub(super) frames: Vec<Frame>,
    pub(super) binds: HashMap<Axis, Bind>,
    /// The axis whose four next indices are the lanes, in code for lanes.
    pub(super) lane_axis: Option<Axis>,
    free: HashMap<ExprId, Rc<BTreeSet<Axis>>>,
    uses: HashMap<ExprId, u32>,
    unsafe_loads: HashMap<ExprId, bool>,
    /// Values the kernel writes while it reads them (programs): their loads stay where they stand.
    pub(super) mutated: HashSet<ValueId>,
    volatile: HashMap<ExprId, bool>,
    /// Locals that hold constants in every lane.
    constants: HashMap<u32, u32>,
    pub(super) vars: HashMap<Var, u32>,
    /// The innermost frame of a statement, which volatile expressions may not leave.
    pub(super) statement: usize,
}

/// The wasm type that holds a scalar.
pub(super) const fn val(ty: Ty) -> ValType {
    match ty {
        Ty::F32 => ValType::F32,
        Ty::F64 => ValType::F64,
        Ty::I32 | Ty::U32 | Ty::Bool => ValType::I32,
        Ty::I64 | Ty::U64 => ValType::I64,
    }
}

/// Internal errors of the emitter: the kernel is not what scheduling promises.
pub(super) fn internal(what: impl Into<String>) -> Error {
    Error::new(Kind::Internal, what).at("wasm emitter")
}

/// An offset in the 32-bit memory; larger ones are refused when the memory is laid out.
pub(super) const fn arg(offset: u64, align: u32) -> MemArg {
    MemArg { offset, align, target: wasm_encoder::MemArgTarget::Memory(0), ordering: None }
}

impl<'a> Writer<'a> {
    pub(super) fn new(
        values: &'a Values,
        memory: &'a Memory,
        zeros: u64,
        shared: &'a mut Shared,
        relaxed: bool,
        buffers: Vec<ValueId>,
    ) -> Self {
        let n = buffers.len() as u32;
        let params = vec![ValType::I32; buffers.len() + 2];
        let mut g = Writer {
            values,
            memory,
            zeros,
            shared,
            relaxed,
            buffers,
            parts: (n, n + 1),
            params,
            locals: vec![],
            frames: vec![],
            binds: HashMap::new(),
            lane_axis: None,
            free: HashMap::new(),
            uses: HashMap::new(),
            unsafe_loads: HashMap::new(),
            mutated: HashSet::new(),
            volatile: HashMap::new(),
            constants: HashMap::new(),
            vars: HashMap::new(),
            statement: 0,
        };
        g.push(FrameKind::Straight);
        g
    }

    /// The finished function.
    pub(super) fn finish(mut self) -> Function {
        let code = self.frames.pop().map(|f| f.code).unwrap_or_default();
        Function { params: self.params, results: vec![], locals: self.locals, code }
    }

    /// Counts uses, so that what is used once needs no local.
    pub(super) fn count_uses(&mut self, roots: impl IntoIterator<Item = ExprId>) {
        let mut seen = HashSet::new();
        let mut todo: Vec<ExprId> = roots.into_iter().collect();
        for r in &todo {
            *self.uses.entry(*r).or_default() += 1;
        }
        while let Some(e) = todo.pop() {
            if seen.insert(e) {
                for c in self.values.arena.children(e) {
                    *self.uses.entry(c).or_default() += 1;
                    todo.push(c);
                }
            }
        }
    }

    pub(super) fn used_often(&self, e: ExprId) -> bool {
        self.uses.get(&e).copied().unwrap_or(2) > 1
    }

    /// Appends instructions to the current frame.
    pub(super) fn i(&mut self) -> InstructionSink<'_> {
        let last = self.frames.len() - 1;
        InstructionSink::new(&mut self.frames[last].code)
    }

    pub(super) fn local(&mut self, ty: ValType) -> u32 {
        self.locals.push(ty);
        (self.params.len() + self.locals.len() - 1) as u32
    }

    pub(super) fn top(&self) -> usize {
        self.frames.len() - 1
    }

    fn push(&mut self, kind: FrameKind) {
        self.frames.push(Frame {
            kind,
            code: vec![],
            scalars: HashMap::new(),
            lanes: HashMap::new(),
            pointers: HashMap::new(),
        });
    }

    /// The code that `f` writes in a frame of its own.
    pub(super) fn framed(&mut self, kind: FrameKind, f: impl FnOnce(&mut Self) -> Result<()>) -> Result<Vec<u8>> {
        self.push(kind);
        f(self)?;
        Ok(self.frames.pop().map(|f| f.code).unwrap_or_default())
    }

    /// Appends finished code to the current frame.
    pub(super) fn append(&mut self, code: &[u8]) {
        let last = self.frames.len() - 1;
        self.frames[last].code.extend_from_slice(code);
    }

    /// Runs `f` with `frame` as the current frame; what it writes must leave the operand stack as it is.
    pub(super) fn in_frame<T>(&mut self, frame: usize, f: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        let rest = self.frames.split_off(frame + 1);
        let r = f(self);
        self.frames.truncate(frame + 1);
        self.frames.extend(rest);
        r
    }

    /// `for axis = start; axis < end; axis += step { body }`. `start` and `end` are locals or constants.
    pub(super) fn for_loop(
        &mut self,
        axis: Axis,
        index: u32,
        end: Count,
        step: i32,
        runs: bool,
        body: impl FnOnce(&mut Self) -> Result<()>,
    ) -> Result<()> {
        let frame = self.frames.len();
        let old = self.binds.insert(axis, Bind { base: Some((index, frame)), add: 0 });
        let code = self.framed(if runs { FrameKind::Loop } else { FrameKind::MaybeLoop }, body)?;
        match old {
            Some(b) => self.binds.insert(axis, b),
            None => self.binds.remove(&axis),
        };
        if !runs {
            self.i().local_get(index);
            self.count(end);
            self.i().i32_lt_s().if_(BlockType::Empty);
        }
        self.i().loop_(BlockType::Empty);
        self.append(&code);
        self.i().local_get(index).i32_const(step).i32_add().local_tee(index);
        self.count(end);
        self.i().i32_lt_s().br_if(0).end();
        if !runs {
            self.i().end();
        }
        Ok(())
    }

    /// Pushes a count.
    pub(super) fn count(&mut self, c: Count) {
        match c {
            Count::Known(n) => self.i().i32_const(n),
            Count::Local(l) => self.i().local_get(l),
        };
    }

    /// Binds an axis to `bind` while `f` runs.
    pub(super) fn bound<T>(&mut self, axis: Axis, bind: Bind, f: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        let old = self.binds.insert(axis, bind);
        let r = f(self);
        match old {
            Some(b) => self.binds.insert(axis, b),
            None => self.binds.remove(&axis),
        };
        r
    }

    pub(super) fn free(&mut self, e: ExprId) -> Rc<BTreeSet<Axis>> {
        if let Some(s) = self.free.get(&e) {
            return Rc::clone(s);
        }
        let mut s = BTreeSet::new();
        if let Node::Axis(a) = self.values.arena.node(e) {
            s.insert(*a);
        }
        for c in self.values.arena.children(e) {
            s.extend(self.free(c).iter().copied());
        }
        if let Node::Fold { axes, .. } = self.values.arena.node(e) {
            for a in axes {
                s.remove(a);
            }
        }
        let s = Rc::new(s);
        self.free.insert(e, Rc::clone(&s));
        s
    }

    /// Whether `e` depends on a variable or on memory that the kernel changes.
    pub(super) fn volatile(&mut self, e: ExprId) -> bool {
        if let Some(v) = self.volatile.get(&e) {
            return *v;
        }
        let v = match self.values.arena.node(e) {
            Node::Var(..) => true,
            Node::Load { value, .. } if self.mutated.contains(value) => true,
            _ => self.values.arena.children(e).into_iter().any(|c| self.volatile(c)),
        };
        self.volatile.insert(e, v);
        v
    }

    /// Whether `e` reads memory at an index that is not proved to lie inside the value.
    pub(super) fn may_fault(&mut self, e: ExprId) -> bool {
        if let Some(u) = self.unsafe_loads.get(&e) {
            return *u;
        }
        let own = match self.values.arena.node(e) {
            Node::Load { value, index } => index.first().is_none_or(|i| !self.in_bounds(*value, *i)),
            _ => false,
        };
        let u = own || self.values.arena.children(e).into_iter().any(|c| self.may_fault(c));
        self.unsafe_loads.insert(e, u);
        u
    }

    fn in_bounds(&self, value: ValueId, index: ExprId) -> bool {
        let arena = &self.values.arena;
        let n = numel(self.values.shape(value));
        if let Some(n) = n.known() {
            let r = arena.range(index);
            if r.min >= 0 && r.max < n {
                return true;
            }
        }
        let Some(f) = arena.affine(index) else { return false };
        let (mut least, mut most) = (f.constant.clone(), f.constant);
        for (axis, factor) in &f.terms {
            let last = arena.extent(*axis).sub(&Dim::from(1));
            let r = factor.range(&arena.ranges);
            if r.min >= 0 {
                most = most.add(&factor.mul(&last));
            } else if r.max <= 0 {
                least = least.add(&factor.mul(&last));
            } else {
                return false;
            }
        }
        least.range(&arena.ranges).min >= 0 && n.sub(&most).range(&arena.ranges).min >= 1
    }

    /// The innermost frame that `e` depends on.
    pub(super) fn home(&mut self, e: ExprId) -> Result<usize> {
        let mut h = if self.volatile(e) { self.statement } else { 0 };
        for a in self.free(e).iter() {
            let b = self.binds.get(a).ok_or_else(|| internal(format!("axis {} has no loop", a.0)))?;
            h = h.max(b.base.map_or(0, |(_, frame)| frame));
        }
        Ok(h)
    }

    /// The frame in which `e` is to be computed.
    pub(super) fn place(&mut self, e: ExprId) -> Result<usize> {
        let h = self.home(e)?;
        let mut best = self.top();
        let mut at = best;
        while at > h {
            let kind = self.frames[at].kind;
            match kind {
                FrameKind::Branch | FrameKind::MaybeLoop if self.may_fault(e) => break,
                FrameKind::Loop | FrameKind::MaybeLoop => best = at - 1,
                _ => {}
            }
            at -= 1;
        }
        Ok(best)
    }

    pub(super) fn key(&mut self, e: ExprId) -> Key {
        let free = self.free(e);
        let offsets = free
            .iter()
            .filter_map(|a| self.binds.get(a).map(|b| (*a, *b)))
            .filter(|(_, b)| b.base.is_none() || b.add != 0)
            .map(|(a, b)| (a, b.add))
            .collect();
        (e, offsets)
    }

    fn find(&self, key: &Key, lanes: bool) -> Option<u32> {
        let of = |f: &Frame| if lanes { f.lanes.get(key).copied() } else { f.scalars.get(key).copied() };
        self.frames.iter().rev().find_map(of)
    }

    /// Pushes a scalar value: from the local that holds it, or computed where it belongs.
    pub(super) fn scalar(&mut self, e: ExprId) -> Result<()> {
        match self.values.arena.node(e) {
            Node::Const(_) => return self.compute(e),
            Node::Dim(d) => {
                let d = d.clone();
                return self.dim(&d);
            }
            Node::Axis(a) => return self.axis(*a),
            Node::Var(v, _) => {
                let l = *self.vars.get(v).ok_or_else(|| internal("a variable is read before it is set"))?;
                self.i().local_get(l);
                return Ok(());
            }
            _ => {}
        }
        let key = self.key(e);
        if let Some(l) = self.find(&key, false) {
            self.i().local_get(l);
            return Ok(());
        }
        let ty = val(self.values.arena.ty(e));
        let place = self.place(e)?;
        if place < self.top() {
            let l = self.local(ty);
            self.in_frame(place, |g| {
                g.compute(e)?;
                g.i().local_set(l);
                g.frames[place].scalars.insert(key, l);
                Ok(())
            })?;
            self.i().local_get(l);
            return Ok(());
        }
        self.compute(e)?;
        let keep = self.used_often(e) || matches!(self.values.arena.node(e), Node::Fold { .. });
        if keep {
            let l = self.local(ty);
            self.i().local_tee(l);
            self.frames[place].scalars.insert(key, l);
        }
        Ok(())
    }

    /// Pushes four lanes of a value.
    pub(super) fn lanes(&mut self, e: ExprId) -> Result<()> {
        if let Node::Const(s) = self.values.arena.node(e) {
            self.constant_lanes(*s);
            return Ok(());
        }
        let key = self.key(e);
        if let Some(l) = self.find(&key, true) {
            self.i().local_get(l);
            return Ok(());
        }
        let invariant = self.lane_axis.is_none_or(|a| !self.free(e).contains(&a));
        let place = self.place(e)?;
        let l = self.local(ValType::V128);
        let write = |g: &mut Self| {
            if invariant { g.splat(e) } else { g.compute_lanes(e) }
        };
        if place < self.top() {
            self.in_frame(place, |g| {
                write(g)?;
                g.i().local_set(l);
                Ok(())
            })?;
            self.i().local_get(l);
        } else {
            write(self)?;
            self.i().local_tee(l);
        }
        self.frames[place].lanes.insert(key, l);
        Ok(())
    }

    /// Pushes 32 bits in every lane, from a local that is set once: engines build such constants anew at every use.
    pub(super) fn splat_constant(&mut self, bits: u32) {
        if bits == 0 {
            self.i().v128_const(0);
            return;
        }
        let l = match self.constants.get(&bits) {
            Some(l) => *l,
            None => {
                let l = self.local(ValType::V128);
                InstructionSink::new(&mut self.frames[0].code).v128_const(super::math::splat32(bits)).local_set(l);
                self.constants.insert(bits, l);
                l
            }
        };
        self.i().local_get(l);
    }

    fn splat(&mut self, e: ExprId) -> Result<()> {
        self.scalar(e)?;
        match self.values.arena.ty(e) {
            Ty::F32 => self.i().f32x4_splat(),
            Ty::I32 | Ty::U32 => self.i().i32x4_splat(),
            Ty::Bool => self.i().i32x4_splat().i32x4_neg(),
            ty => return Err(internal(format!("{ty:?} in 32-bit lanes"))),
        };
        Ok(())
    }

    /// Remembers the value that `local` holds, for the current frame.
    pub(super) fn remember(&mut self, e: ExprId, local: u32, lanes: bool) {
        let key = self.key(e);
        let top = self.top();
        let frame = &mut self.frames[top];
        if lanes {
            frame.lanes.insert(key, local);
        } else {
            frame.scalars.insert(key, local);
        }
    }

    fn axis(&mut self, a: Axis) -> Result<()> {
        let b = *self.binds.get(&a).ok_or_else(|| internal(format!("axis {} has no loop", a.0)))?;
        let add = i32::try_from(b.add).map_err(|_| internal("an axis leaves 32 bits"))?;
        match b.base {
            Some((l, _)) => {
                self.i().local_get(l);
                if add != 0 {
                    self.i().i32_const(add).i32_add();
                }
            }
            None => {
                self.i().i32_const(add);
            }
        }
        Ok(())
    }

    /// Pushes a dim; what depends on symbols is read from memory once, at the start of the function.
    pub(super) fn dim(&mut self, d: &Dim) -> Result<()> {
        match d.known() {
            Some(n) => {
                let n = i32::try_from(n).map_err(|_| internal(format!("dimension {n} leaves 32 bits")))?;
                self.i().i32_const(n);
            }
            None => {
                let l = self.dim_local(d)?;
                self.i().local_get(l);
            }
        }
        Ok(())
    }

    /// The local that holds a symbolic dim.
    fn dim_local(&mut self, d: &Dim) -> Result<u32> {
        let key = (ValueId(u32::MAX), vec![(Atom::Dim(d.clone()), Dim::from(1))], 0);
        if let Some(l) = self.frames[0].pointers.get(&key) {
            return Ok(*l);
        }
        let l = self.local(ValType::I32);
        let floor = super::math::function(self.shared, "floors")?;
        let (at, order) = (self.memory.dims, self.memory.dim_order.clone());
        self.in_frame(0, |g| {
            let mut missing = None;
            let (x, y) = (g.local(ValType::I32), g.local(ValType::I32));
            d.walk(&mut |step| match step {
                DimStep::Const(n) => {
                    g.i().i32_const(n as i32);
                }
                DimStep::Sym(s) => match order.iter().position(|o| &**o == s) {
                    Some(i) => {
                        g.i().i32_const(0).i32_load(arg(u64::from(at) + 4 * i as u64, 2));
                    }
                    None => missing = Some(s.to_string()),
                },
                DimStep::Add => {
                    g.i().i32_add();
                }
                DimStep::Mul => {
                    g.i().i32_mul();
                }
                DimStep::FloorDiv => {
                    g.i().call(floor);
                }
                DimStep::Max | DimStep::Min => {
                    g.i().local_set(y).local_tee(x).local_get(y).local_get(x).local_get(y);
                    if step == DimStep::Max {
                        g.i().i32_gt_s();
                    } else {
                        g.i().i32_lt_s();
                    }
                    g.i().select();
                }
            });
            if let Some(s) = missing {
                return Err(internal(format!("dimension \"{s}\" has no place in memory")));
            }
            g.i().local_set(l);
            Ok(())
        })?;
        self.frames[0].pointers.insert(key, l);
        Ok(l)
    }

    /// An extent as a loop bound.
    pub(super) fn extent(&mut self, a: Axis) -> Result<Count> {
        let d = self.values.arena.extent(a).clone();
        self.dim_count(&d)
    }

    /// A dim as a loop bound.
    pub(super) fn dim_count(&mut self, d: &Dim) -> Result<Count> {
        match d.known() {
            Some(n) => {
                i32::try_from(n).map(Count::Known).map_err(|_| internal(format!("an axis of {n} leaves 32 bits")))
            }
            None => self.dim_local(d).map(Count::Local),
        }
    }

    /// Whether an axis has at least one index whatever the dims.
    pub(super) fn runs(&self, a: Axis) -> bool {
        self.values.arena.extent(a).range(&self.values.arena.ranges).min >= 1
    }
}

/// A loop bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Count {
    Known(i32),
    Local(u32),
}
