//! Tensor data in every encoding that ONNX has for it.

use super::external::ExternalData;
use super::proto::{SparseTensorProto, StringStringEntryProto, TensorProto};
use crate::error::{Error, Kind, Result};
use crate::tensor::{Array, DType};

/// The largest dense form that a sparse tensor is brought to, in bytes: a few bytes of file must not fill the memory.
const MAX_DENSE: usize = 1 << 28;

/// The data type of that number.
pub(super) fn dtype(number: i32) -> Result<DType> {
    const OTHERS: &[(i32, &str)] = &[
        (0, "undefined"),
        (8, "string"),
        (14, "complex64"),
        (15, "complex128"),
        (17, "float8e4m3fn"),
        (18, "float8e4m3fnuz"),
        (19, "float8e5m2"),
        (20, "float8e5m2fnuz"),
        (21, "uint4"),
        (22, "int4"),
        (23, "float4e2m1"),
        (24, "float8e8m0"),
        (25, "uint2"),
        (26, "int2"),
    ];
    DType::from_onnx(number).ok_or_else(|| match OTHERS.iter().find(|(n, _)| *n == number) {
        Some((_, name)) => Error::new(Kind::UnsupportedType, format!("data type {name} is not supported")),
        None => Error::new(Kind::InvalidModel, format!("{number} is no data type")),
    })
}

fn invalid(message: impl Into<String>) -> Error {
    Error::new(Kind::InvalidModel, message)
}

fn shape(dims: &[i64]) -> Result<Vec<usize>> {
    let each = dims.iter().map(|d| usize::try_from(*d));
    each.collect::<Result<_, _>>().map_err(|_| invalid(format!("shape {dims:?} of a constant is not valid")))
}

/// The tensor's data as an array. The tensor is consumed, so that only one copy of its data remains.
pub(super) fn array(t: TensorProto, external: &dyn ExternalData) -> Result<Array> {
    let name = t.name.clone();
    decode(t, external).map_err(|e| e.at(format!("tensor \"{name}\"")))
}

fn decode(t: TensorProto, external: &dyn ExternalData) -> Result<Array> {
    if t.segment.is_some() {
        return Err(invalid("the tensor is split into segments, which ONNX never defined"));
    }
    let dtype = dtype(t.data_type)?;
    let shape = shape(&t.dims)?;
    let count = shape.iter().try_fold(1usize, |n, d| n.checked_mul(*d));
    let size = count.and_then(|n| n.checked_mul(dtype.size()));
    let (Some(count), Some(size)) = (count, size) else {
        return Err(invalid(format!("shape {shape:?} is larger than any memory")));
    };
    let mut bytes = match t.data_location {
        0 => match t.raw_data {
            Some(raw) if !raw.is_empty() || count == 0 => raw,
            _ => typed(&t, dtype)?,
        },
        1 => {
            let (location, offset, length) = reference(&t.external_data)?;
            if length.is_some_and(|n| n != size as u64) {
                let got = length.unwrap_or_default();
                return Err(invalid(format!(
                    "external data of {got} bytes where {dtype} of shape {shape:?} takes {size}"
                )));
            }
            external.load(&location, offset, size as u64)?
        }
        n => return Err(invalid(format!("data location {n} is not known"))),
    };
    if dtype == DType::Bool {
        // Other values than 0 and 1 would be true in one kernel and false in another.
        bytes.iter_mut().filter(|b| **b > 1).for_each(|b| *b = 1);
    }
    Array::new(dtype, shape, bytes)
}

/// Location, offset and length of external data.
fn reference(entries: &[StringStringEntryProto]) -> Result<(String, u64, Option<u64>)> {
    let get = |key: &str| entries.iter().find(|e| e.key == key).map(|e| e.value.as_str());
    let number = |key: &str| match get(key) {
        None => Ok(None),
        Some(text) => {
            let parsed = text.parse::<u64>().map(Some);
            parsed.map_err(|_| invalid(format!("{key} \"{text}\" of external data is no number of bytes")))
        }
    };
    let location = get("location").ok_or_else(|| invalid("external data without a location"))?;
    Ok((location.to_owned(), number("offset")?.unwrap_or(0), number("length")?))
}

/// Data from the field that belongs to the type. Narrow types stand one an element in `int32_data`, half-precision ones
/// as their bits.
fn typed(t: &TensorProto, dtype: DType) -> Result<Vec<u8>> {
    fn bytes<T: Copy, const N: usize>(data: &[T], f: impl Fn(T) -> [u8; N]) -> Vec<u8> {
        data.iter().flat_map(|x| f(*x)).collect()
    }
    if !t.string_data.is_empty() {
        return Err(invalid(format!("{dtype} tensor with string data")));
    }
    Ok(match dtype {
        DType::Float32 => bytes(&t.float_data, f32::to_le_bytes),
        DType::Float64 => bytes(&t.double_data, f64::to_le_bytes),
        DType::Int64 => bytes(&t.int64_data, i64::to_le_bytes),
        DType::Uint64 => bytes(&t.uint64_data, u64::to_le_bytes),
        DType::Uint32 => bytes(&t.uint64_data, |x| (x as u32).to_le_bytes()),
        DType::Int32 => bytes(&t.int32_data, i32::to_le_bytes),
        DType::Int16 | DType::Uint16 | DType::Float16 | DType::BFloat16 => {
            bytes(&t.int32_data, |x| (x as u16).to_le_bytes())
        }
        DType::Int8 | DType::Uint8 => bytes(&t.int32_data, |x| [x as u8]),
        DType::Bool => bytes(&t.int32_data, |x| [u8::from(x != 0)]),
    })
}

