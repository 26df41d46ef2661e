//! `golden.bin`: inputs with the outputs that belong to them, which a device must reproduce before it is trusted.
//!
//! A magic number, a format version, then in postcard the tolerances and the cases. The values of symbolic dims follow
//! from the inputs' shapes.

use super::Plan;
use crate::error::{Error, Kind, Result};
use crate::tensor::{Array, DType};
use serde::{Deserialize, Serialize};

/// The version of the format that this build writes and reads.
const FORMAT: u32 = 2;

const MAGIC: &[u8; 8] = b"nsgolden";

/// No golden file is larger than this many bytes.
const MAX_BYTES: usize = 64 << 20;

/// What a device must compute: `|got - want| <= atol + rtol * |want|` for floats, equality for everything else. Where
/// `spread` is not 0, an output may also differ as a whole: `‖got - want‖ <= spread * ‖want‖` over its elements.
#[derive(Debug, Clone, PartialEq)]
pub struct Golden {
    pub atol: f64,
    pub rtol: f64,
    pub spread: f64,
    pub cases: Vec<Case>,
}

/// Inputs and outputs of one run, in the order of the model's signature.
#[derive(Debug, Clone, PartialEq)]
pub struct Case {
    pub inputs: Vec<Array>,
    pub outputs: Vec<Array>,
}

#[derive(Serialize, Deserialize)]
struct File<'a> {
    atol: f64,
    rtol: f64,
    spread: f64,
    #[serde(borrow)]
    cases: Vec<(Vec<Tensor<'a>>, Vec<Tensor<'a>>)>,
}

#[derive(Serialize, Deserialize)]
struct Tensor<'a> {
    dtype: DType,
    shape: Vec<u64>,
    bytes: &'a [u8],
}

