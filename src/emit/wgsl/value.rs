//! Expressions as text. What is used more than once gets a name in the outermost block where it can be computed.

use super::numbers::{is_atom, length, marked, marked_float};
use super::vector::{at_zero, is_multiple, quarter, stride};
use super::writer::{Access, Gen, Val, element, scalar_type, type_name};
use crate::error::{Error, Kind, Result};
use crate::kernel::{Axis, BinaryOp, ExprId, Node, Scalar, Ty, UnaryOp, ValueId};
use crate::tensor::DType;

/// Longer texts get a name even if they are used once.
const INLINE: usize = 72;

impl Gen<'_> {
    /// The value of an expression, computed where it is needed first or further out.
    pub(super) fn value(&mut self, e: ExprId) -> Result<Val> {
        match self.values.arena.node(e).clone() {
            Node::Const(s) => return Ok(Val::one(literal(s, self)?)),
            Node::Var(v, _) => {
                let name = self.vars.get(&v).cloned();
                return name.ok_or_else(|| internal("a variable is read before it is set"));
            }
            Node::Axis(a) if self.lanes.contains(&a) => return Ok(Val::four("vec4<i32>(0, 1, 2, 3)")),
            Node::Axis(a) => {
                let name = self.axes.get(&a).map(|(_, n)| n.clone());
                return name.map(Val::one).ok_or_else(|| internal("an axis is not bound"));
            }
            _ => {}
        }
        if let Some(v) = self.blocks.iter().rev().find_map(|b| b.memo.get(&e)) {
            return Ok(v.clone());
        }
        let ordered = self.ordered(e)?;
        if ordered != e {
            let n = self.uses.get(&e).copied().unwrap_or(1);
            *self.uses.entry(ordered).or_default() += n;
            let v = self.value(ordered)?;
            return Ok(v);
        }
        // An index that a lane does not change is computed once for the four.
        if self.values.arena.ty(e) == Ty::I32
            && let Some(lane) = self.lane_of(e)
            && stride(self.values, e, lane) == Some(0)
        {
            let base = at_zero(self.values, e, lane);
            return self.value(base);
        }
        let level = self.level(e)?;
        let outer = std::mem::replace(&mut self.current, level);
        let made = self.compute(e, level);
        self.current = outer;
        let made = made?;
        if is_atom(&made.text) {
            self.remember(level, e, &made);
            return Ok(made);
        }
        let shared = self.name_loads && matches!(self.values.arena.node(e), Node::Load { .. });
        let once = !shared && self.uses.get(&e).is_none_or(|n| *n <= 1);
        if once && level == outer && length(&made.text) <= INLINE {
            return Ok(made);
        }
        self.name(level, e, made)
    }

    fn remember(&mut self, level: usize, e: ExprId, v: &Val) {
        if !self.is_volatile(e)
            && let Some(b) = self.blocks.get_mut(level)
        {
            b.memo.insert(e, v.clone());
        }
    }

    /// Names a computed value in the block of that level.
    fn name(&mut self, level: usize, e: ExprId, v: Val) -> Result<Val> {
        let name = self.fresh("t");
        self.line_at(level, &format!("let {name} = {};", v.text));
        let v = Val { text: name, wide: v.wide };
        self.remember(level, e, &v);
        Ok(v)
    }

    /// The value as a single name, for texts that use it several times.
    pub(super) fn named(&mut self, e: ExprId) -> Result<Val> {
        let v = self.value(e)?;
        if is_atom(&v.text) {
            return Ok(v);
        }
        self.name(self.current, e, v)
    }

    fn compute(&mut self, e: ExprId, level: usize) -> Result<Val> {
        match self.values.arena.node(e).clone() {
            Node::Dim(d) => Ok(Val::one(self.dim_expr(&d)?)),
            Node::Load { value, index } => self.load(value, &index),
            Node::Unary(op, a) => self.unary(op, a),
            Node::Binary(op, a, b) => self.binary(op, a, b),
            Node::Select { condition, then, otherwise } => {
                let (c, f) = (self.value(condition)?, self.value(otherwise)?);
                let t = match self.values.arena.wrapped_index(condition, then, otherwise) {
                    // A negative index comes nearer to zero, so that its sum needs no check.
                    Some(n) => {
                        let n = self.value(n)?;
                        let n = splat(self.values.arena.ty(then), &n, f.wide)?;
                        Val { text: format!("({} + {n})", f.text), wide: f.wide }
                    }
                    None => self.value(then)?,
                };
                let wide = c.wide || t.wide || f.wide;
                let ty = self.values.arena.ty(then);
                let (t, f) = (splat(ty, &t, wide)?, splat(ty, &f, wide)?);
                Ok(Val { text: format!("select({f}, {t}, {})", c.text), wide })
            }
            Node::Fold { op, axes, body } => self.fold(op, &axes, body, level),
            Node::Const(_) | Node::Axis(_) | Node::Var(..) => Err(internal("a leaf has no text")),
        }
    }

    fn load(&mut self, value: ValueId, index: &[ExprId]) -> Result<Val> {
        let &[index] = index else { return Err(internal("a load in a kernel has one index")) };
        let lane = self.lane_of(index);
        let bool_of = |v: Val, wide: bool| {
            let zero = if wide { "vec4<u32>()" } else { "0u" };
            Val { text: format!("({} != {zero})", v.text), wide }
        };
        let is_bool = self.values.dtype(value) == DType::Bool;
        let v = match lane {
            None => Val::one(self.element_at(value, index, false)?),
            Some(lane) => self.load_wide(value, index, lane)?,
        };
        let wide = v.wide;
        Ok(if is_bool { bool_of(v, wide) } else { v })
    }

    /// Four elements along a lane: one aligned vector, or four elements a constant distance apart, or gathered.
    fn load_wide(&mut self, value: ValueId, index: ExprId, lane: Axis) -> Result<Val> {
        let base = at_zero(self.values, index, lane);
        let stride = stride(self.values, index, lane);
        if stride == Some(0) {
            return Ok(Val::one(self.element_at(value, base, false)?));
        }
        let may = !self.ragged || self.padded.contains(&value);
        if may && stride == Some(1) && is_multiple(self.values, base, 4) {
            let at = quarter(self.values, base);
            let name = self.buffer(value, Access { wide: true, ..Access::default() })?;
            if self.vectors.contains(&value) {
                let at = self.value(at)?;
                return Ok(Val::four(format!("{name}[{}]", at.text)));
            }
        }
        let ty = element(self.values.dtype(value))?;
        let name = self.buffer(value, Access::default())?;
        let at: Vec<String> = match stride {
            Some(s) => {
                let base = self.named(base)?.text;
                (0..4).map(|i| if i == 0 { base.clone() } else { format!("{base} + {}", marked(i * s)) }).collect()
            }
            None => {
                let v = self.named(index)?.text;
                ["x", "y", "z", "w"].iter().map(|c| format!("{v}.{c}")).collect()
            }
        };
        // Seen as wide where it will be one: single accesses of an aligned vector are only the first pass's.
        let single = !(may && stride == Some(1) && is_multiple(self.values, base, 4));
        self.buffer(value, Access { single, ..Access::default() })?;
        let parts: Vec<String> = at.iter().map(|i| self.single(&name, value, i)).collect();
        Ok(Val::four(format!("vec4<{ty}>({})", parts.join(", "))))
    }

    /// One element of a buffer, declared as elements or as vectors.
    fn single(&self, name: &str, value: ValueId, at: &str) -> String {
        if self.vectors.contains(&value) {
            format!("{name}[({at}) >> 2u][({at}) & 3]")
        } else {
            format!("{name}[{at}]")
        }
    }

    /// The text of the element at a scalar index, for reading or writing.
    fn element_at(&mut self, value: ValueId, index: ExprId, written: bool) -> Result<String> {
        let name = self.buffer(value, Access { single: true, written, ..Access::default() })?;
        let at = if self.vectors.contains(&value) { self.named(index)? } else { self.value(index)? };
        if at.wide {
            return Err(internal("an index is a vector"));
        }
        Ok(self.single(&name, value, &at.text))
    }

    /// `value[index] = to`, converted to the value's type; four elements where `to` or the index varies along a lane.
    pub(super) fn store(&mut self, value: ValueId, index: ExprId, to: ExprId) -> Result<()> {
        let v = self.value(to)?;
        self.store_value(value, index, to, v)
    }

    /// Stores a computed value; `to` is the expression it comes from.
    pub(super) fn store_value(&mut self, value: ValueId, index: ExprId, to: ExprId, v: Val) -> Result<()> {
        let dtype = self.values.dtype(value);
        let lane = self.lane_of(index);
        let Some(lane) = lane else {
            if v.wide {
                return Err(internal("four values for one element"));
            }
            let text = self.stored(dtype, to, v)?;
            let place = self.element_at(value, index, true)?;
            self.line(&format!("{place} = {text};"));
            return Ok(());
        };
        let ty = self.values.arena.ty(to);
        let v = Val::four(splat(ty, &v, true)?);
        let text = self.stored(dtype, to, v)?;
        let base = at_zero(self.values, index, lane);
        let stride = stride(self.values, index, lane);
        if !self.ragged && stride == Some(1) && is_multiple(self.values, base, 4) {
            let at = quarter(self.values, base);
            let name = self.buffer(value, Access { wide: true, written: true, ..Access::default() })?;
            if self.vectors.contains(&value) {
                let at = self.value(at)?.text;
                self.line(&format!("{name}[{at}] = {text};"));
                return Ok(());
            }
        }
        let single = self.ragged || stride != Some(1) || !is_multiple(self.values, base, 4);
        let name = self.buffer(value, Access { single, written: true, ..Access::default() })?;
        let whole = self.fresh("t");
        self.line(&format!("let {whole} = {text};"));
        let at = match stride {
            Some(_) => self.named(base)?.text,
            None => self.named(index)?.text,
        };
        for (i, c) in ["x", "y", "z", "w"].iter().enumerate() {
            let at = match stride {
                Some(s) => format!("{at} + {}", s * i64::try_from(i).unwrap_or(0)),
                None => format!("{at}.{c}"),
            };
            self.line(&format!("{name}[{at}] = {whole}.{c};"));
        }
        Ok(())
    }

    /// A computed value as it lies in a buffer of `dtype`.
    pub(super) fn stored(&mut self, dtype: DType, to: ExprId, v: Val) -> Result<String> {
        let (t, wide) = (v.text, v.wide);
        let vec = |s: &str| if wide { format!("vec4<u32>({s})") } else { s.to_owned() };
        // What was read from a buffer of this type, or rounded to it, is exact already.
        let exact = match self.values.arena.node(to) {
            Node::Load { value, .. } => self.values.dtype(*value) == dtype,
            Node::Unary(UnaryOp::RoundF16, _) => dtype == DType::Float16,
            Node::Unary(UnaryOp::RoundBf16, _) => dtype == DType::BFloat16,
            _ => false,
        };
        Ok(match dtype {
            DType::Bool => format!("select({}, {}, {t})", vec("0u"), vec("1u")),
            _ if exact => t,
            DType::Float16 => self.call("round_f16", wide, &[&t]),
            DType::BFloat16 => self.call("round_bf16", wide, &[&t]),
            DType::Int8 => format!("extractBits({t}, 0u, 8u)"),
            DType::Int16 => format!("extractBits({t}, 0u, 16u)"),
            DType::Uint8 => format!("({t} & {})", vec("0xffu")),
            DType::Uint16 => format!("({t} & {})", vec("0xffffu")),
            _ => t,
        })
    }

    /// A call of a helper function.
    pub(super) fn call(&mut self, name: &str, wide: bool, args: &[&str]) -> String {
        if wide && super::math::scalar_only(name) {
            self.used.add(name, 1);
            // Each argument is a name or is computed four times; the compiler makes one of equal ones.
            let each = ["x", "y", "z", "w"].map(|c| {
                let args: Vec<String> = args.iter().map(|a| format!("({a}).{c}")).collect();
                format!("{name}1({})", args.join(", "))
            });
            let ty = if name.starts_with("m_") {
                "u32"
            } else if name.starts_with("l_") {
                "i32"
            } else {
                "f32"
            };
            return format!("vec4<{ty}>({})", each.join(", "));
        }
        let width = if wide { 4 } else { 1 };
        self.used.add(name, width);
        format!("{name}{width}({})", args.join(", "))
    }

    fn unary(&mut self, op: UnaryOp, a: ExprId) -> Result<Val> {
        let ty = self.values.arena.ty(a);
        scalar_type(ty)?;
        let constant = matches!(self.values.arena.node(a), Node::Const(_));
        let v = self.value(a)?;
        let wide = v.wide;
        let x = if constant { self.opaque(ty, &v.text) } else { v.text };
        let float = ty == Ty::F32;
        let text = match op {
            UnaryOp::Neg if ty == Ty::I64 => self.call("l_neg", wide, &[&x]),
            UnaryOp::Neg if matches!(ty, Ty::U32 | Ty::U64) => format!("(~({x}) + {})", type_name(ty, wide)? + "(1u)"),
            UnaryOp::Neg => format!("(-{x})"),
            UnaryOp::Abs if matches!(ty, Ty::U32 | Ty::U64) => x,
            UnaryOp::Abs => format!("abs({x})"),
            UnaryOp::Not if ty == Ty::Bool => format!("(!{x})"),
            UnaryOp::Not if ty == Ty::U64 => self.call("m_not", wide, &[&x]),
            UnaryOp::Not => format!("(~{x})"),
            UnaryOp::Sign if float => {
                let s = self.call("f_sign", wide, &[&x]);
                let nan = self.call("is_nan", wide, &[&x]);
                format!("select({s}, {x}, {nan})")
            }
            UnaryOp::Sign if matches!(ty, Ty::U32 | Ty::U64) => format!("min({x}, {})", type_name(ty, wide)? + "(1u)"),
            UnaryOp::Sign => format!("sign({x})"),
            UnaryOp::Floor | UnaryOp::Ceil | UnaryOp::Trunc | UnaryOp::Round if !float => x,
            UnaryOp::Floor => format!("floor({x})"),
            UnaryOp::Ceil => format!("ceil({x})"),
            UnaryOp::Trunc => format!("trunc({x})"),
            UnaryOp::Round => format!("round({x})"),
            UnaryOp::Sqrt => format!("sqrt({x})"),
            UnaryOp::Exp => format!("exp({x})"),
            UnaryOp::Log => self.call("f_log", wide, &[&x]),
            UnaryOp::Sin => self.call("f_sin", wide, &[&x]),
            UnaryOp::Cos => self.call("f_cos", wide, &[&x]),
            UnaryOp::Asin => self.call("f_asin", wide, &[&x]),
            UnaryOp::Acos => self.call("f_acos", wide, &[&x]),
            UnaryOp::Atan => self.call("f_atan", wide, &[&x]),
            UnaryOp::Tanh => self.call("f_tanh", wide, &[&x]),
            UnaryOp::Erf => self.call("f_erf", wide, &[&x]),
            UnaryOp::IsNan if float => self.call("is_nan", wide, &[&x]),
            UnaryOp::IsInf if float => self.call("is_inf", wide, &[&x]),
            UnaryOp::IsNan | UnaryOp::IsInf => type_name(Ty::Bool, wide)? + "(false)",
            UnaryOp::Bitcast(to) => format!("bitcast<{}>({x})", type_name(to, wide)?),
            UnaryOp::Cast(to) => self.cast(ty, to, &x, wide)?,
            UnaryOp::RoundF16 => self.call("round_f16", wide, &[&x]),
            UnaryOp::RoundBf16 => self.call("round_bf16", wide, &[&x]),
        };
        Ok(Val { text, wide })
    }

    fn cast(&mut self, from: Ty, to: Ty, x: &str, wide: bool) -> Result<String> {
        let name = type_name(to, wide)?;
        Ok(match (from, to) {
            (_, Ty::F64) | (Ty::F64, _) => scalar_type(Ty::F64)?.to_owned(),
            (Ty::Bool, Ty::Bool) => x.to_owned(),
            (Ty::Bool, _) => {
                let (zero, one) = match to {
                    Ty::F32 => ("0.0", "1.0"),
                    Ty::U32 | Ty::U64 => ("0u", "1u"),
                    _ => ("0", "1"),
                };
                format!("select({name}({zero}), {name}({one}), {x})")
            }
            (Ty::F32, Ty::Bool) => format!("({x} != {}(0.0))", type_name(from, wide)?),
            (Ty::U32 | Ty::U64, Ty::Bool) => format!("({x} != {}(0u))", type_name(from, wide)?),
            (_, Ty::Bool) => format!("({x} != {}(0))", type_name(from, wide)?),
            (Ty::F32, Ty::F32) => x.to_owned(),
            (_, Ty::F32) => format!("{name}({x})"),
            (Ty::F32, Ty::I32) => self.call("f_to_i", wide, &[x]),
            (Ty::F32, Ty::U32) => self.call("f_to_u", wide, &[x]),
            (Ty::F32, Ty::I64) => self.call("l_from_f", wide, &[x]),
            (Ty::F32, Ty::U64) => self.call("m_from_f", wide, &[x]),
            (Ty::I32 | Ty::I64, Ty::I32 | Ty::I64) | (Ty::U32 | Ty::U64, Ty::U32 | Ty::U64) => x.to_owned(),
            (Ty::I32 | Ty::I64, Ty::U64) => self.call("m_from_i", wide, &[x]),
            (Ty::U32 | Ty::U64, Ty::I64) => self.call("l_from_u", wide, &[x]),
            (Ty::I32 | Ty::I64, Ty::U32) | (Ty::U32 | Ty::U64, Ty::I32) => format!("bitcast<{name}>({x})"),
        })
    }

    /// A constant that the shader compiler does not evaluate: what it finds to overflow would be an error.
    fn opaque(&mut self, ty: Ty, x: &str) -> String {
        match ty {
            Ty::F32 => self.call("opaque_f32", false, &[x]),
            Ty::I32 | Ty::I64 => self.call("opaque_i32", false, &[x]),
            Ty::U32 | Ty::U64 => self.call("opaque_u32", false, &[x]),
            _ => x.to_owned(),
        }
    }

    fn binary(&mut self, op: BinaryOp, a: ExprId, b: ExprId) -> Result<Val> {
        let ty = self.values.arena.ty(a);
        scalar_type(ty)?;
        let known = |g: &Gen<'_>, e: ExprId| match g.values.arena.node(e) {
            Node::Const(s) => Some(*s),
            _ => None,
        };
        let (ka, kb) = (known(self, a), known(self, b));
        if op == BinaryOp::Pow {
            return self.power(a, b, kb);
        }
        // The sum before a constant serves the neighbours too.
        let offset = op == BinaryOp::Add && ty == Ty::I32 && kb.is_some();
        let va = if offset { self.named(a)? } else { self.value(a)? };
        let vb = self.value(b)?;
        let wide = va.wide || vb.wide;
        let mut x = splat(ty, &va, wide)?;
        let y = splat(ty, &vb, wide)?;
        if ka.is_some() && kb.is_some() {
            x = splat(ty, &Val::one(self.opaque(ty, &va.text)), wide)?;
        }
        let (signed, unsigned) = (matches!(ty, Ty::I32 | Ty::I64), matches!(ty, Ty::U32 | Ty::U64));
        let divides = kb.is_some_and(|s| s.as_int().is_some_and(|n| n > 0));
        let natural = ty == Ty::I32 && {
            let (ra, rb) = (self.values.arena.range(a), self.values.arena.range(b));
            ra.min >= 0 && rb.min > 0
        };
        let text = match op {
            BinaryOp::Add if ty == Ty::I64 => self.call("l_add", wide, &[&x, &y]),
            BinaryOp::Sub if ty == Ty::I64 => self.call("l_sub", wide, &[&x, &y]),
            BinaryOp::Mul if ty == Ty::I64 => self.call("l_mul", wide, &[&x, &y]),
            BinaryOp::Add if ty == Ty::U64 => self.call("m_add", wide, &[&x, &y]),
            BinaryOp::Sub if ty == Ty::U64 => self.call("m_sub", wide, &[&x, &y]),
            BinaryOp::Mul if ty == Ty::U64 => self.call("m_mul", wide, &[&x, &y]),
            BinaryOp::Add => format!("({x} + {y})"),
            BinaryOp::Sub => format!("({x} - {y})"),
            BinaryOp::Mul => format!("({x} * {y})"),
            BinaryOp::Div | BinaryOp::FloorDiv if natural || (unsigned && divides) => format!("({x} / {y})"),
            BinaryOp::Div if ty == Ty::F32 || divides => format!("({x} / {y})"),
            BinaryOp::Div if signed => self.call("i_div", wide, &[&x, &y]),
            BinaryOp::FloorDiv if ty == Ty::F32 => format!("floor({x} / {y})"),
            BinaryOp::FloorDiv if signed => self.call("i_floor_div", wide, &[&x, &y]),
            BinaryOp::Div | BinaryOp::FloorDiv => self.call("u_div", wide, &[&x, &y]),
            BinaryOp::Rem | BinaryOp::FloorMod if natural || (unsigned && divides) => format!("({x} % {y})"),
            BinaryOp::Rem if signed && divides => format!("({x} % {y})"),
            BinaryOp::Rem if ty == Ty::F32 => self.call("f_rem", wide, &[&x, &y]),
            BinaryOp::FloorMod if ty == Ty::F32 => self.call("f_mod", wide, &[&x, &y]),
            BinaryOp::Rem if signed => self.call("i_rem", wide, &[&x, &y]),
            BinaryOp::FloorMod if signed => self.call("i_mod", wide, &[&x, &y]),
            BinaryOp::Rem | BinaryOp::FloorMod => self.call("u_rem", wide, &[&x, &y]),
            BinaryOp::Min if ty == Ty::Bool => format!("({x} & {y})"),
            BinaryOp::Max if ty == Ty::Bool => format!("({x} | {y})"),
            // With a constant, which is no NaN, one comparison keeps the NaN of the other operand.
            BinaryOp::Min if ty == Ty::F32 && kb.is_some_and(finite) => {
                let x = self.short(x);
                format!("select({x}, {y}, {x} > {y})")
            }
            BinaryOp::Max if ty == Ty::F32 && kb.is_some_and(finite) => {
                let x = self.short(x);
                format!("select({x}, {y}, {x} < {y})")
            }
            BinaryOp::Min if ty == Ty::F32 => self.call("f_min", wide, &[&x, &y]),
            BinaryOp::Max if ty == Ty::F32 => self.call("f_max", wide, &[&x, &y]),
            BinaryOp::Min => format!("min({x}, {y})"),
            BinaryOp::Max => format!("max({x}, {y})"),
            BinaryOp::And => format!("({x} & {y})"),
            BinaryOp::Or => format!("({x} | {y})"),
            BinaryOp::Xor if ty == Ty::Bool => format!("({x} != {y})"),
            BinaryOp::Xor => format!("({x} ^ {y})"),
            BinaryOp::Shl if ty == Ty::I64 => self.call("l_shl", wide, &[&x, &y]),
            BinaryOp::Shr if ty == Ty::I64 => self.call("l_shr", wide, &[&x, &y]),
            BinaryOp::Shl if ty == Ty::U64 => self.call("m_shl", wide, &[&x, &y]),
            BinaryOp::Shr if ty == Ty::U64 => self.call("m_shr", wide, &[&x, &y]),
            BinaryOp::Shl | BinaryOp::Shr => {
                let sign = if op == BinaryOp::Shl { "<<" } else { ">>" };
                let n = match kb.and_then(Scalar::as_int) {
                    Some(n) => splat(Ty::U32, &Val::one(format!("{}u", n & 31)), wide)?,
                    None if wide => format!("(vec4<u32>({y}) & vec4<u32>(31u))"),
                    None => format!("(u32({y}) & 31u)"),
                };
                format!("({x} {sign} {n})")
            }
            BinaryOp::Eq => format!("({x} == {y})"),
            // `!=` of floats may be compiled to the ordered comparison, which is false for NaN.
            BinaryOp::Ne if ty == Ty::F32 => format!("(!({x} == {y}))"),
            BinaryOp::Ne => format!("({x} != {y})"),
            BinaryOp::Lt => format!("({x} < {y})"),
            BinaryOp::Le => format!("({x} <= {y})"),
            BinaryOp::Gt => format!("({x} > {y})"),
            BinaryOp::Ge => format!("({x} >= {y})"),
            BinaryOp::Pow => return Err(internal("a power of integers")),
        };
        Ok(Val { text, wide })
    }

    /// A text that stands several times in another: a name, unless it is short.
    fn short(&mut self, x: String) -> String {
        if length(&x) <= 8 {
            return x;
        }
        let name = self.fresh("t");
        self.line_at(self.current, &format!("let {name} = {x};"));
        name
    }

    fn power(&mut self, a: ExprId, b: ExprId, exponent: Option<Scalar>) -> Result<Val> {
        let ty = self.values.arena.ty(a);
        if ty != Ty::F32 {
            return Err(internal("a power of integers"));
        }
        let exponent = exponent.map(Scalar::as_f64);
        if exponent == Some(2.0) || exponent == Some(3.0) {
            let v = self.value(a)?;
            let x = self.short(v.text);
            let text = if exponent == Some(2.0) { format!("({x} * {x})") } else { format!("({x} * {x} * {x})") };
            return Ok(Val { text, wide: v.wide });
        }
        let (va, vb) = (self.value(a)?, self.value(b)?);
        let wide = va.wide || vb.wide;
        let (x, y) = (splat(ty, &va, wide)?, splat(ty, &vb, wide)?);
        let (x, y) = if wide { (self.short(x), self.short(y)) } else { (x, y) };
        Ok(Val { text: self.call("f_pow", wide, &[&x, &y]), wide })
    }
}

