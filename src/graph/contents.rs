//! What a model consists of, for people.

use super::{Graph, ValueId, infer};
use crate::tensor::show;
use serde::Serialize;
use std::collections::BTreeMap;

/// What a model consists of. Inputs and outputs are texts such as `x: float32 [n, 3]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Contents {
    pub name: String,
    pub inputs: Vec<String>,
    pub outputs: Vec<String>,
    /// Operators and how often they stand, sorted by name.
    pub ops: Vec<(&'static str, usize)>,
    /// Elements of all constants.
    pub parameters: usize,
    /// Why the types of some values are not known, where they are not: a model may fit some sizes of its inputs only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub untyped: Option<String>,
}

impl Contents {
    /// Infers types and tells the contents of a graph.
    pub fn of(g: &mut Graph) -> Self {
        let untyped = infer::infer(g).err().map(|e| e.to_string());
        let port = |name: &str, v: ValueId| {
            let v = g.value(v);
            let dtype = v.dtype.map_or("?", |d| d.name());
            format!("{name}: {dtype} {}", v.shape.as_deref().map_or("?".into(), show))
        };
        let mut ops: BTreeMap<&'static str, usize> = BTreeMap::new();
        for n in &g.nodes {
            *ops.entry(n.op.name).or_default() += 1;
        }
        Contents {
            name: g.name.clone(),
            inputs: g.inputs.iter().map(|v| port(&g.value(*v).name, *v)).collect(),
            outputs: g.outputs.iter().map(|(n, v)| port(n, *v)).collect(),
            ops: ops.into_iter().collect(),
            parameters: g.values.iter().filter_map(|v| v.constant.as_ref()).map(|a| a.len()).sum(),
            untyped,
        }
    }
}
