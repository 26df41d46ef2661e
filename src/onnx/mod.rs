//! ONNX files to graphs: protobuf, external data, functions, older operator sets.

mod attribute;
mod build;
mod external;
#[cfg(test)]
mod fuzz;
mod node;
pub mod proto;
mod read;
mod tensor;
#[cfg(test)]
mod tests;
mod upgrade;

pub use external::{Buffers, ExternalData, Folder, NoExternalData, check_location};
pub use read::read;

use crate::error::{Error, Kind, Result};
use crate::tensor::Array;
use prost::Message;

/// The tensor of a file that holds one `TensorProto` alone, as ONNX's own test data do.
pub fn tensor(bytes: &[u8]) -> Result<Array> {
    let proto = proto::TensorProto::decode(bytes)
        .map_err(|e| Error::new(Kind::InvalidModel, format!("not a TensorProto: {e}")))?;
    tensor::array(proto, &NoExternalData)
}