impl Golden {
    /// The file's bytes.
    pub fn serialize(&self) -> Result<Vec<u8>> {
        fn tensors(all: &[Array]) -> Vec<Tensor<'_>> {
            all.iter()
                .map(|a| Tensor {
                    dtype: a.dtype(),
                    shape: a.shape().iter().map(|n| *n as u64).collect(),
                    bytes: a.bytes(),
                })
                .collect()
        }
        let cases = self.cases.iter().map(|c| (tensors(&c.inputs), tensors(&c.outputs))).collect();
        let body = postcard::to_allocvec(&File { atol: self.atol, rtol: self.rtol, spread: self.spread, cases })
            .map_err(|e| Error::new(Kind::Internal, format!("the golden outputs do not serialize: {e}")))?;
        Ok([&MAGIC[..], &FORMAT.to_le_bytes(), &body].concat())
    }

    /// Reads a golden file that belongs to `plan`: as many tensors, of the types that the signature states.
    pub fn parse(bytes: &[u8], plan: &Plan) -> Result<Golden> {
        Golden::read(bytes, plan).map_err(|e| e.at("golden.bin"))
    }

    fn read(bytes: &[u8], plan: &Plan) -> Result<Golden> {
        let invalid = |what: String| Error::new(Kind::InvalidPackage, what);
        if bytes.len() > MAX_BYTES {
            return Err(invalid(format!("{} bytes, more than the {MAX_BYTES} allowed", bytes.len())));
        }
        let rest = bytes.strip_prefix(MAGIC).ok_or_else(|| invalid("does not start with \"nsgolden\"".into()))?;
        let (version, body) = rest.split_first_chunk::<4>().ok_or_else(|| invalid("truncated".into()))?;
        let version = u32::from_le_bytes(*version);
        if version != FORMAT {
            return Err(Error::new(Kind::FormatVersion, format!("format {version}, and this runtime reads {FORMAT}"))
                .help("build the model and install the runtime with the same version of nearside"));
        }
        let (file, rest) =
            postcard::take_from_bytes::<File<'_>>(body).map_err(|e| invalid(format!("does not parse: {e}")))?;
        if !rest.is_empty() {
            return Err(invalid(format!("{} bytes after the end", rest.len())));
        }
        let tolerance = |x: f64| x.is_finite() && x >= 0.0;
        if ![file.atol, file.rtol, file.spread].into_iter().all(tolerance) {
            return Err(invalid("a tolerance is not a number".into()));
        }
        let cases = file
            .cases
            .into_iter()
            .map(|(inputs, outputs)| {
                let types = |ports: &[super::Port]| ports.iter().map(|p| p.dtype).collect::<Vec<_>>();
                Ok(Case {
                    inputs: arrays(inputs, &types(&plan.inputs))?,
                    outputs: arrays(outputs, &types(&plan.outputs))?,
                })
            })
            .collect::<Result<_>>()?;
        Ok(Golden { atol: file.atol, rtol: file.rtol, spread: file.spread, cases })
    }

    /// Whether these are the outputs of `case`, within the tolerances. The error tells the first element that is not.
    pub fn compare(&self, plan: &Plan, case: &Case, got: &[Array]) -> Result<()> {
        for ((port, want), got) in plan.outputs.iter().zip(&case.outputs).zip(got) {
            let mismatch = |what: String| {
                Error::new(Kind::GoldenMismatch, format!("output \"{}\" {what}", port.name))
                    .help("this device or its driver computes wrong results; use another device")
            };
            if (got.dtype(), got.shape()) != (want.dtype(), want.shape()) {
                let show = |a: &Array| format!("{} {:?}", a.dtype(), a.shape());
                return Err(mismatch(format!("is {} where {} is wanted", show(got), show(want))));
            }
            if self.spread > 0.0
                && let (Some(g), Some(w)) = (numbers(got), numbers(want))
                && distance(&g, &w) <= self.spread
            {
                continue;
            }
            let (Some(g), Some(w)) = (got.to_f64(), want.to_f64()) else {
                if got.bytes() != want.bytes() {
                    let at = got.bytes().iter().zip(want.bytes()).position(|(a, b)| a != b).unwrap_or(0);
                    return Err(mismatch(format!("differs at element {}", at / want.dtype().size())));
                }
                continue;
            };
            let agrees = |g: f64, w: f64| {
                g == w || (g.is_nan() && w.is_nan()) || (g - w).abs() <= self.atol + self.rtol * w.abs()
            };
            if let Some((i, (g, w))) = g.iter().zip(&w).enumerate().find(|(_, (g, w))| !agrees(**g, **w)) {
                return Err(mismatch(format!("is {g} at element {i} where {w} is wanted")));
            }
        }
        if got.len() != case.outputs.len() {
            return Err(Error::new(
                Kind::GoldenMismatch,
                format!("{} outputs where {} are wanted", got.len(), case.outputs.len()),
            ));
        }
        Ok(())
    }
}

fn numbers(a: &Array) -> Option<Vec<f64>> {
    a.to_f64().or_else(|| Some(a.to_i64()?.into_iter().map(|n| n as f64).collect()))
}

/// `‖got - want‖ / ‖want‖`; not a number where an element is none, or where `want` is all zeros and `got` is, too.
fn distance(got: &[f64], want: &[f64]) -> f64 {
    let norm = |x: &mut dyn Iterator<Item = f64>| x.map(|x| x * x).sum::<f64>().sqrt();
    norm(&mut got.iter().zip(want).map(|(g, w)| g - w)) / norm(&mut want.iter().copied())
}

