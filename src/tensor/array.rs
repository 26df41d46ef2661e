//! Constant tensors: raw little-endian bytes with a data type and a known shape.

use super::DType;
use crate::error::{Error, Kind, Result};
use std::sync::Arc;

/// A constant tensor. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Array {
    dtype: DType,
    shape: Vec<usize>,
    bytes: Arc<[u8]>,
}

impl Array {
    /// From little-endian bytes. The length must be exactly the shape's.
    pub fn new(dtype: DType, shape: Vec<usize>, bytes: impl Into<Arc<[u8]>>) -> Result<Self> {
        let bytes = bytes.into();
        let want = shape.iter().try_fold(dtype.size(), |n, d| n.checked_mul(*d));
        if want != Some(bytes.len()) {
            return Err(Error::new(
                Kind::InvalidModel,
                format!("{dtype} tensor of shape {shape:?} with {} bytes of data", bytes.len()),
            ));
        }
        Ok(Array { dtype, shape, bytes })
    }

    /// A float32 tensor.
    pub fn from_f32(shape: Vec<usize>, data: &[f32]) -> Result<Self> {
        Array::new(DType::Float32, shape, data.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>())
    }

    /// An int64 tensor.
    pub fn from_i64(shape: Vec<usize>, data: &[i64]) -> Result<Self> {
        Array::new(DType::Int64, shape, data.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>())
    }

    pub fn dtype(&self) -> DType {
        self.dtype
    }

    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The number of elements.
    pub fn len(&self) -> usize {
        self.bytes.len() / self.dtype.size()
    }

    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Little-endian bytes, row-major.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The same data under another shape of as many elements.
    pub fn reshaped(&self, shape: Vec<usize>) -> Result<Self> {
        Array::new(self.dtype, shape, Arc::clone(&self.bytes))
    }

    /// The elements as integers, where the type is an integer type or bool. Uint64 above `i64::MAX` is `None`.
    pub fn to_i64(&self) -> Option<Vec<i64>> {
        let b = &self.bytes[..];
        fn each<const N: usize>(b: &[u8], f: impl Fn([u8; N]) -> i64) -> Vec<i64> {
            b.as_chunks::<N>().0.iter().map(|c| f(*c)).collect()
        }
        Some(match self.dtype {
            DType::Int8 => each(b, |c| i64::from(i8::from_le_bytes(c))),
            DType::Uint8 | DType::Bool => each(b, |c| i64::from(u8::from_le_bytes(c))),
            DType::Int16 => each(b, |c| i64::from(i16::from_le_bytes(c))),
            DType::Uint16 => each(b, |c| i64::from(u16::from_le_bytes(c))),
            DType::Int32 => each(b, |c| i64::from(i32::from_le_bytes(c))),
            DType::Uint32 => each(b, |c| i64::from(u32::from_le_bytes(c))),
            DType::Int64 => each(b, i64::from_le_bytes),
            DType::Uint64 => {
                let all = b.as_chunks::<8>().0.iter().map(|c| i64::try_from(u64::from_le_bytes(*c)).ok());
                return all.collect();
            }
            _ => return None,
        })
    }

    /// The elements as `f64`, where the type is a floating-point type.
    pub fn to_f64(&self) -> Option<Vec<f64>> {
        let b = &self.bytes[..];
        Some(match self.dtype {
            DType::Float32 => b.as_chunks().0.iter().map(|c| f64::from(f32::from_le_bytes(*c))).collect(),
            DType::Float64 => b.as_chunks().0.iter().map(|c| f64::from_le_bytes(*c)).collect(),
            DType::Float16 => b.as_chunks().0.iter().map(|c| half::f16::from_le_bytes(*c).to_f64()).collect(),
            DType::BFloat16 => b.as_chunks().0.iter().map(|c| half::bf16::from_le_bytes(*c).to_f64()).collect(),
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_a_length_that_is_not_the_shapes() {
        let e = Array::new(DType::Int16, vec![3], vec![0u8; 5]).err().map(|e| e.kind());
        assert_eq!(e, Some(Kind::InvalidModel));
        let e = Array::new(DType::Int64, vec![usize::MAX, 4], vec![0u8; 8]).err().map(|e| e.kind());
        assert_eq!(e, Some(Kind::InvalidModel));
    }

    #[test]
    fn reads_integers() {
        let a = Array::new(DType::Int16, vec![2], vec![0xff, 0xff, 1, 0]).ok();
        assert_eq!(a.and_then(|a| a.to_i64()), Some(vec![-1, 1]));
    }
}
