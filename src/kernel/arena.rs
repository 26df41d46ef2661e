//! The arena of expressions: hash-consed, so that equal expressions are one node, and simplified as they are built.

use super::expr::{Axis, BinaryOp, ExprId, Node, Scalar, Ty, UnaryOp};
use super::program::Var;
use super::values::ValueId;
use crate::tensor::{Dim, DimRange, Sym};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// All expressions of a model.
#[derive(Debug, Default, Clone)]
pub struct Arena {
    nodes: Vec<Node>,
    types: Vec<Ty>,
    ids: HashMap<Node, ExprId>,
    extents: Vec<Dim>,
    value_types: HashMap<ValueId, Ty>,
    vars: u32,
    /// The bounds of the model's symbolic dims.
    pub ranges: BTreeMap<Sym, DimRange>,
}

/// `constant + Σ factor · axis`, all over run-time dims.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Affine {
    pub terms: BTreeMap<Axis, Dim>,
    pub constant: Dim,
}

impl Arena {
    /// A new axis of that extent.
    pub fn axis(&mut self, extent: Dim) -> Axis {
        self.extents.push(extent);
        Axis(u32::try_from(self.extents.len() - 1).unwrap_or(u32::MAX))
    }

    /// A new variable for a program.
    pub fn var(&mut self) -> Var {
        self.vars += 1;
        Var(self.vars - 1)
    }

    /// The number of indices of an axis.
    pub fn extent(&self, a: Axis) -> &Dim {
        &self.extents[a.0 as usize]
    }

    pub(super) fn value_ty(&mut self, v: ValueId, ty: Ty) {
        self.value_types.insert(v, ty);
    }

    pub fn node(&self, e: ExprId) -> &Node {
        &self.nodes[e.0 as usize]
    }

    /// The type of an expression.
    pub fn ty(&self, e: ExprId) -> Ty {
        self.types[e.0 as usize]
    }

    /// Adds a node as it is, without simplifying, or finds the one that is there.
    pub fn add_node(&mut self, node: Node) -> ExprId {
        if let Some(id) = self.ids.get(&node) {
            return *id;
        }
        let ty = match &node {
            Node::Const(s) => s.ty,
            Node::Dim(_) | Node::Axis(_) => Ty::I32,
            Node::Var(_, ty) => *ty,
            Node::Load { value, .. } => self.value_types.get(value).copied().unwrap_or(Ty::F32),
            Node::Unary(op, a) => match op {
                UnaryOp::Cast(ty) | UnaryOp::Bitcast(ty) => *ty,
                UnaryOp::IsNan | UnaryOp::IsInf => Ty::Bool,
                _ => self.ty(*a),
            },
            Node::Binary(op, ..) if op.is_comparison() => Ty::Bool,
            Node::Binary(_, a, _) => self.ty(*a),
            Node::Select { then, .. } => self.ty(*then),
            Node::Fold { op: super::FoldOp::ArgMax { .. } | super::FoldOp::ArgMin { .. }, .. } => Ty::I32,
            Node::Fold { body, .. } => self.ty(*body),
        };
        let id = ExprId(u32::try_from(self.nodes.len()).unwrap_or(u32::MAX));
        self.nodes.push(node.clone());
        self.types.push(ty);
        self.ids.insert(node, id);
        id
    }

    pub fn constant(&mut self, s: Scalar) -> ExprId {
        self.add_node(Node::Const(s))
    }

    /// An `I32` constant, for index arithmetic.
    pub fn int(&mut self, n: i64) -> ExprId {
        self.constant(Scalar::int(Ty::I32, n))
    }

    /// A real constant of a type.
    pub fn real(&mut self, ty: Ty, x: f64) -> ExprId {
        self.constant(Scalar::real(ty, x))
    }

    /// A run-time dim as an `I32` expression.
    pub fn dim(&mut self, d: &Dim) -> ExprId {
        match d.known() {
            Some(n) => self.int(n),
            None => self.add_node(Node::Dim(d.clone())),
        }
    }

    pub fn axis_expr(&mut self, a: Axis) -> ExprId {
        self.add_node(Node::Axis(a))
    }