fn arrays(tensors: Vec<Tensor<'_>>, types: &[DType]) -> Result<Vec<Array>> {
    let invalid = |what: String| Error::new(Kind::InvalidPackage, what);
    if tensors.len() != types.len() {
        return Err(invalid(format!("{} tensors where the signature has {}", tensors.len(), types.len())));
    }
    tensors
        .into_iter()
        .zip(types)
        .map(|(t, want)| {
            if t.dtype != *want {
                return Err(invalid(format!("a {} tensor where the signature has {want}", t.dtype)));
            }
            let shape: Option<Vec<usize>> = t.shape.iter().map(|n| usize::try_from(*n).ok()).collect();
            let shape = shape.ok_or_else(|| invalid("a dimension is too large".into()))?;
            Array::new(t.dtype, shape, t.bytes).map_err(|e| invalid(e.message().to_owned()))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::{CpuPlan, Port};
    use super::*;

    fn plan() -> Plan {
        let port = |name: &str, dtype| Port { name: name.into(), dtype, shape: vec![2.into()] };
        Plan {
            name: "m".into(),
            version: "1.0.0".into(),
            inputs: vec![port("x", DType::Float32)],
            outputs: vec![port("y", DType::Float32), port("n", DType::Int64)],
            dims: vec![],
            packs: vec![],
            weights: vec![],
            cpu: CpuPlan { inputs: vec![0], outputs: vec![8, 16], memory: 64, ..CpuPlan::default() },
            gpu: None,
        }
    }

    fn golden() -> Result<Golden> {
        let case = Case {
            inputs: vec![Array::from_f32(vec![2], &[1.0, 2.0])?],
            outputs: vec![Array::from_f32(vec![2], &[100.0, f32::NAN])?, Array::from_i64(vec![2], &[3, 4])?],
        };
        Ok(Golden { atol: 1e-3, rtol: 1e-3, spread: 0.0, cases: vec![case] })
    }

    #[test]
    fn comes_back() -> Result<()> {
        let g = golden()?;
        let bytes = g.serialize()?;
        let back = Golden::parse(&bytes, &plan())?;
        assert_eq!(back.cases[0].inputs, g.cases[0].inputs);
        assert_eq!(back.cases[0].outputs[1], g.cases[0].outputs[1]);
        Ok(())
    }

    #[test]
    fn every_truncation_and_every_flipped_byte_is_an_error_or_other_data() -> Result<()> {
        let bytes = golden()?.serialize()?;
        for end in 0..bytes.len() {
            assert_eq!(
                Golden::parse(&bytes[..end], &plan()).err().map(|e| e.kind()),
                Some(Kind::InvalidPackage),
                "cut at {end}"
            );
        }
        for i in 0..bytes.len() {
            let mut b = bytes.clone();
            b[i] ^= 0x80;
            let _ = Golden::parse(&b, &plan());
        }
        Ok(())
    }

    #[test]
    fn compares_within_the_tolerances() -> Result<()> {
        let g = golden()?;
        let cases = [
            ("equal", [100.0, f32::NAN], [3, 4], None),
            ("within rtol", [100.09, f32::NAN], [3, 4], None),
            ("beyond rtol", [100.2, f32::NAN], [3, 4], Some(Kind::GoldenMismatch)),
            ("a number for NaN", [100.0, 0.0], [3, 4], Some(Kind::GoldenMismatch)),
            ("zeros", [0.0, 0.0], [0, 0], Some(Kind::GoldenMismatch)),
            ("an integer off by one", [100.0, f32::NAN], [3, 5], Some(Kind::GoldenMismatch)),
        ];
        for (name, y, n, want) in cases {
            let got = [Array::from_f32(vec![2], &y)?, Array::from_i64(vec![2], &n)?];
            assert_eq!(g.compare(&plan(), &g.cases[0], &got).err().map(|e| e.kind()), want, "{name}");
        }
        Ok(())
    }

    #[test]
    fn compares_by_the_norm_where_the_model_rounds() -> Result<()> {
        let case = Case {
            inputs: vec![],
            outputs: vec![Array::from_f32(vec![2], &[3.0, 4.0])?, Array::from_i64(vec![2], &[100, 50])?],
        };
        let g = Golden { atol: 1e-3, rtol: 1e-3, spread: 0.25, cases: vec![case] };
        let cases = [
            ("another step", [3.5, 3.5], [101, 49], None),
            ("too far", [4.5, 4.0], [100, 50], Some(Kind::GoldenMismatch)),
            ("integers too far", [3.0, 4.0], [100, 90], Some(Kind::GoldenMismatch)),
            ("zeros", [0.0, 0.0], [0, 0], Some(Kind::GoldenMismatch)),
            ("no number", [3.0, f32::NAN], [100, 50], Some(Kind::GoldenMismatch)),
        ];
        for (name, y, n, want) in cases {
            let got = [Array::from_f32(vec![2], &y)?, Array::from_i64(vec![2], &n)?];
            assert_eq!(g.compare(&plan(), &g.cases[0], &got).err().map(|e| e.kind()), want, "{name}");
        }
        Ok(())
    }
}
