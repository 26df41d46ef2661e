//! Symbolic dimensions: integer polynomials over named symbols, in a canonical form, so that equal dims compare equal.

use crate::error::{Error, Kind, Result};
use serde::{Deserialize, Deserializer, Serialize, de};
use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

/// A named dimension of the model's signature, bound at run time.
pub type Sym = Arc<str>;

/// Values of the symbols in one run.
pub type Bindings = BTreeMap<Sym, i64>;

/// The bounds of a symbol, both inclusive, stated at build time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DimRange {
    pub min: i64,
    pub max: i64,
}

/// A dimension: a sum of terms, each a whole coefficient times a product of atoms.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct Dim(Vec<Term>);

#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
struct Term {
    atoms: Vec<Atom>,
    factor: i64,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
enum Atom {
    Sym(Sym),
    FloorDiv(Box<Dim>, Box<Dim>),
    Max(Box<Dim>, Box<Dim>),
    Min(Box<Dim>, Box<Dim>),
}

/// How deep quotients, greatest and least may be nested in a file. Each strided layer of a network adds one.
const MAX_DEPTH: u32 = 100;

impl<'de> Deserialize<'de> for Dim {
    /// Dims nest in dims, and every level takes stack: a file must not choose how much.
    fn deserialize<D: Deserializer<'de>>(d: D) -> std::result::Result<Self, D::Error> {
        thread_local! {
            static DEPTH: Cell<u32> = const { Cell::new(0) };
        }
        let depth = DEPTH.get();
        if depth >= MAX_DEPTH {
            return Err(de::Error::custom("a dimension is nested too deeply"));
        }
        DEPTH.set(depth + 1);
        let terms = Vec::deserialize(d);
        DEPTH.set(depth);
        terms.map(Dim)
    }
}

impl From<i64> for Dim {
    fn from(n: i64) -> Self {
        Dim(if n == 0 { vec![] } else { vec![Term { atoms: vec![], factor: n }] })
    }
}

impl From<usize> for Dim {
    fn from(n: usize) -> Self {
        Dim::from(i64::try_from(n).unwrap_or(i64::MAX))
    }
}

impl From<i32> for Dim {
    fn from(n: i32) -> Self {
        Dim::from(i64::from(n))
    }
}

impl Dim {
    /// The symbol of that name.
    pub fn sym(name: &str) -> Self {
        Dim::atom(Atom::Sym(name.into()))
    }

    fn atom(a: Atom) -> Self {
        Dim(vec![Term { atoms: vec![a], factor: 1 }])
    }

    fn collect(terms: impl Iterator<Item = Term>) -> Self {
        let mut sum: BTreeMap<Vec<Atom>, i64> = BTreeMap::new();
        for t in terms {
            let f = sum.entry(t.atoms).or_default();
            *f = f.saturating_add(t.factor);
        }
        Dim(sum.into_iter().filter(|(_, f)| *f != 0).map(|(atoms, factor)| Term { atoms, factor }).collect())
    }

    /// The value, where it depends on no symbol.
    pub fn known(&self) -> Option<i64> {
        match &self.0[..] {
            [] => Some(0),
            [Term { atoms, factor }] if atoms.is_empty() => Some(*factor),
            _ => None,
        }
    }

    /// Whether this is the whole number `n`.
    pub fn is(&self, n: i64) -> bool {
        self.known() == Some(n)
    }

    /// The symbol's name, where this is a symbol and nothing else.
    pub fn as_sym(&self) -> Option<&str> {
        match &self.0[..] {
            [Term { atoms, factor: 1 }] => match &atoms[..] {
                [Atom::Sym(s)] => Some(s),
                _ => None,
            },
            _ => None,
        }
    }

    #[must_use]
    pub fn add(&self, other: &Dim) -> Dim {
        Dim::collect(self.0.iter().chain(&other.0).cloned())
    }

    #[must_use]
    pub fn sub(&self, other: &Dim) -> Dim {
        self.add(&other.mul(&Dim::from(-1)))
    }

    #[must_use]
    pub fn mul(&self, other: &Dim) -> Dim {
        Dim::collect(self.0.iter().flat_map(|a| {
            other.0.iter().map(move |b| {
                let mut atoms = [a.atoms.clone(), b.atoms.clone()].concat();
                atoms.sort();
                Term { atoms, factor: a.factor.saturating_mul(b.factor) }
            })
        }))
    }