    /// The expression's integer value, where it is an integer constant.
    pub fn as_int(&self, e: ExprId) -> Option<i64> {
        match self.node(e) {
            Node::Const(s) => s.as_int(),
            _ => None,
        }
    }

    /// The expression as a dim, where it is an `I32` constant or a dim.
    pub fn as_dim(&self, e: ExprId) -> Option<Dim> {
        match self.node(e) {
            Node::Const(s) if s.ty == Ty::I32 => s.as_int().map(Dim::from),
            Node::Dim(d) => Some(d.clone()),
            _ => None,
        }
    }

    pub fn unary(&mut self, op: UnaryOp, a: ExprId) -> ExprId {
        if let UnaryOp::Cast(ty) = op {
            return self.cast(ty, a);
        }
        self.add_node(Node::Unary(op, a))
    }

    /// Conversion; none where the type is that already, folded where it is an integer constant.
    pub fn cast(&mut self, ty: Ty, a: ExprId) -> ExprId {
        if self.ty(a) == ty {
            return a;
        }
        if let Some(n) = self.as_int(a)
            && self.ty(a) != Ty::U64
        {
            return self.constant(Scalar::int(ty, n));
        }
        self.add_node(Node::Unary(UnaryOp::Cast(ty), a))
    }

    pub fn select(&mut self, condition: ExprId, then: ExprId, otherwise: ExprId) -> ExprId {
        match self.as_int(condition) {
            Some(0) => otherwise,
            Some(_) => then,
            None if then == otherwise => then,
            None => self.add_node(Node::Select { condition, then, otherwise }),
        }
    }

    pub fn add(&mut self, a: ExprId, b: ExprId) -> ExprId {
        self.binary(BinaryOp::Add, a, b)
    }

    pub fn sub(&mut self, a: ExprId, b: ExprId) -> ExprId {
        self.binary(BinaryOp::Sub, a, b)
    }

    pub fn mul(&mut self, a: ExprId, b: ExprId) -> ExprId {
        self.binary(BinaryOp::Mul, a, b)
    }

    pub fn div(&mut self, a: ExprId, b: ExprId) -> ExprId {
        self.binary(BinaryOp::Div, a, b)
    }

    pub fn lt(&mut self, a: ExprId, b: ExprId) -> ExprId {
        self.binary(BinaryOp::Lt, a, b)
    }

    pub fn ge(&mut self, a: ExprId, b: ExprId) -> ExprId {
        self.binary(BinaryOp::Ge, a, b)
    }

    pub fn and(&mut self, a: ExprId, b: ExprId) -> ExprId {
        self.binary(BinaryOp::And, a, b)
    }

    /// A binary expression, simplified: `I32` index arithmetic is folded and reduced with what is known of ranges; other
    /// types only by identities that are exact.
    pub fn binary(&mut self, op: BinaryOp, a: ExprId, b: ExprId) -> ExprId {
        debug_assert_eq!(self.ty(a), self.ty(b), "{op:?} of two types");
        let ty = self.ty(a);
        if ty == Ty::Bool {
            match (op, self.as_int(a), self.as_int(b)) {
                (BinaryOp::And, Some(1), _) | (BinaryOp::Or, Some(0), _) => return b,
                (BinaryOp::And, _, Some(1)) | (BinaryOp::Or, _, Some(0)) => return a,
                (BinaryOp::And, Some(0), _) | (BinaryOp::Or, Some(1), _) => return a,
                (BinaryOp::And, _, Some(0)) | (BinaryOp::Or, _, Some(1)) => return b,
                _ => {}
            }
        }
        if ty == Ty::I32
            && let Some(e) = self.simplify_index(op, a, b)
        {
            return e;
        }
        self.add_node(Node::Binary(op, a, b))
    }

