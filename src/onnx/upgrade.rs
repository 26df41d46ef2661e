//! Nodes of older operator sets in the form of the newest.
//!
//! What changed, and when, stands at <https://github.com/onnx/onnx/blob/main/docs/Changelog.md>. Where a newer form only
//! takes more types, or has an attribute more whose default is the old behaviour, there is nothing to do.

use super::node::{RawAttr, RawNode, Replacement};
use crate::error::{Error, Kind, Result};
use crate::graph::AttrValue;
use crate::tensor::Array;

/// Brings `raw`, a node of `opset`, to the newest form, which may take other nodes and constants before it.
pub(super) fn node(mut raw: RawNode, opset: i64, out: &mut Replacement) -> Result<()> {
    match raw.op.as_str() {
        "Squeeze" | "Unsqueeze" | "ReduceSum" if opset < 13 => list_to_input(&mut raw, out, "axes", 1)?,
        "ReduceL1" | "ReduceL2" | "ReduceLogSum" | "ReduceLogSumExp" | "ReduceMax" | "ReduceMean" | "ReduceMin"
        | "ReduceProd" | "ReduceSumSquare"
            if opset < 18 =>
        {
            list_to_input(&mut raw, out, "axes", 1)?;
        }
        "Slice" if opset < 10 => {
            list_to_input(&mut raw, out, "starts", 1)?;
            list_to_input(&mut raw, out, "ends", 2)?;
            list_to_input(&mut raw, out, "axes", 3)?;
        }
        "Split" => split(&mut raw, opset, out)?,
        "Clip" if opset < 11 => clip(&mut raw, out)?,
        "Pad" if opset < 11 => {
            list_to_input(&mut raw, out, "pads", 1)?;
            if let Some(x) = raw.take_float("value")?.filter(|x| *x != 0.0) {
                let value = like_data(&raw, out, "value", x)?;
                raw.set_input(2, value);
            }
        }
        "TopK" if opset < 10 => {
            let k = raw.take_int("k")?.ok_or_else(|| missing(&raw, "k"))?;
            let k = out.ints(&raw, "k", &[k])?;
            raw.set_input(1, k);
        }
        "Dropout" if opset < 12 => {
            // Before opset 12 a model was exported for inference or not at all: nothing is dropped.
            if let Some(ratio) = raw.take_float("ratio")? {
                let ratio = out.constant(&raw, "ratio", Array::from_f32(vec![], &[ratio])?);
                raw.set_input(1, ratio);
            }
            if opset < 10 && raw.wants(1) {
                return Err(refused(&raw, opset, "its mask, which was of the data's type"));
            }
        }
        "Softmax" | "LogSoftmax" | "Hardmax" if opset < 13 => {
            // Then the data was seen as a matrix whose columns begin at the axis.
            raw.attrs.entry("axis".into()).or_insert(RawAttr::Value(AttrValue::Int(1)));
            raw.internal.push(("coerce", 1));
        }
        "BatchNormalization" if opset < 14 => batch_normalization(&mut raw, opset)?,
        "GroupNormalization" if opset < 21 => group_normalization(&mut raw, out)?,
        "Upsample" => upsample(&mut raw, opset, out)?,
        "Resize" if opset < 11 => resize_10(&mut raw),
        "Scatter" => raw.op = "ScatterElements".into(),
        "GridSample" if opset < 20 => {
            let newer = match raw.str("mode") {
                Some("bilinear") => Some("linear"),
                Some("bicubic") => Some("cubic"),
                _ => None,
            };
            if let Some(mode) = newer {
                raw.set("mode", AttrValue::Str(mode.into()));
            }
        }
        "RoiAlign" if opset < 16 => {
            raw.set("coordinate_transformation_mode", AttrValue::Str("output_half_pixel".into()))
        }
        "DFT" if opset < 20 => {
            let axis = raw.take_int("axis")?.unwrap_or(1);
            let axis = out.constant(&raw, "axis", Array::from_i64(vec![], &[axis])?);
            raw.set_input(2, axis);
        }
        "Scan" if opset < 9 => return Err(refused(&raw, opset, "sequences of several lengths in a batch")),
        _ => {}
    }
    out.nodes.push(raw);
    Ok(())
}

fn missing(raw: &RawNode, attr: &str) -> Error {
    Error::new(Kind::InvalidModel, format!("{} has no attribute \"{attr}\"", raw.op))
}

fn refused(raw: &RawNode, opset: i64, what: &str) -> Error {
    Error::new(Kind::UnsupportedOp, format!("{} of opset {opset} with {what}, is not supported", raw.op))
        .help("export the model with a newer opset")
}

