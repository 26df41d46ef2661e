//! Functions that emitted code calls: transcendentals, conversions, divisions. Only those used stand in a module.
//!
//! They are written in a small stack notation that assembles to f32 or f64 instructions, or to four f32 lanes, so that a
//! function's scalar and vector forms have one text:
//! - a number is a float constant, `#n` an integer constant; `name` reads a variable, `=name` sets it.
//!   Variables that begin with `n` hold integers, with `q` conditions, with `b` bits of 32,
//!   others floats;
//! - `+ - * / < ==` and so on are float operators, with an `i` before them integer operators; `<<k >>k >>>k` shift by a
//!   constant; `a b q select` is `q ? a : b`; `n q unless` is 0 where `q`, else the bits `n`;
//!   `a b least` and `a b greatest` are `a` where either is NaN; `toi tof asi asf` convert and reinterpret; `@f` calls
//!   another function. Lanes fuse `a b * c +` where the target can.

use super::shared::{Function, Shared};
use super::writer::Writer;
use crate::error::{Error, Kind, Result};
use std::collections::HashMap;
use wasm_encoder::{BlockType, InstructionSink, ValType};

/// The operands of a function's text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Width {
    F32,
    /// Four f32 lanes.
    X4,
    /// f64, and i64 integers.
    F64,
    /// i32 integers only.
    I32,
}

/// exp: maximum relative error 1.7e-7 (f32); 0 below -87, where the result is less than 1.7e-38. Rounding to whole powers
/// of two by adding 1.5 · 2²³ leaves the power in the low bits of the sum.
const EXP: &str = "x 89 least =y  y 1.44269504 * 12582912 + =t  t 12582912 - =k
    k -0.693359375 * y + =r  k 2.12194440e-4 * r + =r
    0.000199193777 r * 0.0013947225 + r * 0.00833326264 + r * 0.0416662538 + r * 0.166666669 + r * 0.500000008 +
    r * r * r + 1 + =p
    p p + t asi <<23 #0x3f000000 i+ asf * asi x -86.98 < unless asf";

/// log: maximum relative error 1.5e-7 (f32).
const LOG: &str = "x 1.17549435e-38 < =qs  x 8388608 * x qs select =y  y asi =n
    n #0x3f3504f3 i- =na
    na >>23 tof 23 0 qs select - =e
    n na #0xff800000 i& i- asf 1 - =f
    0.0691510234 f * -0.117896728 + f * 0.118730242 + f * -0.123843747 + f * 0.142186549 + f * -0.166692492 +
    f * 0.200022267 + f * -0.249999866 + f * 0.333333104 + f * f * f * =p
    p e -2.12194440e-4 * + f f * 0.5 * - f + e 0.693359375 * + =r
    -inf r nan x 0 >= select x 0 == select
    =r  x r x inf == select";

/// tanh: maximum relative error 3e-7 (f32).
const TANH: &str = "x abs =a  x x * =z
    -0.0057170366 z * 0.020650579 + z * -0.0537434953 + z * 0.133314912 + z * -0.333332839 + z * x * x + =s
    1 2 a a + @exp 1 + / - x copysign =t
    s t a 0.625 < select";

/// erf: maximum absolute error 4e-7 (f32): a rational function, which is 1 to rounding at 3.9.
const ERF: &str = "x 3.9 least -3.9 greatest =t  t t * =z
    2.05036394e-06 z * 0.000287426317 + z * 0.00383607722 + z * 0.0529645137 + z * 0.191924138 + z * 1.12837903 + t *
    3.82288449e-05 z * 0.00118151422 + z * 0.015107654 + z * 0.114751057 + z * 0.503420128 + z * 1 + / 1 least -1 greatest";

/// exp: maximum relative error 5e-16 (f64).
const EXP64: &str = "x 710 min -746 max =x  x 1.4426950408889634 * nearest =k  k toi =n  n >>1 =na  n na i- =nb
    x k 6.93147180369123816490e-1 * - k 1.90821492927058770002e-10 * - =r
    1.6059043836821613e-10 r * 2.08767569878681e-9 + r * 2.505210838544172e-8 + r * 2.755731922398589e-7 +
    r * 2.7557319223985893e-6 + r * 2.48015873015873e-5 + r * 1.984126984126984e-4 + r * 1.388888888888889e-3 +
    r * 8.333333333333333e-3 + r * 4.1666666666666664e-2 + r * 1.6666666666666666e-1 + r * 0.5 + r * r * r + 1 +
    na #1023 i+ <<52 asf * nb #1023 i+ <<52 asf *";