    fn simplify_index(&mut self, op: BinaryOp, a: ExprId, b: ExprId) -> Option<ExprId> {
        use BinaryOp::{Add, Div, Eq, FloorDiv, FloorMod, Ge, Gt, Le, Lt, Max, Min, Mul, Ne, Rem, Sub};
        let (ka, kb) = (self.as_int(a), self.as_int(b));
        if let (Some(x), Some(y)) = (ka, kb) {
            let bool_of = |arena: &mut Arena, v: bool| arena.constant(Scalar::bool(v));
            let n = match op {
                Add => x.checked_add(y)?,
                Sub => x.checked_sub(y)?,
                Mul => x.checked_mul(y)?,
                Div if y != 0 => x / y,
                Rem if y != 0 => x % y,
                FloorDiv if y > 0 => x.div_euclid(y),
                FloorMod if y > 0 => x.rem_euclid(y),
                Max => x.max(y),
                Min => x.min(y),
                Eq => return Some(bool_of(self, x == y)),
                Ne => return Some(bool_of(self, x != y)),
                Lt => return Some(bool_of(self, x < y)),
                Le => return Some(bool_of(self, x <= y)),
                Gt => return Some(bool_of(self, x > y)),
                Ge => return Some(bool_of(self, x >= y)),
                _ => return None,
            };
            return i32::try_from(n).ok().map(|n| self.int(i64::from(n)));
        }
        if let (Some(x), Some(y)) = (self.as_dim(a), self.as_dim(b)) {
            let d = match op {
                Add => Some(x.add(&y)),
                Sub => Some(x.sub(&y)),
                Mul => Some(x.mul(&y)),
                FloorDiv if y.range(&self.ranges).min > 0 => Some(x.floor_div(&y)),
                Max => Some(x.maximum(&y)),
                Min => Some(x.minimum(&y)),
                _ => None,
            };
            if let Some(d) = d {
                return Some(self.dim(&d));
            }
        }
        match op {
            Add if ka == Some(0) => return Some(b),
            Add | Sub if kb == Some(0) => return Some(a),
            Mul if ka == Some(1) => return Some(b),
            Mul | FloorDiv | Div if kb == Some(1) => return Some(a),
            Mul if ka == Some(0) || kb == Some(0) => return Some(self.int(0)),
            FloorMod | Rem if kb == Some(1) => return Some(self.int(0)),
            Sub if a == b => return Some(self.int(0)),
            // Constants to the right, so that equal sums are one node.
            Add | Mul if ka.is_some() => return Some(self.binary(op, b, a)),
            _ => {}
        }
        // (x + c1) + c2, (x * c1) * c2
        if let (Some(y), Node::Binary(inner, x, c)) = (kb, self.node(a).clone())
            && let Some(c) = self.as_int(c)
        {
            match (op, inner) {
                (Add, Add) => {
                    let c = self.int(c.checked_add(y)?);
                    return Some(self.add(x, c));
                }
                (Sub, Add) => {
                    let c = self.int(c.checked_sub(y)?);
                    return Some(self.add(x, c));
                }
                (Mul, Mul) => {
                    let c = self.int(c.checked_mul(y)?);
                    return Some(self.mul(x, c));
                }
                _ => {}
            }
        }
        if op == Sub
            && let Some(y) = kb
        {
            let c = self.int(y.checked_neg()?);
            return Some(self.add(a, c));
        }
        if matches!(op, FloorDiv | FloorMod) {
            return self.simplify_division(op == FloorDiv, a, b);
        }
        // (x / c) * c + x % c = x
        if op == Add {
            for (p, q) in [(a, b), (b, a)] {
                if let (Node::Binary(Mul, d, c1), Node::Binary(FloorMod, x, c2)) = (self.node(p), self.node(q))
                    && c1 == c2
                    && let Node::Binary(FloorDiv, y, c3) = self.node(*d)
                    && c3 == c2
                    && x == y
                {
                    return Some(*x);
                }
            }
        }
        let decided = match op {
            Lt | Ge | Gt | Le | Eq | Ne => {
                let (ra, rb) = (self.range(a), self.range(b));
                match op {
                    Lt | Ge if ra.max < rb.min => Some(op == Lt),
                    Lt | Ge if ra.min >= rb.max => Some(op == Ge),
                    Gt | Le if ra.min > rb.max => Some(op == Gt),
                    Gt | Le if ra.max <= rb.min => Some(op == Le),
                    Eq | Ne if ra.max < rb.min || rb.max < ra.min => Some(op == Ne),
                    _ => self.decide_symbolic(op, a, b),
                }
            }
            _ => None,
        };
        if let Some(v) = decided {
            return Some(self.constant(Scalar::bool(v)));
        }
        match op {
            Max | Min => {
                let (ra, rb) = (self.range(a), self.range(b));
                if ra.min >= rb.max {
                    return Some(if op == Max { a } else { b });
                }
                if rb.min >= ra.max {
                    return Some(if op == Max { b } else { a });
                }
                None
            }
            _ => None,
        }
    }

