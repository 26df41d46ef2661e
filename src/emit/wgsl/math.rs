//! Functions that WGSL lacks or whose built-in forms are too coarse (WGSL allows `log` an absolute error of 2⁻²¹ and
//! `tanh` the error of a quotient of differences), as text. Polynomials are minimax fits of relative error, made for this
//! file. `$f`, `$u`, `$i`, `$b` stand for the float, unsigned, signed and bool type of the wanted width, `$s` for the
//! width itself (1 or 4), which ends every function's name.

use std::collections::BTreeSet;

/// A helper function: name, the helpers that it calls, text.
struct Helper {
    name: &'static str,
    needs: &'static [&'static str],
    text: &'static str,
}

const HELPERS: &[Helper] = &[
    Helper {
        name: "f32_bits",
        needs: &[],
        // A parameter is no constant expression: infinities and NaN may be made from it.
        text: "fn f32_bits$s(bits: u32) -> $f { return bitcast<$f>($u(bits)); }",
    },
    Helper { name: "opaque_f32", needs: &[], text: "fn opaque_f32$s(x: $f) -> $f { return x; }" },
    Helper { name: "opaque_i32", needs: &[], text: "fn opaque_i32$s(x: $i) -> $i { return x; }" },
    Helper { name: "opaque_u32", needs: &[], text: "fn opaque_u32$s(x: $u) -> $u { return x; }" },
    Helper {
        name: "is_nan",
        needs: &[],
        // By bits: comparisons may be compiled as if there were no NaN.
        text: "fn is_nan$s(x: $f) -> $b { return (bitcast<$u>(x) & $u(0x7fffffffu)) > $u(0x7f800000u); }",
    },
    Helper {
        name: "is_inf",
        needs: &[],
        text: "fn is_inf$s(x: $f) -> $b { return (bitcast<$u>(x) & $u(0x7fffffffu)) == $u(0x7f800000u); }",
    },
    Helper {
        name: "f_min",
        needs: &["is_nan"],
        text: "fn f_min$s(a: $f, b: $f) -> $f { return select(a, b, (b < a) | is_nan$s(b)); }",
    },
    Helper {
        name: "f_max",
        needs: &["is_nan"],
        text: "fn f_max$s(a: $f, b: $f) -> $f { return select(a, b, (b > a) | is_nan$s(b)); }",
    },
    Helper {
        name: "f_sign",
        needs: &[],
        text: "fn f_sign$s(x: $f) -> $f { return select(select(x, $f(-1.0), x < $f(0.0)), $f(1.0), x > $f(0.0)); }",
    },
    Helper {
        name: "f_log",
        needs: &["f32_bits", "is_nan"],
        // x = m · 2^e with m in [√½, √2); relative error below 1e-7 away from x = 1, and exact to the last bits near it.
        text: "fn f_log$s(x0: $f) -> $f {
    let tiny = x0 < $f(1.1754944e-38);
    let x = select(x0, x0 * 8388608.0, tiny);
    let u = bitcast<$i>(x);
    let e = (u - $i(0x3f3504f3)) >> $u(23u);
    let t = bitcast<$f>(u - (e << $u(23u))) - 1.0;
    let p = (((((((t * 0.08722349 - 0.14366840) * t + 0.14952268) * t - 0.16562393) * t + 0.19956833) * t - 0.25002074) * t + 0.33334187) * t - 0.49999988) * t + 1.0;
    let r = t * p + ($f(e) - select($f(0.0), $f(23.0), tiny)) * 0.69314718;
    let s = select(r, x0, (x0 > $f(3.4028234e38)) | is_nan$s(x0));
    return select(select(s, f32_bits$s(0x7fc00000u), x0 < $f(0.0)), f32_bits$s(0xff800000u), x0 == $f(0.0));
}",
    },
    Helper {
        name: "f_tanh",
        needs: &["is_nan"],
        // Relative error 6e-8.
        text: "fn f_tanh$s(x0: $f) -> $f {
    let x = clamp(x0, $f(-9.01), $f(9.01));
    let z = x * x;
    let p = ((((z * 1.8208789e-11 - 1.2762115e-8) * z + 9.261272e-6) * z + 0.0029200863) * z + 0.12918599) * z + 1.0;
    let q = ((z * 2.2800692e-4 + 0.023760403) * z + 0.46251884) * z + 1.0;
    return select(x * p / q, x0, is_nan$s(x0));
}",
    },
    Helper {
        name: "f_erf",
        needs: &["is_nan"],
        // Relative error 2e-8 before rounding.
        text: "fn f_erf$s(x0: $f) -> $f {
    let x = clamp(x0, $f(-3.92), $f(3.92));
    let z = x * x;
    let p = ((((z * 2.0500838e-6 + 2.8488334e-4) * z + 0.0037656408) * z + 0.0527488) * z + 0.190407) * z + 1.1283791;
    let q = ((((z * 3.809171e-5 + 0.0011625413) * z + 0.014969264) * z + 0.11410934) * z + 0.50207657) * z + 1.0;
    return select(x * p / q, x0, is_nan$s(x0));
}",
    },
    Helper {
        name: "f_sin",
        needs: &["f_quadrant"],
        text: "fn f_sin$s(x: $f) -> $f { return f_quadrant$s(x, 0); }",
    },
    Helper {
        name: "f_cos",
        needs: &["f_quadrant"],
        text: "fn f_cos$s(x: $f) -> $f { return f_quadrant$s(x, 1); }",
    },
    Helper {
        name: "f_quadrant",
        needs: &[],
        // Reduction to [-π/4, π/4] in three steps (Cody & Waite): absolute error below 1e-7 for |x| up to 10⁴.
        text: "fn f_quadrant$s(x: $f, shift: i32) -> $f {
    let n = round(x * 0.63661977);
    let r = ((x - n * 1.5703125) - n * 4.8375130e-4) - n * 7.5497899e-8;
    let q = $i(n) + shift;
    let z = r * r;
    let s = r * (((z * -1.9501822e-4 + 0.008332017) * z - 0.16666651) * z + 1.0);
    let c = (((z * 2.4372679e-5 - 0.0013886530) * z + 0.041666612) * z - 0.5) * z + 1.0;
    let v = select(s, c, (q & $i(1)) == $i(1));
    return select(v, -v, (q & $i(2)) == $i(2));
}",
    },
    Helper {
        name: "f_arc",
        needs: &[],
        // asin(x) for 0 ≤ x ≤ ½, relative error 5e-9.
        text: "fn f_arc$s(x: $f) -> $f {
    let z = x * x;
    return x * (((((z * 0.042635635 + 0.023858173) * z + 0.045550186) * z + 0.07494435) * z + 0.16666791) * z + 1.0);
}",
    },
    Helper {
        name: "f_asin",
        needs: &["f_arc", "f32_bits"],
        text: "fn f_asin$s(x: $f) -> $f {
    let a = abs(x);
    let far = a > $f(0.5);
    let r = f_arc$s(select(a, sqrt(max((1.0 - a) * 0.5, $f(0.0))), far));
    let v = select(r, 1.5707963 - 2.0 * r, far);
    return select(select(v, -v, x < $f(0.0)), f32_bits$s(0x7fc00000u), !(a <= $f(1.0)));
}",
    },
    Helper {
        name: "f_acos",
        needs: &["f_arc", "f32_bits"],
        text: "fn f_acos$s(x: $f) -> $f {
    let a = abs(x);
    let far = a > $f(0.5);
    let r = f_arc$s(select(a, sqrt(max((1.0 - a) * 0.5, $f(0.0))), far));
    let near = 1.5707963 - select(r, -r, x < $f(0.0));
    let v = select(near, select(2.0 * r, 3.1415927 - 2.0 * r, x < $f(0.0)), far);
    return select(v, f32_bits$s(0x7fc00000u), !(a <= $f(1.0)));
}",
    },
    Helper {
        name: "f_atan",
        needs: &["is_nan"],
        // Relative error 1e-7.
        text: "fn f_atan$s(x: $f) -> $f {
    let a = abs(x);
    let far = a > $f(1.0);
    let t = select(a, 1.0 / max(a, $f(1.0)), far);
    let z = t * t;
    let r = t * (((((((z * -0.0046932707 + 0.024252385) * z - 0.059486367) * z + 0.09914291) * z - 0.1401948) * z + 0.19969724) * z - 0.3333199) * z + 0.9999999);
    let v = select(r, 1.5707963 - r, far);
    return select(select(v, -v, x < $f(0.0)), x, is_nan$s(x));
}",
    },
    Helper {
        name: "f_pow",
        needs: &["f_log", "f32_bits", "is_nan"],
        // Small whole exponents by squaring, so that whole powers of whole numbers are exact.
        text: "fn f_pow1(x: f32, y: f32) -> f32 {
    let whole = y == trunc(y);
    if (whole & (abs(y) <= 64.0)) {
        var r = 1.0;
        var b = x;
        for (var n = u32(abs(y)); n > 0u; n = n >> 1u) {
            r = select(r, r * b, (n & 1u) == 1u);
            b = b * b;
        }
        return select(r, 1.0 / r, y < 0.0);
    }
    let r = exp(y * f_log1(abs(x)));
    let odd = whole & (abs(y) < 16777216.0) & ((i32(clamp(y, -16777216.0, 16777216.0)) & 1) == 1);
    let nan = ((x < 0.0) & !whole) | is_nan1(x) | is_nan1(y);
    return select(select(select(r, -r, (x < 0.0) & odd), f32_bits1(0x7fc00000u), nan), 1.0, x == 1.0);
}",
    },
    Helper {
        name: "f_rem",
        needs: &[],
        // A quotient that rounds across a whole number is put right afterwards.
        text: "fn f_rem$s(a: $f, b: $f) -> $f {
    let m = abs(b);
    let x = abs(a);
    var r = x - m * trunc(x / m);
    r = select(r, r + m, r < $f(0.0));
    r = select(r, r - m, r >= m);
    return select(r, -r, a < $f(0.0));
}",
    },
    Helper {
        name: "f_mod",
        needs: &["f_rem"],
        text: "fn f_mod$s(a: $f, b: $f) -> $f {
    let r = f_rem$s(a, b);
    return select(r, r + b, (r != $f(0.0)) & ((r < $f(0.0)) != (b < $f(0.0))));
}",
    },
    Helper {
        name: "i_div",
        needs: &[],
        text: "fn i_div$s(a: $i, b: $i) -> $i { return select(a / select(b, $i(1), b == $i(0)), $i(0), b == $i(0)); }",
    },
    Helper {
        name: "u_div",
        needs: &[],
        text: "fn u_div$s(a: $u, b: $u) -> $u { return select(a / max(b, $u(1u)), $u(0u), b == $u(0u)); }",
    },
    Helper {
        name: "i_rem",
        needs: &[],
        text: "fn i_rem$s(a: $i, b: $i) -> $i { return select(a % select(b, $i(1), b == $i(0)), $i(0), b == $i(0)); }",
    },
    Helper {
        name: "u_rem",
        needs: &[],
        text: "fn u_rem$s(a: $u, b: $u) -> $u { return select(a % max(b, $u(1u)), $u(0u), b == $u(0u)); }",
    },
    Helper {
        name: "i_floor_div",
        needs: &["i_div", "i_rem"],
        text: "fn i_floor_div$s(a: $i, b: $i) -> $i {
    let r = i_rem$s(a, b);
    return i_div$s(a, b) - select($i(0), $i(1), (r != $i(0)) & ((r < $i(0)) != (b < $i(0))));
}",
    },
    Helper {
        name: "i_mod",
        needs: &["i_rem"],
        text: "fn i_mod$s(a: $i, b: $i) -> $i {
    let r = i_rem$s(a, b);
    return select(r, r + b, (r != $i(0)) & ((r < $i(0)) != (b < $i(0))));
}",
    },
    Helper {
        name: "f_to_i",
        needs: &["is_nan"],
        text: "fn f_to_i$s(x: $f) -> $i {
    let v = select($i(clamp(x, $f(-2147483648.0), $f(2147483520.0))), $i(2147483647), x >= $f(2147483648.0));
    return select(v, $i(0), is_nan$s(x));
}",
    },
    Helper {
        name: "f_to_u",
        needs: &["is_nan"],
        text: "fn f_to_u$s(x: $f) -> $u {
    let v = select($u(clamp(x, $f(0.0), $f(4294967040.0))), $u(4294967295u), x >= $f(4294967296.0));
    return select(v, $u(0u), is_nan$s(x));
}",
    },
    Helper {
        name: "round_f16",
        needs: &[],
        // To nearest, ties to even, on the bits; below 2⁻¹⁴ the quantum is 2⁻²⁴, from 65520 upwards it is infinity.
        text: "fn round_f16$s(x: $f) -> $f {
    let u = bitcast<$u>(x);
    let sign = u & $u(0x80000000u);
    let a = u & $u(0x7fffffffu);
    let n = (a + $u(0xfffu) + ((a >> $u(13u)) & $u(1u))) & $u(0xffffe000u);
    let big = select(n, $u(0x7f800000u), n > $u(0x477fe000u));
    let small = bitcast<$u>(round(abs(x) * 16777216.0) * 5.9604645e-8);
    let v = select(select(big, small, a < $u(0x38800000u)), a, a > $u(0x7f800000u));
    return bitcast<$f>(sign | v);
}",
    },
    Helper {
        name: "round_bf16",
        needs: &[],
        text: "fn round_bf16$s(x: $f) -> $f {
    let u = bitcast<$u>(x);
    let n = (u + $u(0x7fffu) + ((u >> $u(16u)) & $u(1u))) & $u(0xffff0000u);
    return bitcast<$f>(select(n, u, (u & $u(0x7fffffffu)) > $u(0x7f800000u)));
}",
    },
    // 64-bit integers held in 32 bits: what does not fit sets the flag, so that the run is refused rather than wrong.
    Helper {
        name: "refuse",
        needs: &[],
        text: "fn refuse1(bad: bool) { if (bad) { atomicStore(&overflow, 1u); } }",
    },
    Helper {
        name: "l_add",
        needs: &["refuse"],
        text: "fn l_add1(a: i32, b: i32) -> i32 {
    let r = a + b;
    refuse1(((a ^ r) & (b ^ r)) < 0);
    return r;
}",
    },
    Helper {
        name: "l_sub",
        needs: &["refuse"],
        text: "fn l_sub1(a: i32, b: i32) -> i32 {
    let r = a - b;
    refuse1(((a ^ b) & (a ^ r)) < 0);
    return r;
}",
    },
    Helper {
        name: "l_mul",
        needs: &["refuse"],
        text: "fn l_mul1(a: i32, b: i32) -> i32 {
    let r = a * b;
    let lowest = bitcast<i32>(0x80000000u);
    if (a != 0) { refuse1((r / a != b) | ((a == -1) & (b == lowest))); }
    return r;
}",
    },
    Helper {
        name: "l_neg",
        needs: &["refuse"],
        text: "fn l_neg1(a: i32) -> i32 {
    refuse1(a == bitcast<i32>(0x80000000u));
    return -a;
}",
    },
    Helper {
        name: "l_shl",
        needs: &["refuse"],
        text: "fn l_shl1(a: i32, n: i32) -> i32 {
    let m = n & 63;
    let r = select(a << u32(m & 31), 0, m > 31);
    refuse1((a != 0) & ((m > 31) | ((r >> u32(m & 31)) != a)));
    return r;
}",
    },
    Helper {
        name: "l_shr",
        needs: &[],
        text: "fn l_shr1(a: i32, n: i32) -> i32 { return a >> u32(min(n & 63, 31)); }",
    },
    Helper {
        name: "l_from_f",
        needs: &["refuse", "f_to_i"],
        text: "fn l_from_f1(x: f32) -> i32 {
    refuse1((x >= 2147483648.0) | (x < -2147483648.0));
    return f_to_i1(x);
}",
    },
    Helper {
        name: "l_from_u",
        needs: &["refuse"],
        text: "fn l_from_u1(x: u32) -> i32 {
    refuse1(x > 2147483647u);
    return i32(x);
}",
    },
    Helper {
        name: "m_add",
        needs: &["refuse"],
        text: "fn m_add1(a: u32, b: u32) -> u32 {
    let r = a + b;
    refuse1(r < a);
    return r;
}",
    },
    Helper {
        name: "m_sub",
        needs: &["refuse"],
        text: "fn m_sub1(a: u32, b: u32) -> u32 {
    refuse1(b > a);
    return a - b;
}",
    },
    Helper {
        name: "m_mul",
        needs: &["refuse"],
        text: "fn m_mul1(a: u32, b: u32) -> u32 {
    let r = a * b;
    if (a != 0u) { refuse1(r / a != b); }
    return r;
}",
    },
    Helper {
        name: "m_shl",
        needs: &["refuse"],
        text: "fn m_shl1(a: u32, n: u32) -> u32 {
    let m = n & 63u;
    let r = select(a << (m & 31u), 0u, m > 31u);
    refuse1((a != 0u) & ((m > 31u) | ((r >> (m & 31u)) != a)));
    return r;
}",
    },
    Helper {
        name: "m_shr",
        needs: &[],
        text: "fn m_shr1(a: u32, n: u32) -> u32 { return select(a >> (n & 31u), 0u, (n & 63u) > 31u); }",
    },
    Helper {
        name: "m_not",
        needs: &["refuse"],
        text: "fn m_not1(a: u32) -> u32 {
    refuse1(true);
    return ~a;
}",
    },
    Helper {
        name: "m_from_f",
        needs: &["refuse", "f_to_u"],
        text: "fn m_from_f1(x: f32) -> u32 {
    refuse1(x >= 4294967296.0);
    return f_to_u1(x);
}",
    },
    Helper {
        name: "m_from_i",
        needs: &["refuse"],
        text: "fn m_from_i1(x: i32) -> u32 {
    refuse1(x < 0);
    return u32(x);
}",
    },
];