    /// `self / other` where that is a whole polynomial for every binding.
    pub fn div_exact(&self, other: &Dim) -> Option<Dim> {
        if let [d] = &other.0[..] {
            let mut terms = Vec::with_capacity(self.0.len());
            for t in &self.0 {
                let mut atoms = t.atoms.clone();
                for a in &d.atoms {
                    atoms.remove(atoms.iter().position(|x| x == a)?);
                }
                if t.factor % d.factor != 0 {
                    return None;
                }
                terms.push(Term { atoms, factor: t.factor / d.factor });
            }
            return Some(Dim::collect(terms.into_iter()));
        }
        (self == other && !self.0.is_empty()).then(|| Dim::from(1))
    }

    /// `⌊self / other⌋`. A division by the whole number 0 gives 0: callers reject it where it can come from outside.
    #[must_use]
    pub fn floor_div(&self, other: &Dim) -> Dim {
        if other.is(0) {
            return Dim::from(0);
        }
        if let Some(d) = self.div_exact(other) {
            return d;
        }
        match (self.known(), other.known()) {
            (Some(a), Some(b)) => Dim::from(a.div_euclid(b)),
            _ => Dim::atom(Atom::FloorDiv(Box::new(self.clone()), Box::new(other.clone()))),
        }
    }

    /// `⌈self / other⌉`.
    #[must_use]
    pub fn ceil_div(&self, other: &Dim) -> Dim {
        if let Some(d) = self.div_exact(other) {
            return d;
        }
        self.add(other).sub(&Dim::from(1)).floor_div(other)
    }

    #[must_use]
    pub fn maximum(&self, other: &Dim) -> Dim {
        match self.sub(other).known() {
            Some(d) if d >= 0 => self.clone(),
            Some(_) => other.clone(),
            None => {
                let (a, b) = if self <= other { (self, other) } else { (other, self) };
                Dim::atom(Atom::Max(Box::new(a.clone()), Box::new(b.clone())))
            }
        }
    }

    #[must_use]
    pub fn minimum(&self, other: &Dim) -> Dim {
        match self.sub(other).known() {
            Some(d) if d <= 0 => self.clone(),
            Some(_) => other.clone(),
            None => {
                let (a, b) = if self <= other { (self, other) } else { (other, self) };
                Dim::atom(Atom::Min(Box::new(a.clone()), Box::new(b.clone())))
            }
        }
    }

    /// Every symbol in this dim.
    pub fn syms(&self) -> BTreeSet<Sym> {
        let mut all = BTreeSet::new();
        self.visit(&mut |s| {
            all.insert(Sym::clone(s));
        });
        all
    }

    fn visit(&self, f: &mut impl FnMut(&Sym)) {
        for a in self.0.iter().flat_map(|t| &t.atoms) {
            match a {
                Atom::Sym(s) => f(s),
                Atom::FloorDiv(x, y) | Atom::Max(x, y) | Atom::Min(x, y) => {
                    x.visit(f);
                    y.visit(f);
                }
            }
        }
    }

    /// The value under `bindings`.
    pub fn eval(&self, bindings: &Bindings) -> Result<i64> {
        let overflow = || Error::new(Kind::DimOutOfBounds, format!("dimension {self} leaves the range of 64 bits"));
        let mut sum = 0i64;
        for t in &self.0 {
            let mut product = t.factor;
            for a in &t.atoms {
                let v = match a {
                    Atom::Sym(s) => *bindings
                        .get(s)
                        .ok_or_else(|| Error::new(Kind::InvalidInput, format!("dimension \"{s}\" has no value")))?,
                    Atom::FloorDiv(x, y) => {
                        x.eval(bindings)?.checked_div_euclid(y.eval(bindings)?).ok_or_else(overflow)?
                    }
                    Atom::Max(x, y) => x.eval(bindings)?.max(y.eval(bindings)?),
                    Atom::Min(x, y) => x.eval(bindings)?.min(y.eval(bindings)?),
                };
                product = product.checked_mul(v).ok_or_else(overflow)?;
            }
            sum = sum.checked_add(product).ok_or_else(overflow)?;
        }
        Ok(sum)
    }

    /// The least and greatest value where every symbol keeps within its range; unknown symbols count from 0 upwards.
    pub fn range(&self, ranges: &BTreeMap<Sym, DimRange>) -> DimRange {
        let mut sum = DimRange { min: 0, max: 0 };
        for t in &self.0 {
            let mut p = DimRange { min: t.factor, max: t.factor };
            for a in &t.atoms {
                let r = match a {
                    Atom::Sym(s) => ranges.get(s).copied().unwrap_or(DimRange { min: 0, max: i64::MAX }),
                    Atom::FloorDiv(x, y) => {
                        let (x, y) = (x.range(ranges), y.range(ranges));
                        let q = [x.min, x.max].map(|n| [y.min.max(1), y.max.max(1)].map(|d| n.div_euclid(d)));
                        DimRange { min: q.concat_min(), max: q.concat_max() }
                    }
                    Atom::Max(x, y) => {
                        let (x, y) = (x.range(ranges), y.range(ranges));
                        DimRange { min: x.min.max(y.min), max: x.max.max(y.max) }
                    }
                    Atom::Min(x, y) => {
                        let (x, y) = (x.range(ranges), y.range(ranges));
                        DimRange { min: x.min.min(y.min), max: x.max.min(y.max) }
                    }
                };
                let q = [p.min, p.max].map(|a| [r.min, r.max].map(|b| a.saturating_mul(b)));
                p = DimRange { min: q.concat_min(), max: q.concat_max() };
            }
            sum = DimRange { min: sum.min.saturating_add(p.min), max: sum.max.saturating_add(p.max) };
        }
        sum
    }

