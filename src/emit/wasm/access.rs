//! Loads and stores: every data type from and to the type in which it is computed.

use super::address::Linear;
use super::writer::{Writer, arg, internal};
use crate::error::Result;
use crate::kernel::{ExprId, ValueId};
use crate::tensor::DType;
use wasm_encoder::ValType;

impl Writer<'_> {
    /// Pushes `value[linear]`.
    pub(super) fn load(&mut self, value: ValueId, linear: &Linear) -> Result<()> {
        let offset = self.address(value, linear)?;
        self.load_at(self.values.dtype(value), offset)
    }

    /// Replaces the address on the stack by the element there.
    pub(super) fn load_at(&mut self, dtype: DType, offset: u64) -> Result<()> {
        let mut i = self.i();
        match dtype {
            DType::Float32 => i.f32_load(arg(offset, 2)),
            DType::Float64 => i.f64_load(arg(offset, 3)),
            DType::Int32 | DType::Uint32 => i.i32_load(arg(offset, 2)),
            DType::Int64 | DType::Uint64 => i.i64_load(arg(offset, 3)),
            DType::Int8 => i.i32_load8_s(arg(offset, 0)),
            DType::Uint8 => i.i32_load8_u(arg(offset, 0)),
            DType::Int16 => i.i32_load16_s(arg(offset, 1)),
            DType::Uint16 => i.i32_load16_u(arg(offset, 1)),
            DType::Bool => i.i32_load8_u(arg(offset, 0)).i32_const(0).i32_ne(),
            DType::BFloat16 => i.i32_load16_u(arg(offset, 1)).i32_const(16).i32_shl().f32_reinterpret_i32(),
            DType::Float16 => {
                i.i32_load16_u(arg(offset, 1));
                self.call("f16to")?;
                self.i().f32_reinterpret_i32();
                return Ok(());
            }
        };
        Ok(())
    }

    /// `value[linear] = to`, a scalar.
    pub(super) fn store(&mut self, value: ValueId, index: ExprId, to: ExprId) -> Result<()> {
        if self.values.ty(value) != self.values.arena.ty(to) {
            return Err(internal(format!("{:?} stored in {}", self.values.arena.ty(to), self.values.dtype(value))));
        }
        let linear = self.linear(index)?;
        let offset = self.address(value, &linear)?;
        self.scalar(to)?;
        self.store_at(self.values.dtype(value), offset)
    }

    /// Stores the scalar on the stack at the address below it.
    pub(super) fn store_at(&mut self, dtype: DType, offset: u64) -> Result<()> {
        match dtype {
            DType::Float16 => {
                self.i().i32_reinterpret_f32();
                self.call("tof16")?;
            }
            DType::BFloat16 => {
                self.i().i32_reinterpret_f32();
                self.call("tobf16")?;
                self.i().i32_const(16).i32_shr_u();
            }
            _ => {}
        }
        let mut i = self.i();
        match dtype {
            DType::Float32 => i.f32_store(arg(offset, 2)),
            DType::Float64 => i.f64_store(arg(offset, 3)),
            DType::Int32 | DType::Uint32 => i.i32_store(arg(offset, 2)),
            DType::Int64 | DType::Uint64 => i.i64_store(arg(offset, 3)),
            DType::Int8 | DType::Uint8 | DType::Bool => i.i32_store8(arg(offset, 0)),
            DType::Int16 | DType::Uint16 | DType::Float16 | DType::BFloat16 => i.i32_store16(arg(offset, 1)),
        };
        Ok(())
    }

    /// Pushes four elements from `value[linear]` on, lying beside each other. Types of 64 bits have no lanes.
    pub(super) fn load_lanes(&mut self, value: ValueId, linear: &Linear) -> Result<()> {
        let offset = self.address(value, linear)?;
        self.load_lanes_at(self.values.dtype(value), offset)
    }

    /// Replaces the address on the stack by the four elements there.
    pub(super) fn load_lanes_at(&mut self, dtype: DType, offset: u64) -> Result<()> {
        let mut i = self.i();
        match dtype {
            DType::Float32 | DType::Int32 | DType::Uint32 => i.v128_load(arg(offset, 2)),
            DType::Int8 => i.v128_load32_zero(arg(offset, 0)).i16x8_extend_low_i8x16_s().i32x4_extend_low_i16x8_s(),
            DType::Uint8 => i.v128_load32_zero(arg(offset, 0)).i16x8_extend_low_i8x16_u().i32x4_extend_low_i16x8_u(),
            DType::Bool => {
                i.v128_load32_zero(arg(offset, 0)).i16x8_extend_low_i8x16_u().i32x4_extend_low_i16x8_u();
                i.v128_const(0).i32x4_ne();
                return Ok(());
            }
            DType::Int16 => i.v128_load16x4_s(arg(offset, 1)),
            DType::Uint16 => i.v128_load16x4_u(arg(offset, 1)),
            DType::BFloat16 => i.v128_load16x4_u(arg(offset, 1)).i32_const(16).i32x4_shl(),
            DType::Float16 => {
                i.v128_load16x4_u(arg(offset, 1));
                self.call("f16to4")?;
                return Ok(());
            }
            d => return Err(internal(format!("{d} in 32-bit lanes"))),
        };
        Ok(())
    }

    /// Stores the four lanes on the stack from the address below them on.
    pub(super) fn store_lanes_at(&mut self, dtype: DType, offset: u64) -> Result<()> {
        match dtype {
            DType::Float32 | DType::Int32 | DType::Uint32 => {
                self.i().v128_store(arg(offset, 2));
                return Ok(());
            }
            DType::Float16 => self.call("tof164")?,
            DType::BFloat16 => {
                self.call("tobf164")?;
                self.i().i32_const(16).i32x4_shr_u();
            }
            DType::Bool => {
                self.i().v128_const(super::math::splat32(1)).v128_and();
            }
            _ => {}
        }
        let (v, p) = (self.local(ValType::V128), self.local(ValType::I32));
        self.i().local_set(v).local_set(p);
        // Wide to narrow integers wrap: the low bytes of each lane, gathered into one scalar.
        let mut i = self.i();
        match dtype {
            DType::Int8 | DType::Uint8 | DType::Bool => {
                let mut pick = [0; 16];
                pick[..4].copy_from_slice(&[0, 4, 8, 12]);
                i.local_get(p).local_get(v).local_get(v).i8x16_shuffle(pick).i32x4_extract_lane(0);
                i.i32_store(arg(offset, 0));
            }
            DType::Int16 | DType::Uint16 | DType::Float16 | DType::BFloat16 => {
                let mut pick = [0; 16];
                pick[..8].copy_from_slice(&[0, 1, 4, 5, 8, 9, 12, 13]);
                i.local_get(p).local_get(v).local_get(v).i8x16_shuffle(pick).i64x2_extract_lane(0);
                i.i64_store(arg(offset, 1));
            }
            d => return Err(internal(format!("{d} in 32-bit lanes"))),
        }
        Ok(())
    }
}
