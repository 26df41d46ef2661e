//! Pooling: MaxPool, AveragePool, LpPool, GlobalMaxPool, GlobalAveragePool, GlobalLpPool, MaxUnpool, RoiAlign,
//! MaxRoiPool.

use super::rules::{absent, float, int, rank, required, row, string};
use super::window::{Window, spatial};
use super::{Attr, Op};
use crate::error::{Error, Kind, Result};
use crate::graph::Attrs;
use crate::graph::infer::{Infer, Type};
use crate::tensor::{DType, Dim, Shape, show};

const AUTO_PAD: Attr = string("auto_pad", "NOTSET");
const CEIL: Attr = int("ceil_mode", 0);
const DILATIONS: Attr = absent("dilations");
const KERNEL: Attr = required("kernel_shape");
const PADS: Attr = absent("pads");
const STRIDES: Attr = absent("strides");

pub(super) static ROWS: &[Op] = &[
    row(
        "AveragePool",
        &[1, 7, 10, 11, 19, 22],
        (1, 1),
        &[AUTO_PAD, CEIL, int("count_include_pad", 0), DILATIONS, KERNEL, PADS, STRIDES],
        pool,
    ),
    row("GlobalAveragePool", &[1, 22], (1, 1), &[], global),
    row("GlobalLpPool", &[1, 2, 22], (1, 1), &[int("p", 2)], global),
    row("GlobalMaxPool", &[1, 22], (1, 1), &[], global),
    row("LpPool", &[1, 2, 11, 18, 22], (1, 1), &[AUTO_PAD, CEIL, DILATIONS, KERNEL, int("p", 2), PADS, STRIDES], pool),
    Op {
        name: "MaxPool",
        since: &[1, 8, 10, 11, 12, 22],
        inputs: (1, 1),
        outputs: (1, 2),
        attrs: &[AUTO_PAD, CEIL, DILATIONS, KERNEL, PADS, int("storage_order", 0), STRIDES],
        infer: |i| {
            let mut types = pool(i)?;
            types.push(Type::new(DType::Int64, types[0].shape.clone()));
            Ok(types)
        },
    },
    row("MaxRoiPool", &[1, 22], (2, 2), &[required("pooled_shape"), float("spatial_scale", 1.0)], |i| {
        let size = spatial(i.attrs, "pooled_shape", 2, 1, 1)?;
        roi(i, 5, [size[0], size[1]])
    }),
    row("MaxUnpool", &[9, 11, 22], (2, 3), &[KERNEL, PADS, STRIDES], |i| {
        let pooled = unpooled(i.attrs, i.shape(0)?)?;
        if i.shape(1)? != i.shape(0)? {
            let (x, at) = (show(i.shape(0)?), show(i.shape(1)?));
            return Err(Error::new(Kind::InvalidShape, format!("indices of shape {at} for an input of shape {x}")));
        }
        let shape = match i.optional(2) {
            Some(_) => i.required_content(2, "the output's shape")?,
            None => pooled.clone(),
        };
        let small = |(a, b): (&Dim, &Dim)| matches!((a.known(), b.known()), (Some(a), Some(b)) if a < b);
        if shape.len() != pooled.len() || shape.iter().zip(&pooled).any(small) {
            return Err(Error::new(
                Kind::InvalidShape,
                format!("an output of shape {} where {} is unpooled", show(&shape), show(&pooled)),
            ));
        }
        Ok(vec![Type::new(i.dtype(0)?, shape)])
    }),
    row(
        "RoiAlign",
        &[10, 16, 22],
        (3, 3),
        &[
            string("coordinate_transformation_mode", "half_pixel"),
            string("mode", "avg"),
            int("output_height", 1),
            int("output_width", 1),
            int("sampling_ratio", 0),
            float("spatial_scale", 1.0),
        ],
        |i| roi(i, 4, [i.attrs.int("output_height")?, i.attrs.int("output_width")?]),
    ),
];

/// The window of a pooling node over an input of shape `x`.
pub fn window(attrs: &Attrs, x: &[Dim]) -> Result<Window> {
    if x.len() < 3 {
        return Err(Error::new(Kind::InvalidShape, format!("pooling of shape {}: it needs rank 3 or more", show(x))));
    }
    let kernel: Shape = spatial(attrs, "kernel_shape", x.len() - 2, 1, 1)?.into_iter().map(Dim::from).collect();
    let ceil = attrs.get("ceil_mode").is_some() && attrs.flag("ceil_mode")?;
    Window::new(attrs, x, &kernel, true, ceil)
}

/// The shape that a MaxUnpool's indices refer to: that of the tensor that was pooled to `x`.
pub fn unpooled(attrs: &Attrs, x: &[Dim]) -> Result<Shape> {
    let n = x.len().saturating_sub(2);
    if n == 0 {
        return Err(Error::new(Kind::InvalidShape, format!("unpooling of shape {}: it needs rank 3 or more", show(x))));
    }
    let kernel = spatial(attrs, "kernel_shape", n, 1, 1)?;
    let strides = spatial(attrs, "strides", n, 1, 1)?;
    let pads = spatial(attrs, "pads", n * 2, 0, 0)?;
    let mut shape = x[..2].to_vec();
    for i in 0..n {
        let rest = kernel[i] - pads[i] - pads[n + i];
        shape.push(x[i + 2].sub(&Dim::from(1)).mul(&Dim::from(strides[i])).add(&Dim::from(rest)));
    }
    if shape.iter().any(|d| d.known().is_some_and(|n| n < 0)) {
        return Err(Error::new(Kind::InvalidShape, format!("unpooling {} gives shape {}", show(x), show(&shape))));
    }
    Ok(shape)
}

fn pool(i: &Infer<'_>) -> Result<Vec<Type>> {
    let x = i.input(0)?;
    let w = window(i.attrs, &x.shape)?;
    Ok(vec![Type::new(x.dtype, [&x.shape[..2], &w.out()].concat())])
}

fn global(i: &Infer<'_>) -> Result<Vec<Type>> {
    let x = i.input(0)?;
    if x.shape.len() < 2 {
        return Err(Error::new(
            Kind::InvalidShape,
            format!("pooling of shape {}: it needs rank 2 or more", show(&x.shape)),
        ));
    }
    let shape = x.shape.iter().enumerate().map(|(n, d)| if n < 2 { d.clone() } else { Dim::from(1) }).collect();
    Ok(vec![Type::new(x.dtype, shape)])
}

fn roi(i: &Infer<'_>, columns: i64, size: [i64; 2]) -> Result<Vec<Type>> {
    let (x, rois) = (i.shape(0)?, i.shape(1)?);
    rank("the input", x, 4)?;
    rank("the regions", rois, 2)?;
    if rois[1] != Dim::from(columns) || size.iter().any(|n| !(1..=1 << 24).contains(n)) {
        return Err(Error::new(Kind::InvalidShape, format!("regions of shape {} pooled to {size:?}", show(rois))));
    }
    let shape = vec![rois[0].clone(), x[1].clone(), size[0].into(), size[1].into()];
    Ok(vec![Type::new(i.dtype(0)?, shape)])
}