    /// `axis < extent` and `axis >= 0` where the extent is symbolic.
    fn decide_symbolic(&self, op: BinaryOp, a: ExprId, b: ExprId) -> Option<bool> {
        if let (Node::Axis(axis), Some(d)) = (self.node(a), self.as_dim(b))
            && *self.extent(*axis) == d
        {
            return match op {
                BinaryOp::Lt | BinaryOp::Le | BinaryOp::Ne => Some(true),
                BinaryOp::Ge | BinaryOp::Gt | BinaryOp::Eq => Some(false),
                _ => None,
            };
        }
        None
    }

    /// `⌊a / b⌋` or `a mod b` for `b > 0`: takes multiples of `b` out of the sum `a`, where the rest lies in `0..b`.
    fn simplify_division(&mut self, quotient: bool, a: ExprId, b: ExprId) -> Option<ExprId> {
        let d = self.as_dim(b)?;
        let mut terms = vec![];
        self.sum_terms(a, &mut terms);
        let (mut whole, mut rest) = (vec![], vec![]);
        for t in terms {
            match self.divide_term(t, &d) {
                Some(q) => whole.push(q),
                None => rest.push(t),
            }
        }
        let r = rest.iter().fold(DimRange { min: 0, max: 0 }, |s, t| {
            let r = self.range(*t);
            DimRange { min: s.min.saturating_add(r.min), max: s.max.saturating_add(r.max) }
        });
        let fits = r.min >= 0 && r.max < d.range(&self.ranges).min || self.is_axis_below(&rest, &d);
        if !fits && whole.is_empty() {
            return None;
        }
        let sum = |arena: &mut Arena, list: &[ExprId]| {
            let zero = arena.int(0);
            list.iter().fold(zero, |s, t| arena.add(s, *t))
        };
        let rest = sum(self, &rest);
        let op = if quotient { BinaryOp::FloorDiv } else { BinaryOp::FloorMod };
        let tail = match (fits, quotient) {
            (true, true) => self.int(0),
            (true, false) => rest,
            (false, _) => match (self.as_int(rest), self.as_int(b)) {
                (Some(_), Some(_)) => self.binary(op, rest, b),
                _ => self.add_node(Node::Binary(op, rest, b)),
            },
        };
        if quotient {
            let whole = sum(self, &whole);
            Some(self.add(whole, tail))
        } else {
            Some(tail)
        }
    }

    /// Whether the sum is one axis whose extent is `d` (so that it lies in `0..d` even where `d` is symbolic).
    fn is_axis_below(&self, rest: &[ExprId], d: &Dim) -> bool {
        matches!(rest, [e] if matches!(self.node(*e), Node::Axis(x) if self.extent(*x) == d))
    }

    fn sum_terms(&self, e: ExprId, out: &mut Vec<ExprId>) {
        match self.node(e) {
            Node::Binary(BinaryOp::Add, a, b) => {
                self.sum_terms(*a, out);
                self.sum_terms(*b, out);
            }
            _ => out.push(e),
        }
    }

    /// `e / d` where `e` is a product with a factor divisible by `d`, or a dim divisible by `d`.
    fn divide_term(&mut self, e: ExprId, d: &Dim) -> Option<ExprId> {
        if let Some(x) = self.as_dim(e) {
            let q = x.div_exact(d)?;
            return Some(self.dim(&q));
        }
        if let Node::Binary(BinaryOp::Mul, x, c) = self.node(e).clone() {
            if let Some(q) = self.as_dim(c).and_then(|c| c.div_exact(d)) {
                let q = self.dim(&q);
                return Some(self.mul(x, q));
            }
            if let Some(q) = self.divide_term(x, d) {
                return Some(self.mul(q, c));
            }
        }
        None
    }

