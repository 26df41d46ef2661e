//! A model's signature as programs see it: names, types, shapes, bounds of symbolic dims.

use crate::plan::{Plan, Port};
use crate::tensor::{DType, Dim};
use serde::Serialize;

/// Inputs, outputs and symbolic dims of a model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Signature {
    pub name: String,
    pub version: String,
    pub inputs: Vec<PortInfo>,
    pub outputs: Vec<PortInfo>,
    pub dims: Vec<DimInfo>,
}

/// An input or output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PortInfo {
    pub name: String,
    #[serde(rename = "type")]
    pub dtype: DType,
    pub shape: Vec<Extent>,
}

/// An axis of a port: a number, or an expression over symbolic dims such as `seq`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Extent {
    Known(i64),
    Symbolic(String),
}

/// A symbolic dim and its bounds, both inclusive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DimInfo {
    pub name: String,
    pub min: i64,
    pub max: i64,
}

impl Signature {
    /// The signature of a plan.
    pub fn of(plan: &Plan) -> Signature {
        let ports = |all: &[Port]| all.iter().map(PortInfo::of).collect();
        let dims = plan.dims.iter();
        Signature {
            name: plan.name.clone(),
            version: plan.version.clone(),
            inputs: ports(&plan.inputs),
            outputs: ports(&plan.outputs),
            dims: dims.map(|d| DimInfo { name: d.name.to_string(), min: d.range.min, max: d.range.max }).collect(),
        }
    }
}

impl PortInfo {
    fn of(port: &Port) -> PortInfo {
        let extent = |d: &Dim| d.known().map_or_else(|| Extent::Symbolic(d.to_string()), Extent::Known);
        PortInfo { name: port.name.clone(), dtype: port.dtype, shape: port.shape.iter().map(extent).collect() }
    }
}
