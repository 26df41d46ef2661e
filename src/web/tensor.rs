//! Tensors as they cross.

use crate::error::{Error, Result};
use crate::tensor::{Array, DType};
use serde::{Deserialize, Serialize};

/// A tensor on its way between the two: `bytes` are little-endian elements.
#[derive(Serialize, Deserialize)]
pub(super) struct Tensor {
    #[serde(rename = "type")]
    dtype: DType,
    dims: Vec<usize>,
    #[serde(with = "serde_bytes_js")]
    bytes: Vec<u8>,
}

/// Byte arrays as `Uint8Array`.
mod serde_bytes_js {
    use serde::{Deserializer, Serializer, de::Visitor};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], s: S) -> Result<S::Ok, S::Error> {
        s.serialize_bytes(bytes)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<u8>, D::Error> {
        struct Bytes;
        impl Visitor<'_> for Bytes {
            type Value = Vec<u8>;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a Uint8Array")
            }
            fn visit_bytes<E>(self, v: &[u8]) -> Result<Vec<u8>, E> {
                Ok(v.to_vec())
            }
            fn visit_byte_buf<E>(self, v: Vec<u8>) -> Result<Vec<u8>, E> {
                Ok(v)
            }
        }
        d.deserialize_byte_buf(Bytes)
    }
}

impl From<&Array> for Tensor {
    fn from(a: &Array) -> Tensor {
        Tensor { dtype: a.dtype(), dims: a.shape().to_vec(), bytes: a.bytes().to_vec() }
    }
}

impl TryFrom<Tensor> for Array {
    type Error = Error;

    fn try_from(t: Tensor) -> Result<Array> {
        Array::new(t.dtype, t.dims, t.bytes)
    }
}