/// A list of integers that became an input. Where it was absent or empty, the input is absent.
fn list_to_input(raw: &mut RawNode, out: &mut Replacement, name: &str, input: usize) -> Result<()> {
    if let Some(list) = raw.take_ints(name)?.filter(|l| !l.is_empty()) {
        let constant = out.ints(raw, name, &list)?;
        raw.set_input(input, constant);
    }
    Ok(())
}

/// A scalar constant of the type of the node's data, which only inference knows: a cast that folds away.
fn like_data(raw: &RawNode, out: &mut Replacement, what: &str, x: f32) -> Result<String> {
    let constant = out.constant(raw, &format!("{what}_f32"), Array::from_f32(vec![], &[x])?);
    let data = raw.input(0).unwrap_or_default().to_owned();
    Ok(out.node(raw, "CastLike", what, &[&constant, &data], &[]))
}

fn split(raw: &mut RawNode, opset: i64, out: &mut Replacement) -> Result<()> {
    if opset < 13 {
        list_to_input(raw, out, "split", 1)?;
    }
    if raw.input(1).is_none() && !raw.attrs.contains_key("num_outputs") {
        // Before opset 18 the number of outputs alone said into how many parts.
        let parts = i64::try_from(raw.outputs.len()).unwrap_or(i64::MAX);
        raw.set("num_outputs", AttrValue::Int(parts));
    }
    Ok(())
}

fn clip(raw: &mut RawNode, out: &mut Replacement) -> Result<()> {
    for (name, input, open) in [("min", 1, f32::MIN), ("max", 2, f32::MAX)] {
        if let Some(x) = raw.take_float(name)?.filter(|x| *x != open && x.is_finite()) {
            let bound = like_data(raw, out, name, x)?;
            raw.set_input(input, bound);
        }
    }
    Ok(())
}

fn batch_normalization(raw: &mut RawNode, opset: i64) -> Result<()> {
    if raw.take_int("spatial")? == Some(0) {
        return Err(refused(raw, opset, "statistics of each place (spatial = 0)"));
    }
    if (1..raw.outputs.len()).any(|i| raw.wants(i)) {
        // Outputs beyond the first asked for training.
        if raw.wants(3) || raw.wants(4) {
            return Err(refused(raw, opset, "its saved statistics"));
        }
        raw.set("training_mode", AttrValue::Int(1));
    }
    raw.outputs.truncate(3);
    Ok(())
}

/// Scale and bias had one element a group and now have one a channel.
fn group_normalization(raw: &mut RawNode, out: &mut Replacement) -> Result<()> {
    let groups = match raw.attrs.get("num_groups") {
        Some(RawAttr::Value(AttrValue::Int(n))) if *n > 0 => *n,
        _ => return Err(missing(raw, "num_groups")),
    };
    let data = raw.input(0).unwrap_or_default().to_owned();
    let channels = out.node(raw, "Shape", "channels", &[&data], &[("start", 1), ("end", 2)]);
    let count = out.ints(raw, "groups", &[groups])?;
    let each = out.node(raw, "Div", "channels_of_group", &[&channels, &count], &[]);
    let shape = out.node(raw, "Concat", "by_group", &[&count, &each], &[("axis", 0)]);
    let one = out.ints(raw, "one", &[1])?;
    for (i, what) in [(1, "scale"), (2, "bias")] {
        let Some(old) = raw.input(i).map(str::to_owned) else { continue };
        let column = out.node(raw, "Unsqueeze", &format!("{what}_column"), &[&old, &one], &[]);
        let wide = out.node(raw, "Expand", &format!("{what}_by_group"), &[&column, &shape], &[]);
        let flat = out.node(raw, "Reshape", &format!("{what}_by_channel"), &[&wide, &channels], &[]);
        raw.set_input(i, flat);
    }
    Ok(())
}

/// Upsample became a case of Resize.
fn upsample(raw: &mut RawNode, opset: i64, out: &mut Replacement) -> Result<()> {
    if opset < 9 {
        let scales = raw.take_floats("scales")?.ok_or_else(|| missing(raw, "scales"))?;
        let scales = out.constant(raw, "scales", Array::from_f32(vec![scales.len()], &scales)?);
        raw.set_input(1, scales);
    }
    raw.op = "Resize".into();
    resize_10(raw);
    Ok(())
}

/// Resize took (data, scales) and knew one way of placing samples.
fn resize_10(raw: &mut RawNode) {
    if let Some(scales) = raw.input(1).map(str::to_owned) {
        raw.set_input(2, scales);
        raw.set_input(1, String::new());
    }
    raw.set("coordinate_transformation_mode", AttrValue::Str("asymmetric".into()));
    raw.set("nearest_mode", AttrValue::Str("floor".into()));
}
