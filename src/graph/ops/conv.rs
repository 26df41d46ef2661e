//! Convolutions: Conv, ConvTranspose, ConvInteger, QLinearConv, DeformConv.

use super::rules::{absent, int, row, string};
use super::window::{AutoPad, Slide, Window, auto_pad, spatial, split};
use super::{Attr, Op};
use crate::error::{Error, Kind, Result};
use crate::graph::Attrs;
use crate::graph::infer::{Infer, Type};
use crate::tensor::{DType, Dim, Shape, show};

const ATTRS: &[Attr] = &[
    string("auto_pad", "NOTSET"),
    absent("dilations"),
    int("group", 1),
    absent("kernel_shape"),
    absent("pads"),
    absent("strides"),
];

pub(super) static ROWS: &[Op] = &[
    row("Conv", &[1, 11, 22], (2, 3), ATTRS, |i| conv(i, 1, 2, i.dtype(0)?)),
    row("ConvInteger", &[10], (2, 4), ATTRS, |i| conv(i, 1, 9, DType::Int32)),
    row(
        "ConvTranspose",
        &[1, 11, 22],
        (2, 3),
        &[
            string("auto_pad", "NOTSET"),
            absent("dilations"),
            int("group", 1),
            absent("kernel_shape"),
            absent("output_padding"),
            absent("output_shape"),
            absent("pads"),
            absent("strides"),
        ],
        |i| {
            let g = Geometry::transposed(i.attrs, i.shape(0)?, i.shape(1)?)?;
            bias(i, 2, &g)?;
            Ok(vec![Type::new(i.dtype(0)?, g.shape(i.shape(0)?))])
        },
    ),
    row(
        "DeformConv",
        &[19, 22],
        (3, 5),
        &[
            absent("dilations"),
            int("group", 1),
            absent("kernel_shape"),
            int("offset_group", 1),
            absent("pads"),
            absent("strides"),
        ],
        deform,
    ),
    row("QLinearConv", &[10], (8, 9), ATTRS, |i| conv(i, 3, 8, i.dtype(7)?)),
];

/// A convolution's channels and window.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Geometry {
    pub group: i64,
    /// Input channels of one group.
    pub inputs: Dim,
    /// Output channels of one group.
    pub outputs: Dim,
    pub window: Window,
}

impl Geometry {
    /// Of an input `[N, C, D…]` and weights `[M, C / group, k…]`.
    pub fn new(attrs: &Attrs, x: &[Dim], w: &[Dim]) -> Result<Self> {
        let group = checked(attrs, x, w)?;
        let (inputs, channels) = (w[1].clone(), w[0].clone());
        if inputs.mul(&Dim::from(group)) != x[1] {
            return Err(mismatch(x, w, group, "the weights' channels times the groups are not the input's channels"));
        }
        let Some(outputs) = channels.div_exact(&Dim::from(group)) else {
            return Err(mismatch(x, w, group, "the output channels are no multiple of the groups"));
        };
        let window = Window::new(attrs, x, &w[2..], true, false)?;
        Ok(Geometry { group, inputs, outputs, window })
    }

    /// Of an input `[N, C, D…]` and weights `[C, M / group, k…]` of a transposed convolution. In its slides, `size` is
    /// the input's size and `out` the output's.
    pub fn transposed(attrs: &Attrs, x: &[Dim], w: &[Dim]) -> Result<Self> {
        let group = checked(attrs, x, w)?;
        if w[0] != x[1] {
            return Err(mismatch(x, w, group, "the weights' channels are not the input's"));
        }
        let Some(inputs) = x[1].div_exact(&Dim::from(group)) else {
            return Err(mismatch(x, w, group, "the input channels are no multiple of the groups"));
        };
        let n = x.len() - 2;
        let strides = spatial(attrs, "strides", n, 1, 1)?;
        let dilations = spatial(attrs, "dilations", n, 1, 1)?;
        let extra = spatial(attrs, "output_padding", n, 0, 0)?;
        let pads = spatial(attrs, "pads", n * 2, 0, 0)?;
        let mode = auto_pad(attrs)?;
        let given = match attrs.ints("output_shape")? {
            // Some exporters give batch and channels as well.
            Some(s) if s.len() == n + 2 => Some(s[2..].to_vec()),
            Some(_) => Some(spatial(attrs, "output_shape", n, 0, 1)?),
            None => None,
        };
        let mut slides = vec![];
        for i in 0..n {
            let (size, kernel) = (x[i + 2].clone(), w[i + 2].clone());
            let step = Dim::from(strides[i]);
            let mut s = Slide {
                kernel,
                stride: strides[i],
                dilation: dilations[i],
                begin: Dim::from(pads[i]),
                end: Dim::from(pads[n + i]),
                out: Dim::from(0),
                overhangs: true,
                size: size.clone(),
            };
            let full = size.sub(&Dim::from(1)).mul(&step).add(&s.span()).add(&Dim::from(extra[i]));
            let wanted = match (&given, mode) {
                (Some(g), _) => Some(Dim::from(g[i])),
                (None, AutoPad::SameUpper | AutoPad::SameLower) => Some(size.mul(&step)),
                (None, AutoPad::Valid) => {
                    (s.begin, s.end) = (Dim::from(0), Dim::from(0));
                    None
                }
                (None, AutoPad::Explicit) => None,
            };
            match wanted {
                Some(out) => {
                    let total = full.sub(&out).maximum(&Dim::from(0));
                    let mode = if mode == AutoPad::SameUpper { mode } else { AutoPad::SameLower };
                    (s.begin, s.end) = split(&total, mode);
                    s.out = out;
                }
                None => s.out = full.sub(&s.begin).sub(&s.end),
            }
            if s.out.known().is_some_and(|n| n < 1) {
                return Err(mismatch(x, w, group, &format!("axis {} of the output has size {}", i + 2, s.out)));
            }
            slides.push(s);
        }
        Ok(Geometry { group, inputs, outputs: w[1].clone(), window: Window(slides) })
    }

