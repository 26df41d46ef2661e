//! What the benchmark needs of RTen: load an ONNX file, set inputs by name, run, read an output.

use rten::{Model, ModelOptions, NodeId, Value, ValueOrView};
use rten_tensor::Tensor;
use rten_tensor::prelude::*;
use wasm_bindgen::prelude::*;

/// A loaded model with its inputs, which stay from run to run.
#[wasm_bindgen]
pub struct Session {
    model: Model,
    inputs: Vec<(NodeId, Value)>,
    output: NodeId,
}

#[wasm_bindgen]
impl Session {
    /// Loads an ONNX file with weights packed ahead, and chooses the output that [`Session::run`] returns.
    #[wasm_bindgen(constructor)]
    pub fn new(onnx: Vec<u8>, output: &str) -> Result<Session, String> {
        let mut options = ModelOptions::with_all_ops();
        options.enable_optimization(true).prepack_weights(true);
        let model = options.load(onnx).map_err(|error| error.to_string())?;
        let output = model.node_id(output).map_err(|error| error.to_string())?;
        Ok(Session { model, inputs: Vec::new(), output })
    }

    /// Sets an f32 input.
    pub fn set_f32(&mut self, name: &str, shape: &[usize], data: &[f32]) -> Result<(), String> {
        self.set(name, Tensor::from_data(shape, data.to_vec()).into())
    }

    /// Sets an integer input; RTen computes integers in 32 bits.
    pub fn set_i32(&mut self, name: &str, shape: &[usize], data: &[i32]) -> Result<(), String> {
        self.set(name, Tensor::from_data(shape, data.to_vec()).into())
    }

    fn set(&mut self, name: &str, value: Value) -> Result<(), String> {
        let id = self.model.node_id(name).map_err(|error| error.to_string())?;
        self.inputs.retain(|(other, _)| *other != id);
        self.inputs.push((id, value));
        Ok(())
    }

    /// Runs the model and returns the output's elements in order.
    pub fn run(&self) -> Result<Vec<f32>, String> {
        let inputs: Vec<(NodeId, ValueOrView)> =
            self.inputs.iter().map(|(id, value)| (*id, value.as_view().into())).collect();
        let outputs = self.model.run(inputs, &[self.output], None).map_err(|error| error.to_string())?;
        let output = outputs.into_iter().next().ok_or("the model returned nothing")?;
        let tensor: Tensor<f32> = output.try_into().map_err(|_| "the output is not f32".to_owned())?;
        Ok(tensor.to_vec())
    }
}