/// A sparse tensor in dense form, and its name.
pub(super) fn dense(t: SparseTensorProto, external: &dyn ExternalData) -> Result<(String, Array)> {
    let values = t.values.ok_or_else(|| invalid("sparse tensor without values"))?;
    let name = values.name.clone();
    let filled = fill(&t.dims, values, t.indices, external);
    Ok((name.clone(), filled.map_err(|e| e.at(format!("sparse tensor \"{name}\"")))?))
}

fn fill(dims: &[i64], values: TensorProto, indices: Option<TensorProto>, external: &dyn ExternalData) -> Result<Array> {
    let shape = shape(dims)?;
    let values = decode(values, external)?;
    let indices = match indices {
        Some(t) => decode(t, external)?,
        None => return Err(invalid("sparse tensor without indices")),
    };
    let at = match indices.dtype() {
        DType::Int64 => indices.to_i64().unwrap_or_default(),
        other => return Err(invalid(format!("indices of type {other}"))),
    };
    let width = values.dtype().size();
    let size = shape.iter().try_fold(width, |n, d| n.checked_mul(*d)).filter(|n| *n <= MAX_DENSE);
    let size = size.ok_or_else(|| invalid(format!("shape {shape:?} is too large for a sparse tensor")))?;
    let linear: Vec<i64> = match indices.shape() {
        [_] => at,
        [_, rank] if *rank == shape.len() && *rank > 0 => {
            let row = |row: &[i64]| {
                row.iter().zip(&shape).try_fold(0i64, |n, (i, d)| {
                    let d = i64::try_from(*d).ok().filter(|d| (0..*d).contains(i))?;
                    n.checked_mul(d)?.checked_add(*i)
                })
            };
            at.chunks(*rank).map(|r| row(r).unwrap_or(-1)).collect()
        }
        other => return Err(invalid(format!("indices of shape {other:?} for a tensor of shape {shape:?}"))),
    };
    if linear.len() != values.len() {
        return Err(invalid(format!("{} values at {} indices", values.len(), linear.len())));
    }
    let mut bytes = vec![0u8; size];
    for (value, i) in values.bytes().chunks(width).zip(linear) {
        let start = usize::try_from(i).ok().and_then(|i| i.checked_mul(width));
        let place = start.and_then(|s| bytes.get_mut(s..s.checked_add(width)?));
        place.ok_or_else(|| invalid(format!("an index lies outside of shape {shape:?}")))?.copy_from_slice(value);
    }
    Array::new(values.dtype(), shape, bytes)
}

#[cfg(test)]
mod tests {
    use super::super::external::{Buffers, NoExternalData};
    use super::*;

    fn proto(dtype: DType, dims: &[i64]) -> TensorProto {
        TensorProto { data_type: dtype.onnx(), dims: dims.to_vec(), name: "w".into(), ..Default::default() }
    }

    fn read(t: TensorProto) -> Result<Vec<u8>, Kind> {
        array(t, &NoExternalData).map(|a| a.bytes().to_vec()).map_err(|e| e.kind())
    }

    #[test]
    fn reads_every_encoding() {
        let cases: &[(&str, TensorProto, &[u8])] = &[
            ("f32", TensorProto { float_data: vec![1.0], ..proto(DType::Float32, &[1]) }, &[0, 0, 128, 63]),
            ("f64", TensorProto { double_data: vec![1.0], ..proto(DType::Float64, &[]) }, &1f64.to_le_bytes()),
            ("i64", TensorProto { int64_data: vec![-2], ..proto(DType::Int64, &[]) }, &(-2i64).to_le_bytes()),
            ("u64", TensorProto { uint64_data: vec![3], ..proto(DType::Uint64, &[]) }, &3u64.to_le_bytes()),
            ("u32", TensorProto { uint64_data: vec![3], ..proto(DType::Uint32, &[]) }, &3u32.to_le_bytes()),
            ("f16 bits", TensorProto { int32_data: vec![0x3c00], ..proto(DType::Float16, &[]) }, &[0, 0x3c]),
            ("bf16 bits", TensorProto { int32_data: vec![0x3f80], ..proto(DType::BFloat16, &[]) }, &[0x80, 0x3f]),
            ("i8", TensorProto { int32_data: vec![-1, 2], ..proto(DType::Int8, &[2]) }, &[255, 2]),
            ("u8", TensorProto { int32_data: vec![200], ..proto(DType::Uint8, &[1]) }, &[200]),
            ("bool", TensorProto { int32_data: vec![0, 7], ..proto(DType::Bool, &[2]) }, &[0, 1]),
            ("raw bool", TensorProto { raw_data: Some(vec![2, 0]), ..proto(DType::Bool, &[2]) }, &[1, 0]),
            ("raw", TensorProto { raw_data: Some(vec![1, 2]), ..proto(DType::Int16, &[1]) }, &[1, 2]),
            ("no elements", proto(DType::Float32, &[2, 0]), &[]),
        ];
        for (name, t, want) in cases {
            assert_eq!(read(t.clone()), Ok(want.to_vec()), "{name}");
        }
    }