/// log: maximum relative error 1e-15 (f64).
const LOG64: &str = "x 2.2250738585072014e-308 < =qs  x 18014398509481984 * x qs select =y  y asi =n
    n #0x3fe6a09e667f3bcd i- =na  na >>52 tof 54 0 qs select - =e
    n na #-4503599627370496 i& i- asf 1 - =f
    f 2 f + / =s  s s * =z
    0.043478260869565216 z * 0.047619047619047616 + z * 0.05263157894736842 + z * 0.058823529411764705 +
    z * 0.06666666666666667 + z * 0.07692307692307693 + z * 0.09090909090909091 + z * 0.1111111111111111 +
    z * 0.14285714285714285 + z * 0.2 + z * 0.3333333333333333 + z * s * 2 * =p
    e 1.90821492927058770002e-10 * p + s 2 * + e 6.93147180369123816490e-1 * + =r
    -inf r nan x 0 >= select x 0 == select =r  x r x inf == select";

/// sin and cos: maximum absolute error 2e-16 up to |x| = 1e5, growing with |x| (f64). `#0` or `#1` quarter turns ahead.
const SINCOS64: &str = "x 0.6366197723675814 * nearest =k  k toi nq i+ =n
    x k 1.57079632673412561417 * - k 6.07710050630396597660e-11 * - k 2.02226624879595063154e-21 * - =r  r r * =z
    2.8114572543455206e-15 z * -7.647163731819816e-13 + z * 1.6059043836821613e-10 + z * -2.505210838544172e-8 +
    z * 2.7557319223985893e-6 + z * -1.984126984126984e-4 + z * 8.333333333333333e-3 + z * -0.16666666666666666 +
    z * r * r + =s
    4.779477332387385e-14 z * -1.1470745597729725e-11 + z * 2.08767569878681e-9 + z * -2.755731922398589e-7 +
    z * 2.48015873015873e-5 + z * -1.388888888888889e-3 + z * 4.1666666666666664e-2 + z * -0.5 + z * 1 + =c
    c s n #1 i& #0 i!= select =v
    v neg v n #2 i& #0 i!= select";

/// atan: maximum absolute error 3e-16 (f64).
const ATAN64: &str = "x abs =a  a 1 > =qi  1 a / a qi select =t
    t 1 1 t t * + sqrt + / =t  t 1 1 t t * + sqrt + / =t  t t * =z
    -0.05263157894736842 z * 0.058823529411764705 + z * -0.06666666666666667 + z * 0.07692307692307693 +
    z * -0.09090909090909091 + z * 0.1111111111111111 + z * -0.14285714285714285 + z * 0.2 +
    z * -0.3333333333333333 + z * t * t + 4 * =r
    1.5707963267948966 r - r qi select x copysign";

/// tanh: maximum relative error 5e-16 (f64).
const TANH64: &str = "x abs =a  x x * =z
    x 1 z 3 z 5 z 7 z 9 z 11 z 13 z 15 z 17 z 19 z 21 / + / + / + / + / + / + / + / + / + / + / =s
    1 2 a a + @exp64 1 + / - x copysign =t
    s t a 0.7 < select";

