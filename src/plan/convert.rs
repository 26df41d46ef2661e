//! Conversions between a tensor's type at the API and in packs, and the type that a device computes in.

use crate::error::{Error, Kind, Result};
use crate::tensor::DType;
use half::{bf16, f16};
use std::borrow::Cow;

/// `bytes` (little-endian elements of `from`) as elements of `to`. Free where the two lie in memory alike. An integer
/// that does not fit is [`Kind::Overflow`]; floats round to nearest.
pub fn convert(bytes: &[u8], from: DType, to: DType) -> Result<Cow<'_, [u8]>> {
    use DType::*;
    if !bytes.len().is_multiple_of(from.size()) {
        return Err(Error::new(Kind::InvalidInput, format!("{} bytes are no whole {from} elements", bytes.len())));
    }
    let unsupported =
        || Error::new(Kind::UnsupportedType, format!("{from} is not converted to {to}")).help("use another device");
    if from == to {
        return Ok(Cow::Borrowed(bytes));
    }
    let out = match (from, to) {
        (Float16, Float32) => each(bytes, |c| f16::from_le_bytes(c).to_f32().to_le_bytes()),
        (BFloat16, Float32) => each(bytes, |c| bf16::from_le_bytes(c).to_f32().to_le_bytes()),
        (Float32, Float16) => each(bytes, |c| f16::from_f32(f32::from_le_bytes(c)).to_le_bytes()),
        (Float32, BFloat16) => each(bytes, |c| bf16::from_f32(f32::from_le_bytes(c)).to_le_bytes()),
        (Int8, Float32) => each(bytes, |c| f32::from(i8::from_le_bytes(c)).to_le_bytes()),
        (Int16, Float32) => each(bytes, |c| f32::from(i16::from_le_bytes(c)).to_le_bytes()),
        (Int8, Int32) => each(bytes, |c| i32::from(i8::from_le_bytes(c)).to_le_bytes()),
        (Int16, Int32) => each(bytes, |c| i32::from(i16::from_le_bytes(c)).to_le_bytes()),
        (Int32, Int64) => each(bytes, |c| i64::from(i32::from_le_bytes(c)).to_le_bytes()),
        (Uint8 | Bool, Uint32) => each(bytes, |c| u32::from(u8::from_le_bytes(c)).to_le_bytes()),
        (Uint16, Uint32) => each(bytes, |c| u32::from(u16::from_le_bytes(c)).to_le_bytes()),
        (Uint32, Uint64) => each(bytes, |c| u64::from(u32::from_le_bytes(c)).to_le_bytes()),
        (Uint32, Bool) => each(bytes, |c| [u8::from(u32::from_le_bytes(c) != 0)]),
        (Int64, Int32) => narrow(bytes, from, to, |c| i32::try_from(i64::from_le_bytes(c)).ok().map(i32::to_le_bytes))?,
        (Uint64, Uint32) => {
            narrow(bytes, from, to, |c| u32::try_from(u64::from_le_bytes(c)).ok().map(u32::to_le_bytes))?
        }
        // Narrow results wrap around, as C and ONNX Runtime have it.
        (Int32, Int8) => each(bytes, |c: [u8; 4]| [c[0]]),
        (Int32, Int16) => each(bytes, |c: [u8; 4]| [c[0], c[1]]),
        (Uint32, Uint8) => each(bytes, |c: [u8; 4]| [c[0]]),
        (Uint32, Uint16) => each(bytes, |c: [u8; 4]| [c[0], c[1]]),
        _ => return Err(unsupported()),
    };
    Ok(Cow::Owned(out))
}

fn each<const N: usize, const M: usize>(bytes: &[u8], f: impl Fn([u8; N]) -> [u8; M]) -> Vec<u8> {
    bytes.as_chunks::<N>().0.iter().flat_map(|c| f(*c)).collect()
}

fn narrow<const N: usize, const M: usize>(
    bytes: &[u8],
    from: DType,
    to: DType,
    f: impl Fn([u8; N]) -> Option<[u8; M]>,
) -> Result<Vec<u8>> {
    let mut out = Vec::with_capacity(bytes.len() / N * M);
    for (i, c) in bytes.as_chunks::<N>().0.iter().enumerate() {
        let v = f(*c).ok_or_else(|| {
            Error::new(Kind::Overflow, format!("the {from} at element {i} does not fit {to}"))
                .help("run this input on the \"wasm\" device, which computes in 64 bits")
        })?;
        out.extend(v);
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn converts_there_and_back() -> Result<()> {
        let cases: [(DType, DType, Vec<u8>); 6] = [
            (DType::Float16, DType::Float32, f16::from_f32(-1.5).to_le_bytes().to_vec()),
            (DType::BFloat16, DType::Float32, bf16::from_f32(2.5).to_le_bytes().to_vec()),
            (DType::Int64, DType::Int32, (-7i64).to_le_bytes().to_vec()),
            (DType::Uint64, DType::Uint32, 7u64.to_le_bytes().to_vec()),
            (DType::Int8, DType::Int32, vec![0xfe, 3]),
            (DType::Bool, DType::Uint32, vec![0, 1, 1]),
        ];
        for (from, to, bytes) in cases {
            let there = convert(&bytes, from, to)?;
            assert_eq!(there.len(), bytes.len() / from.size() * to.size(), "{from} to {to}");
            assert_eq!(convert(&there, to, from)?, bytes, "{from} to {to} and back");
        }
        Ok(())
    }

    #[test]
    fn integers_become_floats() -> Result<()> {
        let floats = |all: [f32; 2]| all.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>();
        assert_eq!(convert(&[0x80, 3], DType::Int8, DType::Float32)?[..], floats([-128.0, 3.0]));
        assert_eq!(convert(&[0x00, 0xff, 3, 1], DType::Int16, DType::Float32)?[..], floats([-256.0, 259.0]));
        Ok(())
    }

    #[test]
    fn refuses_what_does_not_fit() {
        let kind = |r: Result<Cow<'_, [u8]>>| r.err().map(|e| e.kind());
        let big = (1i64 << 40).to_le_bytes();
        assert_eq!(kind(convert(&big, DType::Int64, DType::Int32)), Some(Kind::Overflow));
        assert_eq!(kind(convert(&[0; 3], DType::Float16, DType::Float32)), Some(Kind::InvalidInput));
        assert_eq!(kind(convert(&[0; 8], DType::Float64, DType::Float32)), Some(Kind::UnsupportedType));
    }
}