/// Whether a helper exists for single elements only; vectors call it once an element.
pub(super) fn scalar_only(name: &str) -> bool {
    name == "f_pow" || name == "refuse" || name.starts_with("l_") || name.starts_with("m_")
}

/// The helpers that were called, by name and width.
#[derive(Debug, Default)]
pub(super) struct Used(BTreeSet<(&'static str, u8)>);

impl Used {
    /// Notes a call of `name` for elements (`width` 1) or vectors (4), and the helpers which that calls.
    pub(super) fn add(&mut self, name: &str, width: u8) {
        if let Some(h) = HELPERS.iter().find(|h| h.name == name)
            && self.0.insert((h.name, width))
        {
            for n in h.needs {
                self.add(n, width);
            }
        }
    }

    /// Whether the overflow flag is needed.
    pub(super) fn overflow(&self) -> bool {
        self.0.contains(&("refuse", 1))
    }

    /// The text of all of them.
    pub(super) fn text(&self) -> String {
        let mut out = String::new();
        for (name, width) in &self.0 {
            let Some(h) = HELPERS.iter().find(|h| h.name == *name) else { continue };
            let ty = |t: &str| if *width == 4 { format!("vec4<{t}>") } else { t.to_owned() };
            let text = h.text.replace("$f", &ty("f32")).replace("$u", &ty("u32")).replace("$i", &ty("i32"));
            out.push_str(&text.replace("$b", &ty("bool")).replace("$s", &width.to_string()));
            out.push('\n');
        }
        out
    }
}