/// The text of a function: width, parameters, results.
fn text(name: &str) -> Option<(Width, &'static [&'static str], String)> {
    let one: &[&str] = &["x"];
    let two: &[&str] = &["x", "y"];
    let via64 = |f: &str| format!("x promote @{f} demote");
    Some(match name {
        "exp" => (Width::F32, one, EXP.into()),
        "exp4" => (Width::X4, one, EXP.into()),
        "exp64" => (Width::F64, one, EXP64.into()),
        "log" => (Width::F32, one, LOG.into()),
        "log4" => (Width::X4, one, LOG.into()),
        "log64" => (Width::F64, one, LOG64.into()),
        "tanh" => (Width::F32, one, TANH.into()),
        "tanh4" => (Width::X4, one, TANH.into()),
        "tanh64" => (Width::F64, one, TANH64.into()),
        "erf" => (Width::F32, one, ERF.into()),
        "erf4" => (Width::X4, one, ERF.into()),
        "erf64" => (Width::F64, one, erf64()),
        "sincos64" => (Width::F64, &["x", "nq"], SINCOS64.into()),
        "sin64" => (Width::F64, one, "x #0 @sincos64".into()),
        "cos64" => (Width::F64, one, "x #1 @sincos64".into()),
        "atan64" => (Width::F64, one, ATAN64.into()),
        "asin64" => (Width::F64, one, "x 1 x - 1 x + * sqrt / @atan64".into()),
        "acos64" => (Width::F64, one, "1 x - 1 x + / sqrt @atan64 2 *".into()),
        "pow64" => (Width::F64, two, POW64.into()),
        "sin" => (Width::F32, one, via64("sin64")),
        "cos" => (Width::F32, one, via64("cos64")),
        "asin" => (Width::F32, one, via64("asin64")),
        "acos" => (Width::F32, one, via64("acos64")),
        "atan" => (Width::F32, one, via64("atan64")),
        "pow" => (Width::F32, two, "x promote y promote @pow64 demote".into()),
        "rem" => (Width::F32, two, "x promote y promote @rem64 demote".into()),
        "mod" => (Width::F32, two, "x y @rem =r  r y + r r 0 != r 0 < y 0 < xor and select".into()),
        "mod64" => (Width::F64, two, "x y @rem64 =r  r y + r r 0 != r 0 < y 0 < xor and select".into()),
        // Integers: division by zero gives 0; the least number by -1 wraps.
        "divs" => (Width::I32, &["nx", "ny"], DIVS.into()),
        "divs64" => (Width::F64, &["nx", "ny"], DIVS.into()),
        "divu" => (Width::I32, &["nx", "ny"], "#0 nx #1 ny ny #0 i== select iu/ ny #0 i== select".into()),
        "divu64" => (Width::F64, &["nx", "ny"], "#0 nx #1 ny ny #0 i== select iu/ ny #0 i== select".into()),
        "rems" => (Width::I32, &["nx", "ny"], "#0 nx #1 ny ny #0 i== select i% ny #0 i== select".into()),
        "rems64" => (Width::F64, &["nx", "ny"], "#0 nx #1 ny ny #0 i== select i% ny #0 i== select".into()),
        "remu" => (Width::I32, &["nx", "ny"], "#0 nx #1 ny ny #0 i== select iu% ny #0 i== select".into()),
        "remu64" => (Width::F64, &["nx", "ny"], "#0 nx #1 ny ny #0 i== select iu% ny #0 i== select".into()),
        "floors" => (Width::I32, &["nx", "ny"], FLOORS.replace('S', "s")),
        "floors64" => (Width::F64, &["nx", "ny"], FLOORS.replace('S', "s64")),
        "mods" => (Width::I32, &["nx", "ny"], MODS.replace('S', "s")),
        "mods64" => (Width::F64, &["nx", "ny"], MODS.replace('S', "s64")),
        // binary16 <-> f32; subnormals by a float addition, rounding to nearest, ties to even.
        "f16to" => (Width::I32, &["nx"], F16TO.into()),
        "tof16" => (Width::I32, &["nx"], TOF16.into()),
        "f16to4" => (Width::X4, &["nx"], F16TO.into()),
        "tof164" => (Width::X4, &["nx"], TOF16.into()),
        "tobf16" => (Width::I32, &["nx"], TOBF16.into()),
        "tobf164" => (Width::X4, &["nx"], TOBF16.into()),
        _ => return None,
    })
}

const DIVS: &str = "ny #0 i== =qz  ny #-1 i== =qm
    #0 #0 nx i- nx #1 ny qz qm or select i/ qm select qz select";

const FLOORS: &str = "nx ny @divS =n  nx ny @remS =nr
    n #1 i- n nr #0 i!= nr ny i^ #0 i< and select";

const MODS: &str = "nx ny @remS =nr
    nr ny i+ nr nr #0 i!= nr ny i^ #0 i< and select";

/// Bits of binary16 to bits of f32.
const F16TO: &str = "nx #0x7fff i& <<13 =n  nx #0x8000 i& <<16 =ns
    n asf 5.192296858534828e33 * asi =nv
    nv #0x7f800000 i| nv n #0x0f7fffff i> select ns i|";

