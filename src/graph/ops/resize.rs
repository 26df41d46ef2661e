//! Resampling: Resize (which Upsample is brought to), GridSample, AffineGrid, CenterCropPad, Col2Im.

use super::Op;
use super::rules::{self, absent, float, int, rank, row, string};
use super::window::{Slide, spatial};
use crate::error::{Error, Kind, Result};
use crate::graph::Attrs;
use crate::graph::infer::{Infer, Type};
use crate::tensor::{Array, Dim, Shape, show};

pub(super) static ROWS: &[Op] = &[
    row("AffineGrid", &[20], (2, 2), &[int("align_corners", 0)], |i| {
        let (theta, size) = (i.shape(0)?, i.required_content(1, "the size of a grid")?);
        let n = size.len().saturating_sub(2);
        let per = Dim::from(n);
        let want = [size.first().cloned().unwrap_or(Dim::from(0)), per.clone(), per.add(&Dim::from(1))];
        if !(2..=3).contains(&n) || *theta != want {
            let what = format!("transformations of shape {} for a grid of size {}", show(theta), show(&size));
            return Err(Error::new(Kind::InvalidShape, what));
        }
        Ok(vec![Type::new(i.dtype(0)?, [&size[..1], &size[2..], &[per]].concat())])
    }),
    row("CenterCropPad", &[18], (2, 2), &[absent("axes")], |i| {
        let shape = centred(i.attrs, i.shape(0)?, &i.required_content(1, "the shape of a crop")?)?;
        Ok(vec![Type::new(i.dtype(0)?, shape)])
    }),
    row("Col2Im", &[18], (3, 3), &[absent("dilations"), absent("pads"), absent("strides")], |i| {
        let (image, block) =
            (i.required_content(1, "the shape of an image")?, i.required_content(2, "the shape of a block")?);
        let (channels, _) = columns(i.attrs, i.shape(0)?, &image, &block)?;
        Ok(vec![Type::new(i.dtype(0)?, [&[i.shape(0)?[0].clone(), channels], &image[..]].concat())])
    }),
    row(
        "GridSample",
        &[16, 20, 22],
        (2, 2),
        &[int("align_corners", 0), string("mode", "linear"), string("padding_mode", "zeros")],
        |i| {
            let (x, grid) = (i.shape(0)?, i.shape(1)?);
            let n = x.len().saturating_sub(2);
            if n == 0 || grid.len() != x.len() || grid[0] != x[0] || !grid[n + 1].is(i64::try_from(n).unwrap_or(0)) {
                let what = format!("a grid of shape {} for an input of shape {}", show(grid), show(x));
                return Err(Error::new(Kind::InvalidShape, what));
            }
            Ok(vec![Type::new(i.dtype(0)?, [&x[..2], &grid[1..=n]].concat())])
        },
    ),
    row(
        "Resize",
        &[10, 11, 13, 18, 19],
        (1, 4),
        &[
            int("antialias", 0),
            absent("axes"),
            string("coordinate_transformation_mode", "half_pixel"),
            float("cubic_coeff_a", -0.75),
            int("exclude_outside", 0),
            float("extrapolation_value", 0.0),
            string("keep_aspect_ratio_policy", "stretch"),
            string("mode", "nearest"),
            string("nearest_mode", "round_prefer_floor"),
        ],
        |i| {
            let scales = floats(i, 2)?;
            let sizes = match i.optional(3) {
                Some(t) if t.shape.iter().any(|d| d.is(0)) => None,
                Some(_) => Some(i.required_content(3, "the sizes of a resize")?),
                None => None,
            };
            let r = Resampling::new(i.attrs, i.shape(0)?, scales.as_deref(), sizes.as_deref())?;
            Ok(vec![Type::new(i.dtype(0)?, r.shape())])
        },
    ),
];