    /// The number of output channels.
    pub fn channels(&self) -> Dim {
        self.outputs.mul(&Dim::from(self.group))
    }

    /// The output's shape for an input of shape `x`.
    pub fn shape(&self, x: &[Dim]) -> Shape {
        [vec![x[0].clone(), self.channels()], self.window.out()].concat()
    }
}

fn mismatch(x: &[Dim], w: &[Dim], group: i64, why: &str) -> Error {
    let what = format!("a convolution of {} with weights {} in {group} groups: {why}", show(x), show(w));
    Error::new(Kind::InvalidShape, what)
}

fn checked(attrs: &Attrs, x: &[Dim], w: &[Dim]) -> Result<i64> {
    let group = attrs.int("group")?;
    if x.len() < 3 || x.len() != w.len() {
        return Err(mismatch(x, w, group, "both need one rank of 3 or more"));
    }
    if !(1..=1 << 24).contains(&group) {
        return Err(Error::new(Kind::InvalidModel, format!("attribute \"group\" is {group}")));
    }
    if let Some(k) = attrs.ints("kernel_shape")?
        && k.iter().map(|k| Dim::from(*k)).ne(w[2..].iter().cloned())
    {
        return Err(mismatch(x, w, group, &format!("attribute \"kernel_shape\" is {k:?}")));
    }
    Ok(group)
}

fn bias(i: &Infer<'_>, at: usize, g: &Geometry) -> Result<()> {
    match i.optional(at) {
        Some(b) if b.shape != [g.channels()] => Err(Error::new(
            Kind::InvalidShape,
            format!("a bias of shape {} for {} output channels", show(&b.shape), g.channels()),
        )),
        _ => Ok(()),
    }
}

fn conv(i: &Infer<'_>, weights: usize, bias_at: usize, dtype: DType) -> Result<Vec<Type>> {
    let g = Geometry::new(i.attrs, i.shape(0)?, i.shape(weights)?)?;
    if bias_at < 9 {
        bias(i, bias_at, &g)?;
    }
    Ok(vec![Type::new(dtype, g.shape(i.shape(0)?))])
}

/// The attributes of DeformConv with the `auto_pad` that it lacks.
pub fn deform_attrs(attrs: &Attrs) -> Attrs {
    let mut attrs = attrs.clone();
    attrs.0.insert("auto_pad", crate::graph::AttrValue::Str("NOTSET".into()));
    attrs
}

fn deform(i: &Infer<'_>) -> Result<Vec<Type>> {
    let (x, w, offset) = (i.shape(0)?, i.shape(1)?, i.shape(2)?);
    let g = Geometry::new(&deform_attrs(i.attrs), x, w)?;
    bias(i, 3, &g)?;
    let groups = i.attrs.int("offset_group")?;
    let (n, taps) = (x.len() - 2, g.window.kernel().iter().fold(Dim::from(groups), |p, k| p.mul(k)));
    if groups < 1 || x[1].div_exact(&Dim::from(groups)).is_none() {
        return Err(Error::new(Kind::InvalidModel, format!("{} channels in {groups} offset groups", x[1])));
    }
    let want = |per: usize| [vec![x[0].clone(), taps.mul(&Dim::from(per))], g.window.out()].concat();
    if *offset != want(n) || i.optional(4).is_some_and(|m| m.shape != want(1)) {
        return Err(Error::new(
            Kind::InvalidShape,
            format!("offsets of shape {} where {} is needed", show(offset), show(&want(n))),
        ));
    }
    Ok(vec![Type::new(i.dtype(0)?, g.shape(x))])
}
