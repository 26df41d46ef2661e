//! Kernels as WGSL, with the entry point `main`. Group 0 binds the buffers of [`Shader::bindings`] in order, then the dims
//! (a uniform of i32) and the overflow flag, where they are used, then the numbers (a uniform of i32) where kernels share
//! a shader and differ in them.

mod attention;
mod contract;
mod fold;
mod loops;
mod math;
mod numbers;
mod program;
mod shared;
mod value;
mod vector;
mod writer;

#[cfg(all(test, feature = "cli"))]
pub(super) mod testing;
#[cfg(all(test, feature = "cli"))]
mod tests;

pub use numbers::{Code, Shared, share};

use crate::error::{Error, Kind, Result};
use crate::kernel::{Form, Kernel, ValueId, Values};
use crate::tensor::{Dim, Sym};
use std::collections::HashSet;
use writer::Gen;

/// A kernel's shader.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shader {
    pub code: Code,
    /// Binding i of group 0 is this value's buffer, and whether it is written.
    pub bindings: Vec<(ValueId, bool)>,
    /// Workgroups to dispatch, at run-time dims.
    pub workgroups: [Dim; 3],
    /// Whether the binding after the buffers is the uniform with the dims, `array<vec4<i32>, n>`.
    pub uses_dims: bool,
    /// Whether the last binding is the overflow flag, a u32 that is set where 64-bit integer arithmetic left 32 bits.
    pub overflow: bool,
    /// Invocations of a workgroup.
    pub workgroup_size: u32,
    /// Bytes of workgroup memory.
    pub workgroup_storage: u32,
}

/// The shaders among which a client may choose by timing them on its adapter. The first is the default; the second, for
/// large products, goes through workgroup memory. `dim_order` is the order of the dims in the uniform.
pub fn emit_candidates(values: &mut Values, kernel: &Kernel, dim_order: &[Sym]) -> Result<Vec<Shader>> {
    let mut all = vec![emit(values, kernel, dim_order, false)?];
    if matches!(&kernel.form, Form::Contract(c) if shared::fits(values, kernel, c)) {
        all.push(emit(values, kernel, dim_order, true)?);
    }
    Ok(all)
}

fn emit(values: &mut Values, kernel: &Kernel, dim_order: &[Sym], share: bool) -> Result<Shader> {
    // What buffers hold (elements or vectors) depends on all accesses: the first pass finds them.
    let (_, vectors) = pass(values, kernel, dim_order, HashSet::new(), share)?;
    Ok(pass(values, kernel, dim_order, vectors, share)?.0)
}

fn pass(
    values: &mut Values,
    kernel: &Kernel,
    dim_order: &[Sym],
    vectors: HashSet<ValueId>,
    share: bool,
) -> Result<(Shader, HashSet<ValueId>)> {
    let mut g = Gen::new(values, dim_order, vectors);
    let none = kernel.axes.iter().any(|a| g.values.arena.extent(*a).is(0));
    let (workgroups, workgroup_size) = match &kernel.form {
        _ if none => ([0, 1, 1].map(Dim::from), [1; 3]),
        Form::Loops => loops::write(&mut g, kernel)?,
        Form::Contract(c) if share => shared::write(&mut g, kernel, c)?,
        Form::Contract(c) => contract::write(&mut g, kernel, c)?,
        Form::Program(body) => program::write(&mut g, kernel, body)?,
        Form::Attention(a) => attention::write(&mut g, kernel, a)?,
    };
    let shader = Shader {
        code: g.assemble(workgroup_size)?,
        bindings: g.buffers.iter().map(|(v, a)| (*v, a.written)).collect(),
        workgroups,
        uses_dims: g.uses_dims,
        overflow: g.used.overflow(),
        workgroup_size: workgroup_size.iter().product(),
        workgroup_storage: g.shared_bytes,
    };
    let vectors = g.vector_buffers();
    Ok((shader, vectors))
}

/// Parses and validates a shader as every implementation must accept it.
pub fn validate(wgsl: &str) -> Result<()> {
    let defect = |what: String| Error::new(Kind::Internal, format!("invalid WGSL: {what}\n{wgsl}"));
    let module = naga::front::wgsl::parse_str(wgsl).map_err(|e| defect(e.emit_to_string(wgsl)))?;
    let mut validator =
        naga::valid::Validator::new(naga::valid::ValidationFlags::all(), naga::valid::Capabilities::empty());
    validator.validate(&module).map_err(|e| defect(e.emit_to_string(wgsl)))?;
    Ok(())
}