fn floats(i: &Infer<'_>, at: usize) -> Result<Option<Vec<f64>>> {
    match (i.optional(at), i.constants.get(at).and_then(Option::as_ref)) {
        (None, _) => Ok(None),
        (Some(t), _) if t.shape.iter().any(|d| d.is(0)) => Ok(None),
        (Some(_), Some(a)) => Ok(Array::to_f64(a)),
        (Some(_), None) => Err(rules::depends_on_data("the scales of a resize")),
    }
}

/// How an operator resizes the axes of its input.
#[derive(Debug, Clone, PartialEq)]
pub struct Resampling {
    /// The input's shape.
    pub input: Shape,
    /// The axes that change, in order.
    pub axes: Vec<Resized>,
}

/// How an axis is resized.
#[derive(Debug, Clone, PartialEq)]
pub struct Resized {
    pub axis: usize,
    /// Where the axis stands in the regions of interest.
    pub roi: usize,
    pub size: Dim,
    pub out: Dim,
    /// The scale, where it was given; otherwise it is `out / size`.
    pub scale: Option<f64>,
}

impl Resampling {
    pub fn new(attrs: &Attrs, x: &[Dim], scales: Option<&[f64]>, sizes: Option<&[Dim]>) -> Result<Self> {
        let bad = |why: String| Error::new(Kind::InvalidShape, format!("resizing {}: {why}", show(x)));
        let axes = match attrs.ints("axes")? {
            Some(list) => rules::axes(list, x.len())?,
            None => (0..x.len()).collect(),
        };
        let given = scales.map(<[f64]>::len).or(sizes.map(<[Dim]>::len));
        if given != Some(axes.len()) {
            return Err(bad(format!("{} scales or sizes for {} axes", given.unwrap_or(0), axes.len())));
        }
        let mut all = vec![];
        for (n, axis) in axes.iter().enumerate() {
            let size = x[*axis].clone();
            let (out, scale) = match (scales, sizes) {
                (Some(s), _) => {
                    (scaled(&size, s[n]).ok_or_else(|| bad(format!("scale {} of {size}", s[n])))?, Some(s[n]))
                }
                (None, Some(s)) => (s[n].clone(), None),
                (None, None) => (size.clone(), None),
            };
            all.push(Resized { axis: *axis, roi: n, size, out, scale });
        }
        if scales.is_none() && attrs.str("keep_aspect_ratio_policy")? != "stretch" {
            keep_aspect_ratio(attrs, &mut all)?;
        }
        if let Some(r) = all.iter().find(|r| r.out.known().is_some_and(|n| n < 1)) {
            return Err(bad(format!("axis {} becomes {}", r.axis, r.out)));
        }
        let whole = attrs.str("coordinate_transformation_mode")? == "tf_crop_and_resize";
        all.retain(|r| whole || r.out != r.size || r.scale.is_some_and(|s| s != 1.0));
        all.sort_by_key(|r| r.axis);
        Ok(Resampling { input: x.to_vec(), axes: all })
    }

    /// The output's shape.
    pub fn shape(&self) -> Shape {
        let mut shape = self.input.clone();
        for r in &self.axes {
            shape[r.axis] = r.out.clone();
        }
        shape
    }
}

/// `⌊size · scale⌋`; a symbolic size takes scales that are fractions of small numbers.
#[allow(clippy::cast_possible_truncation, clippy::cast_precision_loss)]
fn scaled(size: &Dim, scale: f64) -> Option<Dim> {
    if !(scale > 0.0 && scale < 1e6) {
        return None;
    }
    match size.known() {
        // As the specification's shape inference computes it: in single precision.
        Some(n) => Some(Dim::from((n as f32 * scale as f32).floor() as i64)),
        None => (1..=64i64).find_map(|q| {
            let p = (scale * q as f64).round();
            (p as f32 / q as f32 == scale as f32).then(|| size.mul(&Dim::from(p as i64)).floor_div(&Dim::from(q)))
        }),
    }
}