/// Bits of f32 to bits of binary16.
const TOF16: &str = "nx #0x7fffffff i& =n  nx >>>16 #0x8000 i& =ns
    n >>>13 #1 i& n i+ #0xfff i+ #0x38000000 i- >>>13 =nn
    n asf 0.5 + asi #0x3f000000 i- =nd
    #0x7e00 #0x7c00 n #0x7f800000 i> select =ni
    ni nd nn n #0x38800000 i< select n #0x47800000 i>= select ns i|";

/// Bits of f32 to bits of the nearest bfloat16, in the upper half.
const TOBF16: &str = "nx >>>16 #1 i& nx i+ #0x7fff i+ #0xffff0000 i& =n
    nx #0x400000 i| #0xffff0000 i& n nx #0x7fffffff i& #0x7f800000 i> select";

/// pow: relative error 1e-13 (f64), with C's special cases.
const POW64: &str = "y @exact =qi  y 0.5 * @exact not qi and =qo
    x abs @log64 y * @exp64 =r
    r neg r x asi #0 i< qo and select =r
    r nan x 0 >= qi or x abs inf == or select =r
    1 r y 0 == x 1 == or select =r
    1 r x -1 == y abs inf == and select";

/// erf: maximum absolute error 1e-15 (f64): the series with positive terms below 3, the continued fraction of erfc above.
fn erf64() -> String {
    let mut s = String::from("x abs =a  x x * =z  1 ");
    for n in (1..=60).rev() {
        s += &format!("z {} * * 1 + ", 2.0 / f64::from(2 * n + 1));
    }
    s += "a * z neg @exp64 * 1.1283791670955126 * =s  a 6 min =t  t ";
    // erfc(x) = exp(-x²)/√π · 1/(x + (1/2)/(x + 1/(x + (3/2)/(x + …
    for n in (1..=40).rev() {
        s += &format!("=f {} f / t + ", f64::from(n) / 2.0);
    }
    s + "=f  1 t t * neg @exp64 0.5641895835477563 * f / - =l  s l a 3 < select x copysign"
}

/// The function's index in the module; it and what it calls are added when first asked for.
pub(super) fn function(shared: &mut Shared, name: &str) -> Result<u32> {
    if let Some(i) = shared.named.get(name) {
        return Ok(*i);
    }
    let unknown = || Error::new(Kind::Internal, format!("no function \"{name}\" for emitted code"));
    let f = match name {
        "rem64" => fmod(),
        _ => {
            let (width, params, text) = text(name).ok_or_else(unknown)?;
            assemble(shared, width, params, &text)?
        }
    };
    let i = shared.add(f);
    shared.named.insert(name.into(), i);
    Ok(i)
}

impl Writer<'_> {
    /// Replaces the lanes on the stack by a function of them, written out here: a call would cost more than the function,
    /// and load its constants anew each time.
    pub(super) fn inline(&mut self, name: &str) -> Result<()> {
        let unknown = || Error::new(Kind::Internal, format!("no function \"{name}\" for emitted code"));
        let (width, params, text) = text(name).ok_or_else(unknown)?;
        let mut vars: HashMap<&str, u32> = HashMap::new();
        for p in params.iter().rev() {
            let l = self.local(ValType::V128);
            self.i().local_set(l);
            vars.insert(p, l);
        }
        let tokens: Vec<&str> = text.split_whitespace().collect();
        let mut fused = false;
        for (at, t) in tokens.iter().copied().enumerate() {
            if t == "*" && self.relaxed && pushes(tokens.get(at + 1)) && tokens.get(at + 2) == Some(&"+") {
                fused = true;
            } else if t == "+" && std::mem::take(&mut fused) {
                self.i().f32x4_relaxed_madd();
            } else if t == "select" && self.relaxed {
                self.i().i32x4_relaxed_laneselect();
            } else if let Some(f) = t.strip_prefix('@') {
                self.inline(&format!("{f}4"))?;
            } else if let Some(v) = t.strip_prefix('=').filter(|v| v.starts_with(|c: char| c.is_ascii_alphabetic())) {
                let l = match vars.get(v) {
                    Some(l) => *l,
                    None => self.local(ValType::V128),
                };
                vars.insert(v, l);
                self.i().local_set(l);
            } else if let Some(l) = vars.get(t) {
                self.i().local_get(*l);
            } else if let Some(x) = number(t) {
                self.splat_constant((x as f32).to_bits());
            } else if let Some(n) = integer(t) {
                self.splat_constant(n as u32);
            } else {
                token(&mut self.i(), width, t).ok_or_else(unknown)?;
            }
        }
        Ok(())
    }
}

