//! The values that lowering makes: inputs, constants, functions, results of programs.

use super::arena::Arena;
use super::expr::{Axis, ExprId, Node, Scalar, Ty};
use super::program::Program;
use crate::error::{Error, Kind, Result};
use crate::tensor::{Array, DType, Dim, Shape};
use std::sync::Arc;

/// A tensor of the lowered model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ValueId(pub u32);

/// A tensor as a function of its index: `value[axes] = expr`, one axis a dimension.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Func {
    pub axes: Vec<Axis>,
    pub expr: ExprId,
}

/// Where a value comes from.
#[derive(Debug, Clone)]
pub enum Def {
    /// The model's input of this position.
    Input(usize),
    Constant(Array),
    Func(Func),
    /// Written by a program, at this position of its `writes`.
    Program(Arc<Program>, usize),
}

/// A tensor: where it comes from, its type and shape, and the node path it is named after.
#[derive(Debug, Clone)]
pub struct Value {
    pub name: String,
    pub dtype: DType,
    pub shape: Shape,
    pub def: Def,
}

/// All values of a model in an order in which each uses only earlier ones, and the arena of their expressions.
#[derive(Debug, Default, Clone)]
pub struct Values {
    pub arena: Arena,
    list: Vec<Value>,
    /// The path of the node being lowered; new values are named after it.
    pub path: String,
}

impl Values {
    pub fn new() -> Self {
        Values::default()
    }

    /// The value of that id.
    pub fn get(&self, v: ValueId) -> &Value {
        &self.list[v.0 as usize]
    }

    pub fn len(&self) -> usize {
        self.list.len()
    }

    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Every value, in order of definition.
    pub fn iter(&self) -> impl Iterator<Item = (ValueId, &Value)> {
        (0u32..).map(ValueId).zip(&self.list)
    }

    pub fn shape(&self, v: ValueId) -> &[Dim] {
        &self.get(v).shape
    }

    pub fn dtype(&self, v: ValueId) -> DType {
        self.get(v).dtype
    }

    /// The type in which the value's elements are computed.
    pub fn ty(&self, v: ValueId) -> Ty {
        Ty::of(self.dtype(v))
    }

    /// The value's data, where it is constant.
    pub fn constant(&self, v: ValueId) -> Option<&Array> {
        match &self.get(v).def {
            Def::Constant(a) => Some(a),
            _ => None,
        }
    }

    fn push(&mut self, dtype: DType, shape: Shape, def: Def) -> ValueId {
        let id = ValueId(u32::try_from(self.list.len()).unwrap_or(u32::MAX));
        self.arena.value_ty(id, Ty::of(dtype));
        self.list.push(Value { name: self.path.clone(), dtype, shape, def });
        id
    }

    /// The model's input at `position`.
    pub fn input(&mut self, position: usize, dtype: DType, shape: Shape) -> ValueId {
        self.push(dtype, shape, Def::Input(position))
    }

    /// A constant tensor.
    pub fn constant_array(&mut self, array: Array) -> ValueId {
        let shape = array.shape().iter().map(|n| Dim::from(*n)).collect();
        self.push(array.dtype(), shape, Def::Constant(array))
    }

    /// `value[axes] = f(axes)`: makes the axes and calls `f` with an index expression for each. The expression's type must
    /// be [`Ty::of`] `dtype`.
    pub fn func(
        &mut self,
        dtype: DType,
        shape: Shape,
        f: impl FnOnce(&mut Values, &[ExprId]) -> Result<ExprId>,
    ) -> Result<ValueId> {
        let axes: Vec<Axis> = shape.iter().map(|d| self.arena.axis(d.clone())).collect();
        let index: Vec<ExprId> = axes.iter().map(|a| self.arena.add_node(Node::Axis(*a))).collect();
        let expr = f(self, &index)?;
        if self.arena.ty(expr) != Ty::of(dtype) {
            return Err(Error::new(
                Kind::Internal,
                format!("lowering computes {:?} for a {dtype} value", self.arena.ty(expr)),
            )
            .at(&self.path));
        }
        Ok(self.push(dtype, shape, Def::Func(Func { axes, expr })))
    }

    /// The value of a constant of one element, which is then no load but part of the code.
    fn scalar(&self, value: ValueId) -> Option<Scalar> {
        let array = self.constant(value).filter(|a| a.len() == 1)?;
        let ty = self.ty(value);
        match (array.to_i64(), array.to_f64()) {
            (Some(n), _) => n.first().map(|n| Scalar::int(ty, *n)),
            (_, Some(x)) => x.first().map(|x| Scalar::real(ty, *x)),
            _ => None,
        }
    }

    /// The element of `value` at `index`.
    pub fn load(&mut self, value: ValueId, index: &[ExprId]) -> ExprId {
        debug_assert_eq!(index.len(), self.shape(value).len(), "load of {} with a wrong rank", self.get(value).name);
        if let Some(s) = self.scalar(value) {
            return self.arena.constant(s);
        }
        self.arena.add_node(Node::Load { value, index: index.into() })
    }

    /// The element of `value` at `index` under ONNX broadcasting (numpy's rule): `index` is that of the result, whose rank
    /// is at least the value's; axes of size 1 are read at 0.
    pub fn load_broadcast(&mut self, value: ValueId, index: &[ExprId]) -> ExprId {
        let shape = self.shape(value).to_vec();
        let skip = index.len() - shape.len();
        let at: Vec<ExprId> =
            shape.iter().zip(&index[skip..]).map(|(d, i)| if d.is(1) { self.arena.int(0) } else { *i }).collect();
        self.load(value, &at)
    }

    /// `body` combined over new axes of the given extents.
    pub fn fold(
        &mut self,
        op: super::FoldOp,
        extents: &[Dim],
        f: impl FnOnce(&mut Values, &[ExprId]) -> Result<ExprId>,
    ) -> Result<ExprId> {
        let axes: Vec<Axis> = extents.iter().map(|d| self.arena.axis(d.clone())).collect();
        let index: Vec<ExprId> = axes.iter().map(|a| self.arena.add_node(Node::Axis(*a))).collect();
        let body = f(self, &index)?;
        Ok(self.arena.add_node(Node::Fold { op, axes: axes.into(), body }))
    }

    /// Values written by a program: `outputs` are (dtype, shape), the first `n` the caller's, the rest scratch; `f` gets
    /// their ids and returns parallel axes and statements.
    pub fn program(
        &mut self,
        writes: Vec<(DType, Shape)>,
        f: impl FnOnce(&mut Values, &[ValueId]) -> Result<(Vec<Axis>, Vec<super::Stmt>)>,
    ) -> Result<Vec<ValueId>> {
        let empty = Arc::new(Program { parallel: vec![], body: vec![], writes: vec![] });
        let ids: Vec<ValueId> = writes
            .into_iter()
            .enumerate()
            .map(|(i, (dtype, shape))| self.push(dtype, shape, Def::Program(Arc::clone(&empty), i)))
            .collect();
        let (parallel, body) = f(self, &ids)?;
        let program = Arc::new(Program { parallel, body, writes: ids.clone() });
        for (i, id) in ids.iter().enumerate() {
            self.list[id.0 as usize].def = Def::Program(Arc::clone(&program), i);
        }
        Ok(ids)
    }

    /// A value defined by a function that is made already.
    pub fn define(&mut self, dtype: DType, shape: Shape, f: Func) -> ValueId {
        self.push(dtype, shape, Def::Func(f))
    }

    /// Replaces how a value is defined (fusion and folding do).
    pub fn redefine(&mut self, v: ValueId, def: Def) {
        self.list[v.0 as usize].def = def;
    }
}