    #[test]
    fn refuses_what_is_not_whole() {
        let cases: &[(&str, TensorProto, Kind)] = &[
            ("short", TensorProto { float_data: vec![1.0], ..proto(DType::Float32, &[2]) }, Kind::InvalidModel),
            (
                "short raw",
                TensorProto { raw_data: Some(vec![1, 2, 3]), ..proto(DType::Float32, &[1]) },
                Kind::InvalidModel,
            ),
            ("negative dim", proto(DType::Float32, &[-1]), Kind::InvalidModel),
            ("overflow", proto(DType::Float32, &[i64::MAX, 4]), Kind::InvalidModel),
            ("wrong field", TensorProto { int64_data: vec![1], ..proto(DType::Float32, &[1]) }, Kind::InvalidModel),
            ("strings", TensorProto { data_type: 8, ..proto(DType::Bool, &[1]) }, Kind::UnsupportedType),
            ("int4", TensorProto { data_type: 22, ..proto(DType::Bool, &[1]) }, Kind::UnsupportedType),
            ("no type", TensorProto { data_type: 99, ..proto(DType::Bool, &[1]) }, Kind::InvalidModel),
            ("segment", TensorProto { segment: Some(vec![]), ..proto(DType::Bool, &[0]) }, Kind::InvalidModel),
            ("location", TensorProto { data_location: 2, ..proto(DType::Bool, &[0]) }, Kind::InvalidModel),
            ("external", TensorProto { data_location: 1, ..proto(DType::Bool, &[0]) }, Kind::InvalidModel),
        ];
        for (name, t, want) in cases {
            assert_eq!(read(t.clone()), Err(*want), "{name}");
        }
    }

    #[test]
    fn reads_external_data() {
        let entry = |key: &str, value: &str| StringStringEntryProto { key: key.into(), value: value.into() };
        let files = Buffers([("w.bin".to_owned(), vec![9, 1, 2, 9])].into());
        let at = |entries: &[(&str, &str)]| {
            let external_data = entries.iter().map(|(k, v)| entry(k, v)).collect();
            let t = TensorProto { data_location: 1, external_data, ..proto(DType::Uint8, &[2]) };
            array(t, &files).map(|a| a.bytes().to_vec()).map_err(|e| e.kind())
        };
        assert_eq!(at(&[("location", "w.bin"), ("offset", "1"), ("length", "2")]), Ok(vec![1, 2]));
        assert_eq!(at(&[("location", "w.bin"), ("offset", "1")]), Ok(vec![1, 2]));
        assert_eq!(at(&[("location", "w.bin"), ("offset", "1"), ("length", "3")]), Err(Kind::InvalidModel));
        assert_eq!(at(&[("location", "w.bin"), ("offset", "3")]), Err(Kind::InvalidModel));
        assert_eq!(at(&[("location", "w.bin"), ("offset", "-1")]), Err(Kind::InvalidModel));
        assert_eq!(at(&[("location", "v.bin")]), Err(Kind::NotFound));
    }

    #[test]
    fn makes_sparse_tensors_dense() {
        let at = |dims: &[i64], shape: &[i64], indices: &[i64]| {
            let t = SparseTensorProto {
                values: Some(TensorProto { int32_data: vec![5, 6], ..proto(DType::Uint8, &[2]) }),
                indices: Some(TensorProto { int64_data: indices.to_vec(), ..proto(DType::Int64, shape) }),
                dims: dims.to_vec(),
            };
            dense(t, &NoExternalData).map(|(_, a)| a.bytes().to_vec()).map_err(|e| e.kind())
        };
        assert_eq!(at(&[4], &[2], &[1, 3]), Ok(vec![0, 5, 0, 6]));
        assert_eq!(at(&[2, 2], &[2, 2], &[0, 1, 1, 0]), Ok(vec![0, 5, 6, 0]));
        assert_eq!(at(&[2, 2], &[2, 2], &[0, 1, 2, 0]), Err(Kind::InvalidModel));
        assert_eq!(at(&[4], &[2], &[1, 4]), Err(Kind::InvalidModel));
        assert_eq!(at(&[1 << 40], &[2], &[1, 4]), Err(Kind::InvalidModel));
    }
}