/// Whether a token only pushes a number or a variable.
fn pushes(t: Option<&&str>) -> bool {
    t.is_some_and(|t| number(t).is_some() || (t.len() == 1 && t.as_bytes()[0].is_ascii_lowercase()))
}

/// A float constant of the notation.
fn number(t: &str) -> Option<f64> {
    match t {
        "inf" => Some(f64::INFINITY),
        "-inf" => Some(f64::NEG_INFINITY),
        "nan" => Some(f64::NAN),
        _ if t.len() > 1 || t.as_bytes().first().is_some_and(u8::is_ascii_digit) => t.parse::<f64>().ok(),
        _ => None,
    }
}

/// An integer constant of the notation.
fn integer(t: &str) -> Option<i64> {
    let n = t.strip_prefix('#')?;
    match n.strip_prefix("0x") {
        Some(h) => u64::from_str_radix(h, 16).ok().map(u64::cast_signed),
        None => n.parse::<i64>().ok(),
    }
}

/// Assembles a text. The result's type is that of the text's last value: integers for functions of integers.
fn assemble(shared: &mut Shared, width: Width, params: &[&str], text: &str) -> Result<Function> {
    let of = |name: &str| match (width, name.as_bytes().first()) {
        (Width::X4, _) => ValType::V128,
        (Width::F64, Some(b'n')) => ValType::I64,
        (_, Some(b'n' | b'q')) => ValType::I32,
        (Width::F64, _) => ValType::F64,
        (Width::F32 | Width::I32, _) => ValType::F32,
    };
    let bad = |t: &str| Error::new(Kind::Internal, format!("\"{t}\" in the text of a function for emitted code"));
    let mut vars: HashMap<String, u32> = HashMap::new();
    for (i, p) in (0u32..).zip(params) {
        vars.insert((*p).into(), i);
    }
    let mut locals = vec![];
    let mut code = vec![];
    for t in text.split_whitespace() {
        if let Some(f) = t.strip_prefix('@') {
            if f == "exact" {
                // Whether a float is whole.
                let exact = shared.exact();
                InstructionSink::new(&mut code).call(exact);
                continue;
            }
            let name = match width {
                Width::X4 => format!("{f}4"),
                _ => f.into(),
            };
            let i = function(shared, &name)?;
            InstructionSink::new(&mut code).call(i);
            continue;
        }
        let set = t.strip_prefix('=').filter(|v| v.starts_with(|c: char| c.is_ascii_alphabetic()));
        if let Some(name) = set {
            let next = params.len() + locals.len();
            let i = *vars.entry(name.into()).or_insert_with(|| {
                locals.push(of(name));
                u32::try_from(next).unwrap_or(u32::MAX)
            });
            InstructionSink::new(&mut code).local_set(i);
        } else if let Some(i) = vars.get(t) {
            InstructionSink::new(&mut code).local_get(*i);
        } else {
            token(&mut InstructionSink::new(&mut code), width, t).ok_or_else(|| bad(t))?;
        }
    }
    let result = if params.contains(&"x") { of("x") } else { of("n") };
    Ok(Function { params: params.iter().map(|p| of(p)).collect(), results: vec![result], locals, code })
}

