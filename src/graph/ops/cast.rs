//! Conversions between data types (ai.onnx).
//!
//! BitCast Cast CastLike

use super::Op;
use super::rules::{int, required, row};
use crate::error::{Error, Kind, Result};
use crate::graph::attrs::{AttrValue, Attrs};
use crate::graph::infer::{Infer, Type};
use crate::tensor::DType;

pub(super) const ROWS: &[Op] = &[
    row("BitCast", &[26], (1, 1), &[required("to")], bit_cast),
    row(
        "Cast",
        &[6, 19],
        (1, 1),
        &[int("saturate", 1), required("to"), super::rules::string("round_mode", "up")],
        |i| cast(i, dtype(i.attrs, "to")?),
    ),
    row("CastLike", &[15, 19], (2, 2), &[int("saturate", 1), super::rules::string("round_mode", "up")], |i| {
        cast(i, i.dtype(1)?)
    }),
];

/// The data type that an attribute names.
pub fn dtype(attrs: &Attrs, name: &str) -> Result<DType> {
    let number = match attrs.get(name) {
        Some(AttrValue::Type(d)) => return Ok(*d),
        Some(AttrValue::Int(n)) => *n,
        _ => return Err(Error::new(Kind::InvalidModel, format!("attribute \"{name}\" is not a data type"))),
    };
    i32::try_from(number).ok().and_then(DType::from_onnx).ok_or_else(|| {
        Error::new(Kind::UnsupportedType, format!("attribute \"{name}\" names data type {number} of TensorProto"))
    })
}

fn cast(i: &Infer<'_>, to: DType) -> Result<Vec<Type>> {
    let t = i.input(0)?;
    Ok(vec![Type::new(to, t.shape.clone())])
}

/// The same bits under another type of the same size.
fn bit_cast(i: &Infer<'_>) -> Result<Vec<Type>> {
    let (t, to) = (i.input(0)?, dtype(i.attrs, "to")?);
    if t.dtype.size() != to.size() {
        let e = format!("BitCast from {} to {to}, which are not of one size", t.dtype);
        return Err(Error::new(Kind::InvalidModel, e));
    }
    let wide = t.dtype != to && (t.dtype.is_float() || to.is_float()) && to.size() != 4;
    if wide {
        return Err(Error::new(Kind::UnsupportedType, format!("BitCast from {} to {to}", t.dtype)));
    }
    Ok(vec![Type::new(to, t.shape.clone())])
}