/// One scale for all axes, the least or the greatest that the sizes ask for.
#[allow(clippy::cast_possible_truncation, clippy::cast_precision_loss)]
fn keep_aspect_ratio(attrs: &Attrs, all: &mut [Resized]) -> Result<()> {
    let policy = attrs.str("keep_aspect_ratio_policy")?;
    let ratios: Option<Vec<f64>> =
        all.iter().map(|r| Some(r.out.known()? as f64 / r.size.known().filter(|n| *n > 0)? as f64)).collect();
    let scale = match (ratios, policy) {
        (Some(r), "not_larger") => r.into_iter().fold(f64::INFINITY, f64::min),
        (Some(r), "not_smaller") => r.into_iter().fold(0.0, f64::max),
        (None, _) => return Err(rules::depends_on_data("a resize that keeps the aspect ratio")),
        _ => {
            let what = format!("attribute \"keep_aspect_ratio_policy\" is \"{policy}\"");
            return Err(Error::new(Kind::InvalidModel, what));
        }
    };
    for r in all {
        let size = r.size.known().unwrap_or(0) as f64;
        r.out = Dim::from((scale * size + 0.5) as i64);
        r.scale = Some(scale);
    }
    Ok(())
}

/// The shape of a CenterCropPad of `x` to `shape` along the node's axes.
pub fn centred(attrs: &Attrs, x: &[Dim], shape: &[Dim]) -> Result<Shape> {
    let axes = match attrs.ints("axes")? {
        Some(list) => rules::axes(list, x.len())?,
        None => (0..x.len()).collect(),
    };
    if axes.len() != shape.len() || shape.iter().any(|d| d.known().is_some_and(|n| n < 0)) {
        let what = format!("cropping {} to {} along axes {axes:?}", show(x), show(shape));
        return Err(Error::new(Kind::InvalidShape, what));
    }
    let mut out = x.to_vec();
    for (axis, d) in axes.iter().zip(shape) {
        out[*axis] = d.clone();
    }
    Ok(out)
}

/// The channels of the image that the columns of shape `x` make, and the slides of the block over it: `size` counts the
/// blocks along an axis, `out` the image.
pub fn columns(attrs: &Attrs, x: &[Dim], image: &[Dim], block: &[Dim]) -> Result<(Dim, Vec<Slide>)> {
    rank("columns", x, 3)?;
    let n = image.len();
    let bad = |why: &str| {
        let what = format!("columns {} of blocks {} of an image {}: {why}", show(x), show(block), show(image));
        Error::new(Kind::InvalidShape, what)
    };
    if block.len() != n || n == 0 {
        return Err(bad("the ranks differ"));
    }
    let strides = spatial(attrs, "strides", n, 1, 1)?;
    let dilations = spatial(attrs, "dilations", n, 1, 1)?;
    let pads = spatial(attrs, "pads", n * 2, 0, 0)?;
    let mut slides = vec![];
    let (mut taps, mut blocks) = (Dim::from(1), Dim::from(1));
    for i in 0..n {
        let mut s = Slide {
            size: Dim::from(0),
            kernel: block[i].clone(),
            stride: strides[i],
            dilation: dilations[i],
            begin: Dim::from(pads[i]),
            end: Dim::from(pads[n + i]),
            out: image[i].clone(),
            overhangs: true,
        };
        let free = s.out.add(&s.begin).add(&s.end).sub(&s.span());
        s.size = free.floor_div(&Dim::from(s.stride)).add(&Dim::from(1));
        taps = taps.mul(&s.kernel);
        blocks = blocks.mul(&s.size);
        slides.push(s);
    }
    if blocks != x[2] || taps.known().is_none_or(|n| n < 1) {
        return Err(bad(&format!("there are {blocks} blocks")));
    }
    let channels = x[1].div_exact(&taps).ok_or_else(|| bad("the channels are no multiple of the block's size"))?;
    Ok((channels, slides))
}
