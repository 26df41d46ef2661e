//! Normalizations: BatchNormalization, InstanceNormalization, LayerNormalization, GroupNormalization, RMSNormalization,
//! LRN, LpNormalization, MeanVarianceNormalization.

use super::rules::{absent, axis, broadcast, float, int, required, row};
use super::{Op, rules};
use crate::error::{Error, Kind, Result};
use crate::graph::infer::{Infer, Type};
use crate::tensor::{DType, Dim, show};

pub(super) static ROWS: &[Op] = &[
    Op {
        name: "BatchNormalization",
        since: &[1, 6, 7, 9, 14, 15],
        inputs: (5, 5),
        outputs: (1, 3),
        attrs: &[float("epsilon", 1e-5), float("momentum", 0.9), int("training_mode", 0)],
        infer: |i| {
            let types = channels(i, 1..5)?;
            if i.outputs > 1 && !i.attrs.flag("training_mode")? {
                return Err(Error::new(
                    Kind::InvalidModel,
                    "running mean and variance are outputs in training mode only",
                ));
            }
            Ok([types, vec![i.input(3)?.clone(), i.input(4)?.clone()]].concat())
        },
    },
    row(
        "GroupNormalization",
        &[18, 21],
        (3, 3),
        &[float("epsilon", 1e-5), required("num_groups"), int("stash_type", 1)],
        |i| {
            let types = channels(i, 1..3)?;
            let groups = i.attrs.int("num_groups")?;
            if groups < 1 || types[0].shape[1].div_exact(&Dim::from(groups)).is_none() {
                let what = format!("{} channels in {groups} groups", types[0].shape[1]);
                return Err(Error::new(Kind::InvalidShape, what));
            }
            Ok(types)
        },
    ),
    row("InstanceNormalization", &[1, 6, 22], (3, 3), &[float("epsilon", 1e-5)], |i| channels(i, 1..3)),
    row(
        "LRN",
        &[1, 13],
        (1, 1),
        &[float("alpha", 1e-4), float("beta", 0.75), float("bias", 1.0), required("size")],
        |i| {
            if !(1..=1 << 24).contains(&i.attrs.int("size")?) {
                return Err(Error::new(Kind::InvalidModel, "attribute \"size\" is not positive"));
            }
            channels(i, 1..1)
        },
    ),
    Op {
        name: "LayerNormalization",
        since: &[17],
        inputs: (2, 3),
        outputs: (1, 3),
        attrs: &[int("axis", -1), float("epsilon", 1e-5), int("stash_type", 1)],
        infer: |i| {
            let y = normalized(i)?;
            let stash =
                DType::from_onnx(i32::try_from(i.attrs.int("stash_type")?).unwrap_or(0)).filter(|d| d.is_float());
            let Some(stash) = stash else {
                return Err(Error::new(Kind::InvalidModel, "attribute \"stash_type\" is no floating-point type"));
            };
            let first = axis(i.attrs.int("axis")?, y.shape.len())?;
            let rows =
                y.shape.iter().enumerate().map(|(n, d)| if n < first { d.clone() } else { Dim::from(1) }).collect();
            let statistic = Type::new(stash, rows);
            Ok(vec![y, statistic.clone(), statistic])
        },
    },
    row("LpNormalization", &[1, 22], (1, 1), &[int("axis", -1), int("p", 2)], |i| {
        axis(i.attrs.int("axis")?, i.shape(0)?.len())?;
        rules::same(i)
    }),
    row("MeanVarianceNormalization", &[9, 13], (1, 1), &[absent("axes")], |i| {
        rules::axes(i.attrs.ints("axes")?.unwrap_or(&[0, 2, 3]), i.shape(0)?.len())?;
        rules::same(i)
    }),
    row("RMSNormalization", &[23], (2, 2), &[int("axis", -1), float("epsilon", 1e-5), int("stash_type", 1)], |i| {
        Ok(vec![normalized(i)?])
    }),
];

/// The type of input 0, which has channels on axis 1; the inputs `parameters` have one element a channel.
fn channels(i: &Infer<'_>, parameters: std::ops::Range<usize>) -> Result<Vec<Type>> {
    let x = i.input(0)?;
    let Some(c) = x.shape.get(1) else {
        return Err(Error::new(Kind::InvalidShape, format!("an input of shape {} has no channels", show(&x.shape))));
    };
    for n in parameters {
        let p = i.shape(n)?;
        if p != std::slice::from_ref(c) {
            return Err(Error::new(
                Kind::InvalidShape,
                format!("input {n} has shape {} where [{c}] is needed, one element a channel", show(p)),
            ));
        }
    }
    Ok(vec![Type::new(x.dtype, x.shape.clone())])
}

/// The type of input 0; the other inputs broadcast to it.
fn normalized(i: &Infer<'_>) -> Result<Type> {
    let x = i.input(0)?;
    axis(i.attrs.int("axis")?, x.shape.len())?;
    for p in i.inputs.iter().skip(1).flatten() {
        if broadcast(&x.shape, &p.shape)? != x.shape {
            let what = format!("a scale or bias of shape {} for an input of shape {}", show(&p.shape), show(&x.shape));
            return Err(Error::new(Kind::InvalidShape, what));
        }
    }
    Ok(Type::new(x.dtype, x.shape.clone()))
}