    /// The least and greatest value of an `I32` expression.
    pub fn range(&self, e: ExprId) -> DimRange {
        let all = DimRange { min: i64::from(i32::MIN), max: i64::from(i32::MAX) };
        let within = |r: DimRange| DimRange { min: r.min.max(all.min), max: r.max.min(all.max) };
        match self.node(e) {
            Node::Const(s) => s.as_int().map_or(all, |n| DimRange { min: n, max: n }),
            Node::Dim(d) => within(d.range(&self.ranges)),
            Node::Axis(a) => {
                let r = self.extent(*a).range(&self.ranges);
                within(DimRange { min: 0, max: r.max.saturating_sub(1).max(0) })
            }
            Node::Binary(op, a, b) if self.ty(*a) == Ty::I32 => {
                let (x, y) = (self.range(*a), self.range(*b));
                match op {
                    BinaryOp::Add => within(DimRange { min: x.min + y.min, max: x.max + y.max }),
                    BinaryOp::Sub => within(DimRange { min: x.min - y.max, max: x.max - y.min }),
                    BinaryOp::Mul => {
                        let p = [x.min * y.min, x.min * y.max, x.max * y.min, x.max * y.max];
                        within(DimRange {
                            min: p.iter().copied().fold(i64::MAX, i64::min),
                            max: p.iter().copied().fold(i64::MIN, i64::max),
                        })
                    }
                    BinaryOp::FloorDiv if y.min > 0 => DimRange {
                        min: x.min.div_euclid(if x.min < 0 { y.min } else { y.max }),
                        max: x.max.div_euclid(if x.max < 0 { y.max } else { y.min }),
                    },
                    BinaryOp::FloorMod if y.min > 0 => {
                        let max = if x.min >= 0 { x.max.min(y.max - 1) } else { y.max - 1 };
                        DimRange { min: 0, max }
                    }
                    BinaryOp::Max => DimRange { min: x.min.max(y.min), max: x.max.max(y.max) },
                    BinaryOp::Min => DimRange { min: x.min.min(y.min), max: x.max.min(y.max) },
                    _ => all,
                }
            }
            Node::Select { then, otherwise, .. } => {
                let (x, y) = (self.range(*then), self.range(*otherwise));
                DimRange { min: x.min.min(y.min), max: x.max.max(y.max) }
            }
            Node::Unary(UnaryOp::Cast(Ty::I32), a) if self.ty(*a) == Ty::Bool => DimRange { min: 0, max: 1 },
            _ => all,
        }
    }

    /// The expression as an affine function of axes, where it is one.
    pub fn affine(&self, e: ExprId) -> Option<Affine> {
        if let Some(d) = self.as_dim(e) {
            return Some(Affine { terms: BTreeMap::new(), constant: d });
        }
        match self.node(e) {
            Node::Axis(a) => Some(Affine { terms: BTreeMap::from([(*a, Dim::from(1))]), constant: Dim::from(0) }),
            Node::Binary(op @ (BinaryOp::Add | BinaryOp::Sub), a, b) => {
                let (mut x, y) = (self.affine(*a)?, self.affine(*b)?);
                let sign = Dim::from(if *op == BinaryOp::Add { 1 } else { -1 });
                for (axis, f) in y.terms {
                    let sum = x.terms.remove(&axis).unwrap_or_else(|| Dim::from(0)).add(&f.mul(&sign));
                    if !sum.is(0) {
                        x.terms.insert(axis, sum);
                    }
                }
                x.constant = x.constant.add(&y.constant.mul(&sign));
                Some(x)
            }
            Node::Binary(BinaryOp::Mul, a, b) => {
                let (x, y) = (self.affine(*a)?, self.affine(*b)?);
                let (x, f) = if y.terms.is_empty() { (x, y.constant) } else { (y, x.constant.clone()) };
                if self.as_dim(*a).is_none() && self.as_dim(*b).is_none() {
                    return None;
                }
                let terms = x.terms.into_iter().map(|(a, t)| (a, t.mul(&f))).filter(|(_, t)| !t.is(0)).collect();
                Some(Affine { terms, constant: x.constant.mul(&f) })
            }
            _ => None,
        }
    }

