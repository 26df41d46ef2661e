//! The text of a shader in the making: nested blocks, bound axes, buffers and their element types.

use super::math::Used;
use super::numbers::{Code, marked};
use crate::error::{Error, Kind, Result};
use crate::kernel::{Axis, ExprId, Node, Ty, ValueId, Values, Var};
use crate::plan::gpu_dtype;
use crate::tensor::{DType, Dim, Sym};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::rc::Rc;

/// The greatest number of workgroups along one dimension of a dispatch (WebGPU's default limit).
pub(super) const MAX_GROUPS: i64 = 65_535;

/// An expression as text, and whether it is a vector of four.
#[derive(Debug, Clone)]
pub(super) struct Val {
    pub text: String,
    pub wide: bool,
}

impl Val {
    pub(super) fn one(text: impl Into<String>) -> Self {
        Val { text: text.into(), wide: false }
    }

    pub(super) fn four(text: impl Into<String>) -> Self {
        Val { text: text.into(), wide: true }
    }
}

/// A block of statements, and the names of what was computed in it.
#[derive(Debug, Default)]
pub(super) struct Block {
    /// What stands before its brace. It joins the outer block only when this block is closed, so that until then lines
    /// can be put before it.
    head: String,
    pub text: String,
    pub memo: HashMap<ExprId, Val>,
}

/// How a kernel uses a buffer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Access {
    pub written: bool,
    /// Aligned accesses of four elements.
    pub wide: bool,
    /// Accesses of one element.
    pub single: bool,
}

/// Writes one shader.
pub(super) struct Gen<'a> {
    pub values: &'a mut Values,
    dim_order: &'a [Sym],
    /// Buffers in order of first use.
    pub buffers: Vec<(ValueId, Access)>,
    /// Which buffers hold `vec4`, as an earlier pass found.
    pub vectors: HashSet<ValueId>,
    pub blocks: Vec<Block>,
    /// Bound axes: the block's level in which they are bound, and their text.
    pub axes: HashMap<Axis, (usize, String)>,
    /// Axes of extent 4 that run across the elements of a vector.
    pub lanes: BTreeSet<Axis>,
    /// Values that the kernel itself writes: their loads may not be moved.
    pub mutable: BTreeSet<ValueId>,
    /// What variables of programs are named, and what stands for a result that the kernel's form computes.
    pub vars: BTreeMap<Var, Val>,
    pub used: Used,
    /// Declarations of workgroup variables, and their bytes.
    pub shared: String,
    pub shared_bytes: u32,
    /// The level of the block that the expression being printed goes to.
    pub current: usize,
    /// How often each expression is used, where counted.
    pub uses: HashMap<ExprId, u32>,
    pub uses_dims: bool,
    /// Loads that may be vectors although the axis' extent is no multiple of four (padded panels).
    pub padded: HashSet<ValueId>,
    /// Whether vectors of a lane may reach beyond the extent of its axis.
    pub ragged: bool,
    /// Folds computed by all invocations of a workgroup together: their level, and the workgroup's size.
    pub cooperative: Option<(usize, u32)>,
    /// How many of those were written.
    pub folds: u32,
    /// Whether every load gets a name, because expressions that are yet to be made share them.
    pub name_loads: bool,
    free: HashMap<ExprId, Rc<BTreeSet<Axis>>>,
    volatile: HashMap<ExprId, bool>,
    next: usize,
}

impl<'a> Gen<'a> {
    pub(super) fn new(values: &'a mut Values, dim_order: &'a [Sym], vectors: HashSet<ValueId>) -> Self {
        Gen {
            values,
            dim_order,
            buffers: vec![],
            vectors,
            blocks: vec![Block::default()],
            axes: HashMap::new(),
            lanes: BTreeSet::new(),
            mutable: BTreeSet::new(),
            vars: BTreeMap::new(),
            used: Used::default(),
            shared: String::new(),
            shared_bytes: 0,
            current: 0,
            uses: HashMap::new(),
            uses_dims: false,
            padded: HashSet::new(),
            ragged: false,
            cooperative: None,
            folds: 0,
            name_loads: false,
            free: HashMap::new(),
            volatile: HashMap::new(),
            next: 0,
        }
    }

    /// A new name that is not a type's.
    pub(super) fn fresh(&mut self, prefix: &str) -> String {
        self.next += 1;
        match (prefix, self.next - 1) {
            ("f" | "i" | "u", 16 | 32) => self.fresh(prefix),
            (_, n) => format!("{prefix}{n}"),
        }
    }

    /// A line at the end of the block of that level.
    pub(super) fn line_at(&mut self, level: usize, text: &str) {
        if let Some(b) = self.blocks.get_mut(level) {
            for _ in 0..=level {
                b.text.push_str("  ");
            }
            b.text.push_str(text);
            b.text.push('\n');
        }
    }

    /// A line at the end of the innermost block.
    pub(super) fn line(&mut self, text: &str) {
        self.line_at(self.blocks.len().saturating_sub(1), text);
    }

