//! Addresses: indices as sums of products, each part computed in the outermost frame that knows it.

use super::writer::{Key, Writer, internal};
use crate::error::Result;
use crate::kernel::{BinaryOp, ExprId, Node, ValueId};
use crate::tensor::Dim;
use wasm_encoder::ValType;

/// A term of an address.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Atom {
    Local(u32),
    Dim(Dim),
    Expr(Key),
}

/// `constant + Σ factor · atom`, in elements; each atom with the frame in which it is known.
#[derive(Debug, Clone)]
pub(super) struct Linear {
    pub(super) constant: i64,
    pub(super) terms: Vec<Term>,
}

/// One term of a [`Linear`].
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Term {
    pub(super) frame: usize,
    pub(super) atom: Atom,
    pub(super) factor: Dim,
    /// Whether the atom is known never to be negative.
    pub(super) positive: bool,
}

impl Writer<'_> {
    /// The index as a sum of products with what each term depends on.
    pub(super) fn linear(&mut self, e: ExprId) -> Result<Linear> {
        let mut out = Linear { constant: 0, terms: vec![] };
        self.linear_into(e, &Dim::from(1), &mut out)?;
        out.terms.sort();
        let mut merged: Vec<Term> = vec![];
        for t in out.terms {
            match merged.last_mut() {
                Some(m) if m.atom == t.atom => m.factor = m.factor.add(&t.factor),
                _ => merged.push(t),
            }
        }
        merged.retain(|t| !t.factor.is(0));
        Ok(Linear { constant: out.constant, terms: merged })
    }

    fn linear_into(&mut self, e: ExprId, factor: &Dim, out: &mut Linear) -> Result<()> {
        let arena = &self.values.arena;
        if let Some(d) = arena.as_dim(e) {
            let d = d.mul(factor);
            match d.known() {
                Some(n) => out.constant = out.constant.wrapping_add(n),
                None => {
                    let positive = d.range(&arena.ranges).min >= 0;
                    out.terms.push(Term { frame: 0, atom: Atom::Dim(d), factor: Dim::from(1), positive });
                }
            }
            return Ok(());
        }
        match arena.node(e) {
            Node::Axis(a) => {
                let b = *self.binds.get(a).ok_or_else(|| internal(format!("axis {} has no loop", a.0)))?;
                if let Some((l, frame)) = b.base {
                    out.terms.push(Term { frame, atom: Atom::Local(l), factor: factor.clone(), positive: true });
                }
                let add = Dim::from(b.add).mul(factor);
                match add.known() {
                    Some(n) => out.constant = out.constant.wrapping_add(n),
                    None => {
                        let positive = add.range(&self.values.arena.ranges).min >= 0;
                        out.terms.push(Term { frame: 0, atom: Atom::Dim(add), factor: Dim::from(1), positive });
                    }
                }
                return Ok(());
            }
            Node::Binary(BinaryOp::Add, a, b) => {
                let (a, b) = (*a, *b);
                self.linear_into(a, factor, out)?;
                return self.linear_into(b, factor, out);
            }
            Node::Binary(BinaryOp::Sub, a, b) => {
                let (a, b) = (*a, *b);
                self.linear_into(a, factor, out)?;
                return self.linear_into(b, &factor.mul(&Dim::from(-1)), out);
            }
            Node::Binary(BinaryOp::Mul, a, b) => {
                let (a, b) = (*a, *b);
                for (x, d) in [(a, arena.as_dim(b)), (b, arena.as_dim(a))] {
                    if let Some(d) = d {
                        return self.linear_into(x, &factor.mul(&d), out);
                    }
                }
            }
            _ => {}
        }
        let positive = self.values.arena.range(e).min >= 0;
        let frame = self.place(e)?;
        let key = self.key(e);
        out.terms.push(Term { frame, atom: Atom::Expr(key), factor: factor.clone(), positive });
        Ok(())
    }

    /// Pushes the address of `value[linear]` and returns the constant offset that is still to be added, in bytes.
    pub(super) fn address(&mut self, value: ValueId, linear: &Linear) -> Result<u64> {
        let size = self.values.dtype(value).size() as i64;
        let constant = linear.constant.wrapping_mul(size);
        let ranges = &self.values.arena.ranges;
        let safe = constant >= 0
            && constant <= i64::from(i32::MAX)
            && linear.terms.iter().all(|t| t.positive && t.factor.range(ranges).min >= 0);
        let inner = if safe { 0 } else { constant };
        let base = self.base(value)?;
        let terms: Vec<&Term> = linear.terms.iter().collect();
        self.partial(value, base, &terms, size, inner)?;
        Ok(if safe { constant as u64 } else { 0 })
    }

    /// The local that holds the address of `value[linear]` after `choose`, which may replace it by another depending on
    /// `condition`; computed in the innermost frame that the address and the condition depend on.
    pub(super) fn hoisted_address(
        &mut self,
        value: ValueId,
        linear: &Linear,
        condition: ExprId,
        choose: impl FnOnce(&mut Self) -> Result<()>,
    ) -> Result<u32> {
        let frame = linear.terms.iter().map(|t| t.frame).fold(self.place(condition)?, usize::max);
        let mut atoms: Vec<_> = linear.terms.iter().map(|t| (t.atom.clone(), t.factor.clone())).collect();
        atoms.push((Atom::Expr(self.key(condition)), Dim::from(0)));
        let key = (value, atoms, linear.constant);
        if let Some(l) = self.frames[frame].pointers.get(&key) {
            return Ok(*l);
        }
        let l = self.local(ValType::I32);
        self.in_frame(frame, |g| {
            let offset = g.address(value, linear)?;
            if offset != 0 {
                g.i().i32_const(offset as u32 as i32).i32_add();
            }
            choose(g)?;
            g.i().local_set(l);
            Ok(())
        })?;
        self.frames[frame].pointers.insert(key, l);
        Ok(l)
    }

    fn base(&self, value: ValueId) -> Result<u32> {
        let i = self.buffers.iter().position(|b| *b == value);
        i.map(|i| i as u32).ok_or_else(|| internal("a buffer is not a parameter"))
    }

    /// Pushes `base + size · Σ terms + constant`: what is known in outer frames from locals there.
    fn partial(&mut self, value: ValueId, base: u32, terms: &[&Term], size: i64, constant: i64) -> Result<()> {
        let top = self.top();
        let Some(last) = terms.last().map(|t| t.frame) else {
            self.i().local_get(base);
            if constant != 0 {
                self.i().i32_const(constant as i32).i32_add();
            }
            return Ok(());
        };
        let key =
            |constant| (value, terms.iter().map(|t| (t.atom.clone(), t.factor.clone())).collect::<Vec<_>>(), constant);
        if last < top {
            let key = key(constant);
            if let Some(l) = self.frames[last].pointers.get(&key) {
                let l = *l;
                self.i().local_get(l);
                return Ok(());
            }
            let l = self.local(ValType::I32);
            self.in_frame(last, |g| {
                g.sum(value, base, terms, size, constant)?;
                g.i().local_set(l);
                Ok(())
            })?;
            self.frames[last].pointers.insert(key, l);
            self.i().local_get(l);
            return Ok(());
        }
        self.sum(value, base, terms, size, constant)
    }

    /// Pushes the same where the last terms belong to the current frame.
    fn sum(&mut self, value: ValueId, base: u32, terms: &[&Term], size: i64, constant: i64) -> Result<()> {
        let top = self.top();
        let split = terms.iter().position(|t| t.frame >= top).unwrap_or(terms.len());
        self.partial(value, base, &terms[..split], size, constant)?;
        for t in &terms[split..] {
            match &t.atom {
                Atom::Local(l) => {
                    self.i().local_get(*l);
                }
                Atom::Dim(d) => self.dim(d)?,
                Atom::Expr(key) => self.keyed(key)?,
            }
            let factor = t.factor.mul(&Dim::from(size));
            match factor.known() {
                Some(1) => {}
                Some(n) if n > 0 && n & (n - 1) == 0 => {
                    self.i().i32_const(n.trailing_zeros() as i32).i32_shl();
                }
                _ => {
                    self.dim(&factor)?;
                    self.i().i32_mul();
                }
            }
            self.i().i32_add();
        }
        Ok(())
    }

    /// Pushes the value of an expression under the offsets that its key names.
    fn keyed(&mut self, key: &Key) -> Result<()> {
        let mut old = vec![];
        for (a, add) in &key.1 {
            if let Some(b) = self.binds.get_mut(a) {
                old.push((*a, b.add));
                b.add = *add;
            }
        }
        let r = self.scalar(key.0);
        for (a, add) in old {
            if let Some(b) = self.binds.get_mut(&a) {
                b.add = add;
            }
        }
        r
    }
}