    /// What is added to negative indices in `select(x < 0, x + n, x)`, where the three expressions are its parts and `n` is
    /// known not to be negative.
    pub fn wrapped_index(&self, condition: ExprId, then: ExprId, otherwise: ExprId) -> Option<ExprId> {
        let Node::Binary(BinaryOp::Lt, x, zero) = *self.node(condition) else { return None };
        let Node::Binary(BinaryOp::Add, y, n) = *self.node(then) else { return None };
        let is_zero = matches!(self.node(zero), Node::Const(s) if s.as_int() == Some(0));
        let natural = match self.node(n) {
            Node::Const(s) => s.as_int().is_some_and(|n| n >= 0),
            Node::Dim(_) => true,
            _ => false,
        };
        (x == otherwise && y == otherwise && is_zero && natural).then_some(n)
    }

    /// Whether the expression computes in 64-bit integers so that, in 32 bits, the result may have to be refused.
    pub fn may_overflow(&self, e: ExprId) -> bool {
        use BinaryOp::{Add, Mul, Shl, Shr, Sub};
        let (mut sums, mut safe) = (BTreeSet::new(), BTreeSet::new());
        self.visit(e, &mut |id, n| match n {
            Node::Binary(Add | Sub | Mul | Shl | Shr, ..) | Node::Unary(..) | Node::Fold { .. }
                if matches!(self.ty(id), Ty::I64 | Ty::U64) =>
            {
                sums.insert(id);
            }
            Node::Select { condition, then, otherwise }
                if self.wrapped_index(*condition, *then, *otherwise).is_some() =>
            {
                safe.insert(*then);
            }
            _ => {}
        });
        !sums.is_subset(&safe)
    }

    /// The children of a node, in order.
    pub fn children(&self, e: ExprId) -> Vec<ExprId> {
        match self.node(e) {
            Node::Const(_) | Node::Dim(_) | Node::Axis(_) | Node::Var(..) => vec![],
            Node::Load { index, .. } => index.to_vec(),
            Node::Unary(_, a) => vec![*a],
            Node::Binary(_, a, b) => vec![*a, *b],
            Node::Select { condition, then, otherwise } => vec![*condition, *then, *otherwise],
            Node::Fold { body, .. } => vec![*body],
        }
    }

    /// Rebuilds an expression bottom-up: `f` may replace a node whose children are rebuilt already; what it leaves is
    /// simplified again. Every distinct node is visited once.
    pub fn rewrite(&mut self, e: ExprId, f: &mut dyn FnMut(&mut Arena, &Node) -> Option<ExprId>) -> ExprId {
        let mut done = HashMap::new();
        self.rewrite_memo(e, f, &mut done)
    }

    fn rewrite_memo(
        &mut self,
        e: ExprId,
        f: &mut dyn FnMut(&mut Arena, &Node) -> Option<ExprId>,
        done: &mut HashMap<ExprId, ExprId>,
    ) -> ExprId {
        if let Some(r) = done.get(&e) {
            return *r;
        }
        let node = match self.node(e).clone() {
            n @ (Node::Const(_) | Node::Dim(_) | Node::Axis(_) | Node::Var(..)) => n,
            Node::Load { value, index } => {
                Node::Load { value, index: index.iter().map(|i| self.rewrite_memo(*i, f, done)).collect() }
            }
            Node::Unary(op, a) => Node::Unary(op, self.rewrite_memo(a, f, done)),
            Node::Binary(op, a, b) => Node::Binary(op, self.rewrite_memo(a, f, done), self.rewrite_memo(b, f, done)),
            Node::Select { condition, then, otherwise } => Node::Select {
                condition: self.rewrite_memo(condition, f, done),
                then: self.rewrite_memo(then, f, done),
                otherwise: self.rewrite_memo(otherwise, f, done),
            },
            Node::Fold { op, axes, body } => Node::Fold { op, axes, body: self.rewrite_memo(body, f, done) },
        };
        let r = match f(self, &node) {
            Some(r) => r,
            None => match node {
                Node::Unary(op, a) => self.unary(op, a),
                Node::Binary(op, a, b) => self.binary(op, a, b),
                Node::Select { condition, then, otherwise } => self.select(condition, then, otherwise),
                other => self.add_node(other),
            },
        };
        done.insert(e, r);
        r
    }