    /// This dim with symbols replaced.
    #[must_use]
    pub fn substitute(&self, with: &BTreeMap<Sym, Dim>) -> Dim {
        self.0.iter().fold(Dim::from(0), |sum, t| {
            let p = t.atoms.iter().fold(Dim::from(t.factor), |p, a| {
                let v = match a {
                    Atom::Sym(s) => with.get(s).cloned().unwrap_or_else(|| Dim::sym(s)),
                    Atom::FloorDiv(x, y) => x.substitute(with).floor_div(&y.substitute(with)),
                    Atom::Max(x, y) => x.substitute(with).maximum(&y.substitute(with)),
                    Atom::Min(x, y) => x.substitute(with).minimum(&y.substitute(with)),
                };
                p.mul(&v)
            });
            sum.add(&p)
        })
    }

    /// This dim with every maximum and minimum that the ranges decide replaced by the operand that it always is.
    #[must_use]
    pub fn within(&self, ranges: &BTreeMap<Sym, DimRange>) -> Dim {
        if self.0.iter().all(|t| t.atoms.iter().all(|a| matches!(a, Atom::Sym(_)))) {
            return self.clone();
        }
        self.0.iter().fold(Dim::from(0), |sum, t| {
            let p = t.atoms.iter().fold(Dim::from(t.factor), |p, a| {
                let v = match a {
                    Atom::Sym(s) => Dim::sym(s),
                    Atom::FloorDiv(x, y) => x.within(ranges).floor_div(&y.within(ranges)),
                    Atom::Max(x, y) | Atom::Min(x, y) => {
                        let (x, y, max) = (x.within(ranges), y.within(ranges), matches!(a, Atom::Max(..)));
                        let d = x.sub(&y).range(ranges);
                        match (d.min >= 0, d.max <= 0) {
                            (true, _) => {
                                if max {
                                    x
                                } else {
                                    y
                                }
                            }
                            (_, true) => {
                                if max {
                                    y
                                } else {
                                    x
                                }
                            }
                            _ if max => x.maximum(&y),
                            _ => x.minimum(&y),
                        }
                    }
                };
                p.mul(&v)
            });
            sum.add(&p)
        })
    }

    /// Prints this dim as an infix expression over i32 for a target: `sym` names a symbol, `call` an operation
    /// (`floor_div`, `max`, `min`) of two printed operands. The result may stand as an operand of any operator.
    pub fn print(&self, sym: &dyn Fn(&str) -> String, call: &dyn Fn(&str, String, String) -> String) -> String {
        if self.0.is_empty() {
            return "0".into();
        }
        let term = |t: &Term| {
            let mut parts: Vec<String> = Vec::new();
            if t.factor != 1 || t.atoms.is_empty() {
                parts.push(t.factor.to_string());
            }
            for a in &t.atoms {
                parts.push(match a {
                    Atom::Sym(s) => sym(s),
                    Atom::FloorDiv(x, y) => call("floor_div", x.print(sym, call), y.print(sym, call)),
                    Atom::Max(x, y) => call("max", x.print(sym, call), y.print(sym, call)),
                    Atom::Min(x, y) => call("min", x.print(sym, call), y.print(sym, call)),
                });
            }
            parts.join(" * ")
        };
        let text = self.0.iter().map(term).collect::<Vec<_>>().join(" + ");
        // A product as well: it may stand behind a `/` or `%`.
        let leaf = matches!(&self.0[..], [t] if t.atoms.is_empty() || (t.factor == 1 && t.atoms.len() == 1));
        if leaf { text } else { format!("({text})") }
    }