#[allow(clippy::cast_possible_truncation, clippy::cast_possible_wrap)]
fn token(s: &mut InstructionSink<'_>, width: Width, t: &str) -> Option<()> {
    if let Some(n) = integer(t) {
        match width {
            Width::X4 => s.v128_const(splat32(n as u32)),
            Width::F64 => s.i64_const(n),
            Width::F32 | Width::I32 => s.i32_const(n as i32),
        };
        return Some(());
    }
    for (sign, kind) in [("<<", 0), (">>>", 2), (">>", 1)] {
        if let Some(k) = t.strip_prefix(sign).and_then(|k| k.parse::<i32>().ok()) {
            match (width, kind) {
                (Width::X4, 0) => s.i32_const(k).i32x4_shl(),
                (Width::X4, 1) => s.i32_const(k).i32x4_shr_s(),
                (Width::X4, _) => s.i32_const(k).i32x4_shr_u(),
                (Width::F64, 0) => s.i64_const(i64::from(k)).i64_shl(),
                (Width::F64, 1) => s.i64_const(i64::from(k)).i64_shr_s(),
                (Width::F64, _) => s.i64_const(i64::from(k)).i64_shr_u(),
                (_, 0) => s.i32_const(k).i32_shl(),
                (_, 1) => s.i32_const(k).i32_shr_s(),
                (_, _) => s.i32_const(k).i32_shr_u(),
            };
            return Some(());
        }
    }
    if let Some(x) = number(t) {
        match width {
            Width::X4 => s.v128_const(splat32((x as f32).to_bits())),
            Width::F64 => s.f64_const(x.into()),
            Width::F32 | Width::I32 => s.f32_const((x as f32).into()),
        };
        return Some(());
    }
    macro_rules! op {
        ($f32:ident, $x4:ident, $f64:ident) => {
            match width {
                Width::F32 | Width::I32 => s.$f32(),
                Width::X4 => s.$x4(),
                Width::F64 => s.$f64(),
            }
        };
    }
    match t {
        "+" => op!(f32_add, f32x4_add, f64_add),
        "-" => op!(f32_sub, f32x4_sub, f64_sub),
        "*" => op!(f32_mul, f32x4_mul, f64_mul),
        "/" => op!(f32_div, f32x4_div, f64_div),
        "min" => op!(f32_min, f32x4_min, f64_min),
        "max" => op!(f32_max, f32x4_max, f64_max),
        "least" if width == Width::X4 => s.f32x4_pmin(),
        "least" => op!(f32_min, f32x4_min, f64_min),
        "greatest" if width == Width::X4 => s.f32x4_pmax(),
        "greatest" => op!(f32_max, f32x4_max, f64_max),
        "unless" => match width {
            Width::X4 => s.v128_andnot(),
            Width::F64 => s.i32_const(1).i32_sub().i64_extend_i32_s().i64_and(),
            Width::F32 | Width::I32 => s.i32_const(1).i32_sub().i32_and(),
        },
        "abs" => op!(f32_abs, f32x4_abs, f64_abs),
        "neg" => op!(f32_neg, f32x4_neg, f64_neg),
        "sqrt" => op!(f32_sqrt, f32x4_sqrt, f64_sqrt),
        "nearest" => op!(f32_nearest, f32x4_nearest, f64_nearest),
        "<" => op!(f32_lt, f32x4_lt, f64_lt),
        ">" => op!(f32_gt, f32x4_gt, f64_gt),
        ">=" => op!(f32_ge, f32x4_ge, f64_ge),
        "==" => op!(f32_eq, f32x4_eq, f64_eq),
        "!=" => op!(f32_ne, f32x4_ne, f64_ne),
        "toi" => op!(i32_trunc_sat_f32_s, i32x4_trunc_sat_f32x4_s, i64_trunc_sat_f64_s),
        "tof" => op!(f32_convert_i32_s, f32x4_convert_i32x4_s, f64_convert_i64_s),
        "i+" => op!(i32_add, i32x4_add, i64_add),
        "i-" => op!(i32_sub, i32x4_sub, i64_sub),
        "i&" => op!(i32_and, v128_and, i64_and),
        "i|" => op!(i32_or, v128_or, i64_or),
        "i^" => op!(i32_xor, v128_xor, i64_xor),
        "i==" => op!(i32_eq, i32x4_eq, i64_eq),
        "i!=" => op!(i32_ne, i32x4_ne, i64_ne),
        "i<" => op!(i32_lt_s, i32x4_lt_s, i64_lt_s),
        "i>" => op!(i32_gt_s, i32x4_gt_s, i64_gt_s),
        "i>=" => op!(i32_ge_s, i32x4_ge_s, i64_ge_s),
        "i/" if width == Width::F64 => s.i64_div_s(),
        "i/" => s.i32_div_s(),
        "iu/" if width == Width::F64 => s.i64_div_u(),
        "iu/" => s.i32_div_u(),
        "i%" if width == Width::F64 => s.i64_rem_s(),
        "i%" => s.i32_rem_s(),
        "iu%" if width == Width::F64 => s.i64_rem_u(),
        "iu%" => s.i32_rem_u(),
        "and" => match width {
            Width::X4 => s.v128_and(),
            _ => s.i32_and(),
        },
        "or" => match width {
            Width::X4 => s.v128_or(),
            _ => s.i32_or(),
        },
        "xor" => match width {
            Width::X4 => s.v128_xor(),
            _ => s.i32_xor(),
        },
        "not" => match width {
            Width::X4 => s.v128_not(),
            _ => s.i32_eqz(),
        },
        "select" => match width {
            Width::X4 => s.v128_bitselect(),
            _ => s.select(),
        },
        "asi" => match width {
            Width::X4 => s,
            Width::F64 => s.i64_reinterpret_f64(),
            _ => s.i32_reinterpret_f32(),
        },
        "asf" => match width {
            Width::X4 => s,
            Width::F64 => s.f64_reinterpret_i64(),
            _ => s.f32_reinterpret_i32(),
        },
        "copysign" => match width {
            Width::X4 => s.v128_const(splat32(0x7fff_ffff)).v128_bitselect(),
            Width::F64 => s.f64_copysign(),
            _ => s.f32_copysign(),
        },
        "promote" => s.f64_promote_f32(),
        "demote" => s.f32_demote_f64(),
        _ => return None,
    };
    Some(())
}

