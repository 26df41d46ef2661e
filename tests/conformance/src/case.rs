//! A case of ONNX's backend tests: a model with inputs and the outputs that belong to them.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use nearside::compile::{Compiled, Engine, Options, compile};
use nearside::error::{Error, Kind, Result};
use nearside::kernel::Fusion;
use nearside::onnx::proto::{ModelProto, ValueInfoProto};
use nearside::onnx::{NoExternalData, tensor};
use nearside::tensor::{Array, DType, DimRange};
use prost::Message;

/// Inputs and outputs stand in the model's order.
pub(crate) struct Case {
    model: ModelProto,
    inputs: Vec<Input>,
    pub(crate) outputs: Vec<Array>,
}

struct Input {
    name: String,
    array: Array,
}

/// What comes of compiling a case.
pub(crate) struct Built {
    pub(crate) compiled: Compiled,
    /// In the order of the plan's inputs.
    pub(crate) inputs: Vec<Array>,
    /// The inputs that the build took as constants, because shapes depend on their values.
    pub(crate) bound: Vec<String>,
}

impl Case {
    /// Reads `model.onnx` and `test_data_set_0`.
    pub(crate) fn read(folder: &Path) -> Result<Case> {
        let model = ModelProto::decode(&read(&folder.join("model.onnx"))?[..])
            .map_err(|e| Error::new(Kind::InvalidModel, e.to_string()))?;
        let graph = model.graph.clone().unwrap_or_default();
        let data = folder.join("test_data_set_0");
        let mut inputs = Vec::new();
        for (i, port) in graph.input.iter().enumerate() {
            check_tensor(port)?;
            let array = tensor(&read(&data.join(format!("input_{i}.pb")))?)?;
            inputs.push(Input { name: port.name.clone(), array });
        }
        let outputs = (0..graph.output.len()).map(|i| {
            check_tensor(&graph.output[i])?;
            tensor(&read(&data.join(format!("output_{i}.pb")))?)
        });
        let outputs = outputs.collect::<Result<_>>()?;
        Ok(Case { model, inputs, outputs })
    }

    /// Compiles the model. Where that fails because shapes depend on inputs, those are bound, as `nearside build --constant`
    /// does: the integers of rank 0 and 1, or all inputs of rank 0 and 1 but the first. One input always remains, so that a
    /// device computes what is compared, and not the build.
    pub(crate) fn build(&self, fusion: Fusion, engine: &dyn Engine) -> Result<Built> {
        let first = match self.build_bound(fusion, engine, &|_, _| false) {
            Ok(built) => return Ok(built),
            Err(error) => error,
        };
        let small = |array: &Array| array.shape().len() <= 1;
        let integer = |array: &Array| matches!(array.dtype(), DType::Int64 | DType::Int32);
        let plans: [&dyn Fn(usize, &Array) -> bool; 2] =
            [&|_, array| small(array) && integer(array), &|i, array| i > 0 && small(array)];
        for plan in plans {
            let bound = self.inputs.iter().enumerate().filter(|(i, input)| plan(*i, &input.array)).count();
            if bound > 0
                && bound < self.inputs.len()
                && let Ok(built) = self.build_bound(fusion, engine, plan)
            {
                return Ok(built);
            }
        }
        Err(first)
    }

    fn build_bound(&self, fusion: Fusion, engine: &dyn Engine, bind: &dyn Fn(usize, &Array) -> bool) -> Result<Built> {
        let mut dims = BTreeMap::new();
        let (mut constants, mut bound) = (Vec::new(), Vec::new());
        for (_, input) in self.inputs.iter().enumerate().filter(|(i, input)| bind(*i, &input.array)) {
            constants.push((input.name.clone(), input.array.clone()));
            bound.push(input.name.clone());
        }
        let ports = self.model.graph.iter().flat_map(|graph| &graph.input);
        for (port, input) in ports.zip(&self.inputs).filter(|(port, _)| !bound.contains(&port.name)) {
            let shape = port.r#type.as_ref().and_then(|t| t.tensor_type.as_ref()?.shape.as_ref());
            for (dim, n) in shape.iter().flat_map(|s| &s.dim).zip(input.array.shape()) {
                if let Some(name) = dim.dim_param.as_ref().filter(|name| !name.is_empty()) {
                    let n = i64::try_from(*n).unwrap_or(i64::MAX);
                    dims.insert(name.as_str().into(), DimRange { min: n, max: n });
                }
            }
        }
        let options = Options { name: "case".into(), dims, constants, fusion, ..Options::default() };
        let compiled = compile(&self.model.encode_to_vec(), &NoExternalData, &options, engine)?;
        let inputs = compiled.plan.inputs.iter().map(|port| {
            let input = self.inputs.iter().find(|input| input.name == port.name);
            input.map(|input| input.array.clone()).ok_or_else(|| Error::new(Kind::Internal, "an input of no one"))
        });
        let inputs = inputs.collect::<Result<_>>()?;
        Ok(Built { compiled, inputs, bound })
    }
}

fn check_tensor(port: &ValueInfoProto) -> Result<()> {
    if port.r#type.as_ref().is_some_and(|t| t.tensor_type.is_some()) {
        return Ok(());
    }
    Err(Error::new(Kind::UnsupportedType, format!("\"{}\" is not a tensor", port.name)))
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).map_err(|e| Error::new(Kind::Io, format!("{}: {e}", path.display())))
}
