//! ONNX files to graphs: protobuf, external data, functions, older operator sets.

mod attribute;
mod build;
mod external;
mod node;
pub mod proto;
mod read;
mod tensor;
mod upgrade;

pub use external::{Buffers, ExternalData, Folder, NoExternalData};
pub use read::read;