    /// Walks this dim bottom-up as a stack machine, for emitters: push constants and symbols, then apply operations.
    pub fn walk(&self, f: &mut dyn FnMut(DimStep<'_>)) {
        if self.0.is_empty() {
            return f(DimStep::Const(0));
        }
        for (i, t) in self.0.iter().enumerate() {
            f(DimStep::Const(t.factor));
            for a in &t.atoms {
                match a {
                    Atom::Sym(s) => f(DimStep::Sym(s)),
                    Atom::FloorDiv(x, y) | Atom::Max(x, y) | Atom::Min(x, y) => {
                        x.walk(f);
                        y.walk(f);
                        f(match a {
                            Atom::FloorDiv(..) => DimStep::FloorDiv,
                            Atom::Max(..) => DimStep::Max,
                            _ => DimStep::Min,
                        });
                    }
                }
                f(DimStep::Mul);
            }
            if i > 0 {
                f(DimStep::Add);
            }
        }
    }
}

/// A step of [`Dim::walk`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DimStep<'a> {
    Const(i64),
    Sym(&'a str),
    Add,
    Mul,
    FloorDiv,
    Max,
    Min,
}

trait MinMax {
    fn concat_min(&self) -> i64;
    fn concat_max(&self) -> i64;
}

impl MinMax for [[i64; 2]; 2] {
    fn concat_min(&self) -> i64 {
        self.iter().flatten().copied().fold(i64::MAX, i64::min)
    }
    fn concat_max(&self) -> i64 {
        self.iter().flatten().copied().fold(i64::MIN, i64::max)
    }
}

impl fmt::Display for Dim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let call = |op: &str, a: String, b: String| match op {
            "floor_div" => format!("⌊{a} / {b}⌋"),
            _ => format!("{op}({a}, {b})"),
        };
        let text = self.print(&str::to_string, &call);
        // Alone, a product needs no brackets.
        let bare = text.strip_prefix('(').and_then(|t| t.strip_suffix(')')).filter(|_| self.0.len() == 1);
        f.write_str(bare.unwrap_or(&text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_dims_are_equal() {
        let (b, s) = (Dim::sym("b"), Dim::sym("s"));
        let x = b.mul(&s).mul(&Dim::from(384));
        assert_eq!(x.div_exact(&Dim::from(384)), Some(s.mul(&b)));
        assert_eq!(x.div_exact(&s), Some(b.mul(&Dim::from(384))));
        assert_eq!(s.add(&b).sub(&b), s);
        assert_eq!(s.add(&Dim::from(1)).floor_div(&Dim::from(2)).to_string(), "⌊(1 + s) / 2⌋");
        assert!(s.sub(&s).is(0));
        assert_eq!(b.mul(&Dim::from(2)).to_string(), "2 * b");
    }

    #[test]
    fn evaluates_and_bounds() {
        let s = Dim::sym("s");
        let d = s.add(&Dim::from(1)).floor_div(&Dim::from(2)).mul(&Dim::from(3));
        assert_eq!(d.eval(&Bindings::from([("s".into(), 7)])), Ok(12));
        let r = d.range(&BTreeMap::from([("s".into(), DimRange { min: 1, max: 9 })]));
        assert_eq!(r, DimRange { min: 3, max: 15 });
        assert_eq!(d.eval(&Bindings::new()).err().map(|e| e.kind()), Some(Kind::InvalidInput));
    }

    #[test]
    fn ranges_decide_maxima() {
        let s = Dim::sym("s");
        let d = s.minimum(&Dim::from(512)).add(&Dim::from(1));
        let ranges = |max| BTreeMap::from([("s".into(), DimRange { min: 1, max })]);
        assert_eq!(d.within(&ranges(512)), s.add(&Dim::from(1)));
        assert_eq!(d.within(&ranges(513)), d);
    }

    #[test]
    fn walks_as_a_stack_machine() {
        let d = Dim::sym("s").maximum(&Dim::from(4)).add(&Dim::from(2));
        let mut stack = vec![];
        d.walk(&mut |step| match step {
            DimStep::Const(n) => stack.push(n),
            DimStep::Sym(_) => stack.push(9),
            op => {
                let (b, a) = (stack.pop().unwrap_or(0), stack.pop().unwrap_or(0));
                stack.push(match op {
                    DimStep::Add => a + b,
                    DimStep::Mul => a * b,
                    DimStep::FloorDiv => a.div_euclid(b),
                    DimStep::Max => a.max(b),
                    _ => a.min(b),
                });
            }
        });
        assert_eq!(stack, [11]);
    }

    #[test]
    fn a_dim_in_a_file_may_not_nest_without_end() {
        let mut d = Dim::sym("n");
        for _ in 1..MAX_DEPTH {
            d = d.add(&Dim::from(1)).floor_div(&Dim::from(2));
        }
        let bytes = postcard::to_allocvec(&d).ok();
        assert_eq!(bytes.as_deref().and_then(|b| postcard::from_bytes::<Dim>(b).ok()), Some(d));
        // One term of one atom, a quotient of one term of one atom, and so on.
        let deep = [1u8, 1, 1].repeat(1 << 20);
        assert!(postcard::from_bytes::<Dim>(&deep).is_err());
    }
}
