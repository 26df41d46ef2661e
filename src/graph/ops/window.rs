//! The geometry of windows that slide over spatial axes, shared by convolutions and poolings: kernel, strides,
//! dilations, padding, output size.

use crate::error::{Error, Kind, Result};
use crate::graph::Attrs;
use crate::tensor::{Dim, Shape, show};

/// Bounds strides, dilations, pads and kernel sizes, so that index arithmetic stays within 32 bits.
const LIMIT: i64 = 1 << 24;

/// A window over the spatial axes of a tensor `[N, C, D1, D2, …]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Window(pub Vec<Slide>);

/// A window along one axis: output `o` reads input `o · stride + k · dilation - begin` for `k` in `0..kernel`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slide {
    /// The input's size.
    pub size: Dim,
    pub kernel: Dim,
    pub stride: i64,
    pub dilation: i64,
    /// Padding before and after.
    pub begin: Dim,
    pub end: Dim,
    /// The output's size.
    pub out: Dim,
    /// Whether the last window may reach beyond the padding (`ceil_mode`).
    pub overhangs: bool,
}

impl Slide {
    /// How much input the window spans: `(kernel - 1) · dilation + 1`.
    pub fn span(&self) -> Dim {
        span(&self.kernel, self.dilation)
    }
}

fn span(kernel: &Dim, dilation: i64) -> Dim {
    kernel.sub(&Dim::from(1)).mul(&Dim::from(dilation)).add(&Dim::from(1))
}

/// An attribute with one whole number in `range` for each of `n` spatial axes (or `n` a multiple of it).
pub fn spatial(attrs: &Attrs, name: &str, n: usize, default: i64, least: i64) -> Result<Vec<i64>> {
    let Some(list) = attrs.ints(name)? else { return Ok(vec![default; n]) };
    if list.len() != n || list.iter().any(|x| *x < least || *x > LIMIT) {
        return Err(Error::new(
            Kind::InvalidModel,
            format!("attribute \"{name}\" is {list:?} where {n} numbers from {least} to {LIMIT} are needed"),
        ));
    }
    Ok(list.to_vec())
}

/// How a node states its padding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AutoPad {
    Explicit,
    SameUpper,
    SameLower,
    Valid,
}

/// The attribute `auto_pad`.
pub fn auto_pad(attrs: &Attrs) -> Result<AutoPad> {
    match attrs.str("auto_pad")? {
        "NOTSET" | "" => Ok(AutoPad::Explicit),
        "SAME_UPPER" => Ok(AutoPad::SameUpper),
        "SAME_LOWER" => Ok(AutoPad::SameLower),
        "VALID" => Ok(AutoPad::Valid),
        other => Err(Error::new(Kind::InvalidModel, format!("attribute \"auto_pad\" is \"{other}\""))
            .help("it is one of NOTSET, SAME_UPPER, SAME_LOWER, VALID")),
    }
}

/// `total` padding, split as SAME_UPPER or SAME_LOWER want it.
pub fn split(total: &Dim, mode: AutoPad) -> (Dim, Dim) {
    let half = total.floor_div(&Dim::from(2));
    let rest = total.sub(&half);
    if mode == AutoPad::SameLower { (rest, half) } else { (half, rest) }
}