    /// Opens a block: `head {`. What is printed from now on goes into it.
    pub(super) fn open(&mut self, head: &str) -> usize {
        self.blocks.push(Block { head: head.to_owned(), ..Block::default() });
        self.current = self.blocks.len() - 1;
        self.current
    }

    /// Closes the innermost block.
    pub(super) fn close(&mut self) {
        if let Some(b) = self.blocks.pop() {
            self.line(&format!("{} {{", b.head));
            if let Some(outer) = self.blocks.last_mut() {
                outer.text.push_str(&b.text);
            }
        }
        self.current = self.blocks.len().saturating_sub(1);
        self.line("}");
    }

    /// Opens `for (var name = 0; name < extent; name += step)` and binds `axis` to it.
    pub(super) fn open_loop(&mut self, axis: Axis, prefix: &str) -> Result<()> {
        let extent = self.values.arena.extent(axis).clone();
        let end = self.dim_text(&extent)?;
        let name = self.fresh(prefix);
        let level = self.open(&format!("for (var {name} = 0; {name} < {end}; {name} = {name} + 1)"));
        self.axes.insert(axis, (level, name));
        Ok(())
    }

    /// Binds an axis to a text that is valid from the block of `level` on.
    pub(super) fn bind(&mut self, axis: Axis, level: usize, text: impl Into<String>) {
        self.axes.insert(axis, (level, text.into()));
    }

    /// Binds `other` to what `axis` is bound to.
    pub(super) fn bind_again(&mut self, axis: Axis, other: Axis) {
        if let Some(bound) = self.axes.get(&axis).cloned() {
            self.axes.insert(other, bound);
        }
    }

    /// A dim as text, through the uniform where it is not known.
    pub(super) fn dim_text(&mut self, d: &Dim) -> Result<String> {
        if let Some(n) = d.known() {
            return Ok(marked(n));
        }
        let e = self.values.arena.dim(d);
        Ok(self.value(e)?.text)
    }

    /// A dim's expression over the uniform.
    pub(super) fn dim_expr(&mut self, d: &Dim) -> Result<String> {
        for s in d.syms() {
            if !self.dim_order.contains(&s) {
                return Err(Error::new(Kind::Internal, format!("dimension \"{s}\" is none of the model's")));
            }
        }
        self.uses_dims = true;
        let order = self.dim_order;
        let sym = |name: &str| {
            let i = order.iter().position(|s| &**s == name).unwrap_or(0);
            format!("dims[{}].{}", i / 4, ["x", "y", "z", "w"][i % 4])
        };
        let call = |op: &str, a: String, b: String| match op {
            "floor_div" => format!("({a} / {b})"),
            _ => format!("{op}({a}, {b})"),
        };
        Ok(d.print(&sym, &call))
    }

    /// The axes that `e` depends on and does not bind.
    pub(super) fn free_axes(&mut self, e: ExprId) -> Rc<BTreeSet<Axis>> {
        if let Some(s) = self.free.get(&e) {
            return Rc::clone(s);
        }
        let mut s = BTreeSet::new();
        for c in self.values.arena.children(e) {
            s.extend(self.free_axes(c).iter().copied());
        }
        match self.values.arena.node(e) {
            Node::Axis(a) => {
                s.insert(*a);
            }
            Node::Fold { axes, .. } => {
                for a in axes {
                    s.remove(a);
                }
            }
            _ => {}
        }
        let s = Rc::new(s);
        self.free.insert(e, Rc::clone(&s));
        s
    }

    /// Whether the value of `e` changes between statements.
    pub(super) fn is_volatile(&mut self, e: ExprId) -> bool {
        if self.mutable.is_empty() && self.vars.is_empty() {
            return false;
        }
        if let Some(v) = self.volatile.get(&e) {
            return *v;
        }
        let here = match self.values.arena.node(e) {
            Node::Var(..) => true,
            Node::Load { value, .. } => self.mutable.contains(value),
            _ => false,
        };
        let v = here || self.values.arena.children(e).into_iter().any(|c| self.is_volatile(c));
        self.volatile.insert(e, v);
        v
    }

    /// The outermost level at which `e` can be computed.
    pub(super) fn level(&mut self, e: ExprId) -> Result<usize> {
        if self.is_volatile(e) {
            return Ok(self.blocks.len() - 1);
        }
        let free = self.free_axes(e);
        let mut level = 0;
        for a in free.iter() {
            if self.lanes.contains(a) && !self.axes.contains_key(a) {
                continue;
            }
            let (l, _) = self
                .axes
                .get(a)
                .ok_or_else(|| Error::new(Kind::Internal, "an expression depends on an axis that is not bound"))?;
            level = level.max(*l);
        }
        Ok(level)
    }