/// A 32-bit pattern in every lane.
#[allow(clippy::cast_possible_wrap)]
pub(super) fn splat32(x: u32) -> i128 {
    let x = u128::from(x);
    (x | x << 32 | x << 64 | x << 96) as i128
}

/// C's `fmod` for f64, exact: long division of the significands, one bit a step.
fn fmod() -> Function {
    let mut code = vec![];
    // x 0, y 1: f64; a 2, b 3 (bits of |x|, |y|), ea 4, eb 5 (exponents), ma 6, mb 7 (significands): i64
    let (a, b, ea, eb, ma, mb) = (2, 3, 4, 5, 6, 7);
    let mut s = InstructionSink::new(&mut code);
    let abs = i64::MAX;
    s.local_get(0).i64_reinterpret_f64().i64_const(abs).i64_and().local_set(a);
    s.local_get(1).i64_reinterpret_f64().i64_const(abs).i64_and().local_set(b);
    // NaN, infinite x or zero y: NaN.
    s.local_get(a).i64_const(0x7ff0_0000_0000_0000).i64_ge_s();
    s.local_get(b).i64_const(0x7ff0_0000_0000_0000).i64_gt_s().i32_or();
    s.local_get(b).i64_eqz().i32_or();
    s.if_(BlockType::Empty).f64_const(f64::NAN.into()).return_().end();
    s.local_get(a).local_get(b).i64_lt_s().if_(BlockType::Empty).local_get(0).return_().end();
    for (bits, e, m) in [(a, ea, ma), (b, eb, mb)] {
        s.local_get(bits).i64_const(0x000f_ffff_ffff_ffff).i64_and().local_set(m);
        s.local_get(bits).i64_const(52).i64_shr_u().local_tee(e).i64_eqz().if_(BlockType::Empty);
        s.i64_const(1).local_set(e).else_();
        s.local_get(m).i64_const(1 << 52).i64_or().local_set(m).end();
    }
    s.block(BlockType::Empty).loop_(BlockType::Empty);
    s.local_get(ma).local_get(mb).i64_ge_u().if_(BlockType::Empty);
    s.local_get(ma).local_get(mb).i64_sub().local_set(ma).end();
    s.local_get(ea).local_get(eb).i64_le_s().br_if(1);
    s.local_get(ma).i64_const(1).i64_shl().local_set(ma);
    s.local_get(ea).i64_const(1).i64_sub().local_set(ea);
    s.br(0).end().end();
    // Normalize: the significand may have lost leading bits.
    s.local_get(ma).i64_eqz().if_(BlockType::Empty).f64_const(0.0.into()).local_get(0).f64_copysign().return_().end();
    s.block(BlockType::Empty).loop_(BlockType::Empty);
    s.local_get(ma).i64_const(1 << 52).i64_ge_u().local_get(ea).i64_const(1).i64_le_s().i32_or().br_if(1);
    s.local_get(ma).i64_const(1).i64_shl().local_set(ma);
    s.local_get(ea).i64_const(1).i64_sub().local_set(ea);
    s.br(0).end().end();
    s.local_get(ma).i64_const(1 << 52).i64_ge_u().if_(BlockType::Empty);
    s.local_get(ma).i64_const(1 << 52).i64_sub().local_get(ea).i64_const(52).i64_shl().i64_or().local_set(ma).end();
    s.local_get(ma).f64_reinterpret_i64().local_get(0).f64_copysign();
    Function { params: vec![ValType::F64; 2], results: vec![ValType::F64], locals: vec![ValType::I64; 6], code }
}