fn finite(s: Scalar) -> bool {
    s.as_f64().is_finite()
}

/// The text as a vector of four where `wide` asks for one.
pub(super) fn splat(ty: Ty, v: &Val, wide: bool) -> Result<String> {
    Ok(if wide && !v.wide { format!("{}({})", type_name(ty, true)?, v.text) } else { v.text.clone() })
}

/// A constant as text.
pub(super) fn literal(s: Scalar, g: &mut Gen<'_>) -> Result<String> {
    let int = |n: i64| if n == i64::from(i32::MIN) { "bitcast<i32>(0x80000000u)".to_owned() } else { n.to_string() };
    let too_wide = |n: String| {
        Error::new(Kind::UnsupportedType, format!("the constant {n} does not fit the 32-bit integers of the GPU"))
            .help("run the model on the CPU")
    };
    match s.ty {
        Ty::F32 => {
            let bits = u32::try_from(s.bits & 0xffff_ffff).unwrap_or(0);
            let x = f32::from_bits(bits);
            if x.is_normal() || bits == 0 {
                Ok(marked_float(x))
            } else {
                Ok(g.call("f32_bits", false, &[&format!("0x{bits:08x}u")]))
            }
        }
        Ty::I32 => Ok(match s.as_int().unwrap_or(0) {
            n if n == i64::from(i32::MIN) => int(n),
            n => marked(n),
        }),
        Ty::I64 => {
            let n = s.as_int().unwrap_or(0);
            i32::try_from(n).map(|n| int(i64::from(n))).map_err(|_| too_wide(n.to_string()))
        }
        Ty::U32 | Ty::U64 => u32::try_from(s.bits).map(|n| format!("{n}u")).map_err(|_| too_wide(s.bits.to_string())),
        Ty::Bool => Ok(if s.bits == 0 { "false" } else { "true" }.to_owned()),
        Ty::F64 => scalar_type(Ty::F64).map(str::to_owned),
    }
}

fn internal(what: &str) -> Error {
    Error::new(Kind::Internal, what).at("WGSL")
}