    /// The buffer's name; notes the access.
    pub(super) fn buffer(&mut self, value: ValueId, access: Access) -> Result<String> {
        element(self.values.dtype(value)).map_err(|e| e.at(&self.values.get(value).name))?;
        let at = match self.buffers.iter().position(|(v, _)| *v == value) {
            Some(i) => i,
            None => {
                self.buffers.push((value, Access::default()));
                self.buffers.len() - 1
            }
        };
        let a = &mut self.buffers[at].1;
        a.written |= access.written;
        a.wide |= access.wide;
        a.single |= access.single;
        Ok(format!("b{at}"))
    }

    /// Which buffers may be declared as `vec4`: read-only ones with aligned accesses (every binding's size is a multiple
    /// of 16 bytes), and written ones that are only accessed four at a time.
    pub(super) fn vector_buffers(&self) -> HashSet<ValueId> {
        let fits = |(_, a): &&(ValueId, Access)| a.wide && (!a.single || !a.written);
        self.buffers.iter().filter(fits).map(|(v, _)| *v).collect()
    }

    /// Counts how often each expression under the roots is used.
    pub(super) fn count(&mut self, roots: &[ExprId]) {
        let mut seen = HashSet::new();
        let mut todo: Vec<ExprId> = roots.to_vec();
        for r in roots {
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

    /// The whole shader around the body of `main`.
    pub(super) fn assemble(&self, workgroup: [u32; 3]) -> Result<Code> {
        let mut out = String::new();
        for (i, (v, a)) in self.buffers.iter().enumerate() {
            let ty = element(self.values.dtype(*v))?;
            let ty = if self.vectors.contains(v) { format!("vec4<{ty}>") } else { ty.to_owned() };
            let access = if a.written { "read_write" } else { "read" };
            out.push_str(&format!("@group(0) @binding({i}) var<storage, {access}> b{i}: array<{ty}>;\n"));
        }
        let mut next = self.buffers.len();
        if self.uses_dims {
            let n = self.dim_order.len().div_ceil(4);
            out.push_str(&format!("@group(0) @binding({next}) var<uniform> dims: array<vec4<i32>, {n}>;\n"));
            next += 1;
        }
        if self.used.overflow() {
            out.push_str(&format!("@group(0) @binding({next}) var<storage, read_write> overflow: atomic<u32>;\n"));
            next += 1;
        }
        out.push_str(&self.shared);
        out.push_str(&self.used.text());
        let [x, y, z] = workgroup;
        out.push_str(&format!("@compute @workgroup_size({x}, {y}, {z})\n"));
        out.push_str(
            "fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) invocation: u32) {\n",
        );
        let body: String = self.blocks.iter().map(|b| b.text.as_str()).chain(["}\n"]).collect();
        Ok(Code::new(out, &body, next))
    }

    /// Begins `main`: `id` is the workgroup's number of `groups`; returns the dispatch's size.
    pub(super) fn grid(&mut self, groups: &Dim) -> Result<[Dim; 3]> {
        self.line("let tid = i32(invocation);");
        let one = Dim::from(1);
        if groups.range(&self.values.arena.ranges).max <= MAX_GROUPS {
            self.line("let id = i32(group.x);");
            return Ok([groups.clone(), one.clone(), one]);
        }
        self.line(&format!("let id = i32(group.y * {MAX_GROUPS}u + group.x);"));
        let n = self.dim_text(groups)?;
        self.line(&format!("if (id >= {n}) {{ return; }}"));
        let max = Dim::from(MAX_GROUPS);
        let rows = ceil_div(groups, MAX_GROUPS);
        Ok([groups.minimum(&max), rows, one])
    }
}

/// `⌈d / n⌉`.
pub(super) fn ceil_div(d: &Dim, n: i64) -> Dim {
    d.add(&Dim::from(n - 1)).floor_div(&Dim::from(n))
}

/// The WGSL type of a buffer's elements.
pub(super) fn element(dtype: DType) -> Result<&'static str> {
    match gpu_dtype(dtype) {
        Some(DType::Float32) => Ok("f32"),
        Some(DType::Int32) => Ok("i32"),
        Some(_) => Ok("u32"),
        None => Err(unsupported()),
    }
}

/// The WGSL type in which a scalar is computed.
pub(super) fn scalar_type(ty: Ty) -> Result<&'static str> {
    match ty {
        Ty::F32 => Ok("f32"),
        Ty::I32 | Ty::I64 => Ok("i32"),
        Ty::U32 | Ty::U64 => Ok("u32"),
        Ty::Bool => Ok("bool"),
        Ty::F64 => Err(unsupported()),
    }
}

/// The WGSL type of a scalar or a vector of four.
pub(super) fn type_name(ty: Ty, wide: bool) -> Result<String> {
    let t = scalar_type(ty)?;
    Ok(if wide { format!("vec4<{t}>") } else { t.to_owned() })
}

fn unsupported() -> Error {
    Error::new(Kind::UnsupportedType, "the GPU has no 64-bit floating point").help("run the model on the CPU")
}
