//! NumPy files: `.npy` tensors and `.npz` archives of them.

use crate::error::{Error, Kind, Result};
use crate::tensor::{Array, DType};
use npyz::{NpyFile, Order, WriterBuilder};
use std::io::{Cursor, Read};
use std::path::Path;

/// Reads a `.npy` file.
pub(super) fn read(path: &Path) -> Result<Array> {
    let bytes = super::read_file(path)?;
    parse(&bytes[..]).map_err(|e| e.at(path.display()))
}

/// Reads every tensor of a `.npz` file with its name.
pub(super) fn read_archive(path: &Path) -> Result<Vec<(String, Array)>> {
    let bytes = super::read_file(path)?;
    let bad = |e: std::io::Error| Error::new(Kind::InvalidInput, format!("not a .npz archive: {e}")).at(path.display());
    let mut archive = npyz::npz::NpzArchive::new(Cursor::new(bytes)).map_err(bad)?;
    let names: Vec<String> = archive.array_names().map(str::to_owned).collect();
    let mut all = vec![];
    for name in names {
        let mut data = vec![];
        if let Ok(mut entry) = archive.zip_archive().by_name(&format!("{name}.npy")) {
            entry.read_to_end(&mut data).map_err(bad)?;
        }
        let array = parse(&data[..]).map_err(|e| e.at(&name).at(path.display()))?;
        all.push((name, array));
    }
    Ok(all)
}

fn parse(bytes: &[u8]) -> Result<Array> {
    let bad = |e: std::io::Error| Error::new(Kind::InvalidInput, format!("not a .npy file: {e}"));
    let file = NpyFile::new(bytes).map_err(bad)?;
    if file.order() != Order::C && file.shape().len() > 1 {
        return Err(Error::new(Kind::InvalidInput, "the array is in Fortran order")
            .help("save it with numpy.ascontiguousarray"));
    }
    let shape: Vec<usize> = file.shape().iter().map(|n| usize::try_from(*n).unwrap_or(usize::MAX)).collect();
    let descr = file.dtype().descr();
    macro_rules! typed {
        ($t:ty, $d:expr) => {{
            let data: Vec<$t> = file.into_vec().map_err(bad)?;
            ($d, data.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>())
        }};
    }
    let (dtype, data) = match descr.trim_matches('\'') {
        "<f4" => typed!(f32, DType::Float32),
        "<f8" => typed!(f64, DType::Float64),
        "<f2" => typed!(half::f16, DType::Float16),
        "|i1" => typed!(i8, DType::Int8),
        "<i2" => typed!(i16, DType::Int16),
        "<i4" => typed!(i32, DType::Int32),
        "<i8" => typed!(i64, DType::Int64),
        "|u1" => typed!(u8, DType::Uint8),
        "<u2" => typed!(u16, DType::Uint16),
        "<u4" => typed!(u32, DType::Uint32),
        "<u8" => typed!(u64, DType::Uint64),
        "|b1" => {
            let data: Vec<bool> = file.into_vec().map_err(bad)?;
            (DType::Bool, data.into_iter().map(u8::from).collect())
        }
        other => {
            return Err(Error::new(Kind::UnsupportedType, format!("elements of type {other}"))
                .help("use a little-endian integer, float or bool type"));
        }
    };
    Array::new(dtype, shape, data)
}

/// The bytes of a `.npy` file. Bfloat16, which NumPy lacks, is written as float32.
pub(super) fn bytes(array: &Array) -> Result<Vec<u8>> {
    let shape: Vec<u64> = array.shape().iter().map(|n| *n as u64).collect();
    let mut out = vec![];
    let b = array.bytes();
    macro_rules! typed {
        ($t:ty) => {{
            const N: usize = size_of::<$t>();
            let data = b.as_chunks::<N>().0.iter().map(|c| <$t>::from_le_bytes(*c));
            let mut w = npyz::WriteOptions::new().default_dtype().shape(&shape).writer(&mut out).begin_nd();
            match &mut w {
                Ok(w) => w.extend(data),
                Err(e) => Err(std::io::Error::other(e.to_string())),
            }
            .and_then(|()| w.and_then(|w| w.finish()))
        }};
    }
    let written = match array.dtype() {
        DType::Float32 => typed!(f32),
        DType::Float64 => typed!(f64),
        DType::Float16 => typed!(half::f16),
        DType::Int8 => typed!(i8),
        DType::Int16 => typed!(i16),
        DType::Int32 => typed!(i32),
        DType::Int64 => typed!(i64),
        DType::Uint8 => typed!(u8),
        DType::Uint16 => typed!(u16),
        DType::Uint32 => typed!(u32),
        DType::Uint64 => typed!(u64),
        DType::Bool => {
            npyz::WriteOptions::new().default_dtype().shape(&shape).writer(&mut out).begin_nd().and_then(|mut w| {
                w.extend(b.iter().map(|x| *x != 0))?;
                w.finish()
            })
        }
        DType::BFloat16 => {
            let wide: Vec<f32> = array.to_f64().unwrap_or_default().iter().map(|x| *x as f32).collect();
            return bytes(&Array::from_f32(array.shape().to_vec(), &wide)?);
        }
    };
    written.map_err(|e| Error::new(Kind::Internal, format!("writing a .npy file: {e}")))?;
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tensors_come_back() {
        for dtype in DType::ALL.into_iter().filter(|d| *d != DType::BFloat16) {
            let data: Vec<u8> = (0..6 * dtype.size()).map(|i| (i % 2) as u8).collect();
            let a = Array::new(dtype, vec![2, 3], data).unwrap();
            assert_eq!(parse(&bytes(&a).unwrap()), Ok(a), "{dtype}");
        }
    }

    #[test]
    fn garbage_is_an_error() {
        for bad in [&b""[..], b"\x93NUMPY", b"hello world, this is no array"] {
            assert_eq!(parse(bad).err().map(|e| e.kind()), Some(Kind::InvalidInput));
        }
    }
}