impl Window {
    /// The window of a node with the attributes `strides`, `pads`, `auto_pad` and, where `dilated`, `dilations`, over
    /// an input of shape `x`.
    pub fn new(attrs: &Attrs, x: &[Dim], kernel: &[Dim], dilated: bool, ceil: bool) -> Result<Self> {
        let n = kernel.len();
        let one = Dim::from(1);
        let strides = spatial(attrs, "strides", n, 1, 1)?;
        let dilations = if dilated { spatial(attrs, "dilations", n, 1, 1)? } else { vec![1; n] };
        let pads = spatial(attrs, "pads", n * 2, 0, -LIMIT)?;
        let mode = auto_pad(attrs)?;
        let mut slides = Vec::with_capacity(n);
        for i in 0..n {
            let (size, kernel, stride, dilation) =
                (x[x.len() - n + i].clone(), kernel[i].clone(), strides[i], dilations[i]);
            if kernel.known().is_some_and(|k| !(1..=LIMIT).contains(&k)) {
                return Err(Error::new(Kind::InvalidModel, format!("a window of size {kernel}")));
            }
            let step = Dim::from(stride);
            let span = span(&kernel, dilation);
            let (begin, end, out) = match mode {
                AutoPad::SameUpper | AutoPad::SameLower => {
                    let out = size.ceil_div(&step);
                    let total = out.sub(&one).mul(&step).add(&span).sub(&size).maximum(&Dim::from(0));
                    let (begin, end) = split(&total, mode);
                    (begin, end, out)
                }
                AutoPad::Explicit | AutoPad::Valid => {
                    let pad = |i: usize| Dim::from(if mode == AutoPad::Valid { 0 } else { pads[i] });
                    let (begin, end) = (pad(i), pad(n + i));
                    let free = size.add(&begin).add(&end).sub(&span);
                    let out = if ceil {
                        // The last window must start inside the input or the padding before it.
                        free.ceil_div(&step).add(&one).minimum(&size.add(&begin).ceil_div(&step))
                    } else {
                        free.floor_div(&step).add(&one)
                    };
                    (begin, end, out)
                }
            };
            if out.known().is_some_and(|n| n < 1) {
                return Err(Error::new(
                    Kind::InvalidShape,
                    format!(
                        "a window that spans {span} does not fit into axis {} of {} with padding {begin} and {end}",
                        x.len() - n + i,
                        show(x)
                    ),
                ));
            }
            slides.push(Slide { size, kernel, stride, dilation, begin, end, out, overhangs: ceil });
        }
        Ok(Window(slides))
    }

    /// The window's shape.
    pub fn kernel(&self) -> Shape {
        self.0.iter().map(|s| s.kernel.clone()).collect()
    }

    /// The output's spatial shape.
    pub fn out(&self) -> Shape {
        self.0.iter().map(|s| s.out.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::AttrValue;

    fn attrs(list: &[(&'static str, AttrValue)]) -> Attrs {
        let mut a = Attrs::default();
        a.0.insert("auto_pad", AttrValue::Str("NOTSET".into()));
        a.0.extend(list.iter().cloned());
        a
    }

    #[test]
    fn output_sizes() {
        let ints = |v: &[i64]| AttrValue::Ints(v.to_vec());
        let same = |s: &str| ("auto_pad", AttrValue::Str(s.into()));
        let cases = [
            ("plain", 7, 3, false, attrs(&[]), (0, 0, 5)),
            (
                "strided and padded",
                224,
                7,
                false,
                attrs(&[("strides", ints(&[2])), ("pads", ints(&[3, 3]))]),
                (3, 3, 112),
            ),
            ("dilated", 7, 3, false, attrs(&[("dilations", ints(&[2]))]), (0, 0, 3)),
            ("same upper", 8, 3, false, attrs(&[("strides", ints(&[2])), same("SAME_UPPER")]), (0, 1, 4)),
            ("same lower", 8, 3, false, attrs(&[("strides", ints(&[2])), same("SAME_LOWER")]), (1, 0, 4)),
            ("ceil", 4, 3, true, attrs(&[("strides", ints(&[2]))]), (0, 0, 2)),
            (
                "ceil, last window in the padding",
                2,
                1,
                true,
                attrs(&[("strides", ints(&[2])), ("pads", ints(&[0, 1]))]),
                (0, 1, 1),
            ),
        ];
        for (name, size, kernel, ceil, attrs, (begin, end, out)) in cases {
            let w =
                Window::new(&attrs, &[Dim::from(1), Dim::from(1), Dim::from(size)], &[Dim::from(kernel)], true, ceil);
            let got = w.map(|w| (w.0[0].begin.known(), w.0[0].end.known(), w.0[0].out.known()));
            assert_eq!(got, Ok((Some(begin), Some(end), Some(out))), "{name}");
        }
        let e = Window::new(&attrs(&[]), &[Dim::from(2)], &[Dim::from(3)], false, false).err();
        assert_eq!(e.map(|e| e.kind()), Some(Kind::InvalidShape));
    }

    #[test]
    fn symbolic_sizes() {
        let s = Dim::sym("s");
        let a = attrs(&[("strides", AttrValue::Ints(vec![2])), ("auto_pad", AttrValue::Str("SAME_UPPER".into()))]);
        let w = Window::new(&a, std::slice::from_ref(&s), &[Dim::from(3)], false, false);
        assert_eq!(w.map(|w| w.0[0].out.to_string()), Ok("⌊(1 + s) / 2⌋".into()));
    }
}