    /// The expression with axes replaced by expressions.
    pub fn substitute(&mut self, e: ExprId, with: &HashMap<Axis, ExprId>) -> ExprId {
        self.rewrite(e, &mut |_, n| match n {
            Node::Axis(a) => with.get(a).copied(),
            _ => None,
        })
    }

    /// Calls `f` once for every distinct node under `e`, children first.
    pub fn visit(&self, e: ExprId, f: &mut dyn FnMut(ExprId, &Node)) {
        let mut seen = BTreeSet::new();
        self.visit_memo(e, f, &mut seen);
    }

    fn visit_memo(&self, e: ExprId, f: &mut dyn FnMut(ExprId, &Node), seen: &mut BTreeSet<ExprId>) {
        if !seen.insert(e) {
            return;
        }
        for c in self.children(e) {
            self.visit_memo(c, f, seen);
        }
        f(e, self.node(e));
    }

    /// The axes that `e` depends on and does not bind itself.
    pub fn free_axes(&self, e: ExprId) -> BTreeSet<Axis> {
        let mut memo = HashMap::new();
        self.free_axes_memo(e, &mut memo)
    }

    fn free_axes_memo(&self, e: ExprId, memo: &mut HashMap<ExprId, BTreeSet<Axis>>) -> BTreeSet<Axis> {
        if let Some(s) = memo.get(&e) {
            return s.clone();
        }
        let mut s: BTreeSet<Axis> = BTreeSet::new();
        if let Node::Axis(a) = self.node(e) {
            s.insert(*a);
        }
        for c in self.children(e) {
            s.extend(self.free_axes_memo(c, memo));
        }
        if let Node::Fold { axes, .. } = self.node(e) {
            for a in axes {
                s.remove(a);
            }
        }
        memo.insert(e, s.clone());
        s
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merging_and_splitting_an_axis_costs_nothing() {
        let mut a = Arena::default();
        let h = a.axis(Dim::from(12));
        let d = a.axis(Dim::from(32));
        let (h, d) = (a.axis_expr(h), a.axis_expr(d));
        let c32 = a.int(32);
        let hs = a.mul(h, c32);
        let flat = a.add(hs, d);
        assert_eq!(a.binary(BinaryOp::FloorDiv, flat, c32), h);
        assert_eq!(a.binary(BinaryOp::FloorMod, flat, c32), d);
        let x = a.axis(Dim::from(384));
        let x = a.axis_expr(x);
        let q = a.binary(BinaryOp::FloorDiv, x, c32);
        let r = a.binary(BinaryOp::FloorMod, x, c32);
        let q32 = a.mul(q, c32);
        assert_eq!(a.add(q32, r), x);
    }

    #[test]
    fn symbolic_strides_divide_out() {
        let mut a = Arena::default();
        let s = Dim::sym("s");
        let b = a.axis(Dim::sym("b"));
        let t = a.axis(s.clone());
        let (b, t) = (a.axis_expr(b), a.axis_expr(t));
        let ds = a.dim(&s);
        let bs = a.mul(b, ds);
        let flat = a.add(bs, t);
        assert_eq!(a.binary(BinaryOp::FloorDiv, flat, ds), b);
        assert_eq!(a.binary(BinaryOp::FloorMod, flat, ds), t);
    }

    #[test]
    fn affine_sees_through_sums_and_products() {
        let mut a = Arena::default();
        let x = a.axis(Dim::from(9));
        let e = a.axis_expr(x);
        let two = a.int(2);
        let y = a.mul(e, two);
        let z = a.sub(y, two);
        let f = a.affine(z);
        assert_eq!(f.as_ref().map(|f| &f.constant), Some(&Dim::from(-2)));
        assert_eq!(f.and_then(|f| f.terms.get(&x).cloned()), Some(Dim::from(2)));
        let square = a.mul(e, e);
        assert_eq!(a.affine(square), None);
    }
}
