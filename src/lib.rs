//! Nearside compiles ONNX models to WebAssembly and WGSL, ships them as npm packages, and runs them on the client.
//!
//! The way of a model, and what each module may use, stands in `ARCHITECTURE.md`.

pub mod error;
pub mod plan;
pub mod runtime;
pub mod tensor;
pub mod trust;

#[cfg(feature = "compiler")]
pub mod compile;
#[cfg(feature = "compiler")]
pub mod emit;
#[cfg(feature = "compiler")]
pub mod graph;
#[cfg(feature = "compiler")]
pub mod kernel;
#[cfg(feature = "compiler")]
pub mod lower;

#[cfg(feature = "cli")]
pub mod cli;
#[cfg(feature = "compiler")]
pub mod onnx;
#[cfg(feature = "compiler")]
pub mod package;
#[cfg(feature = "cli")]
pub mod serve;
#[cfg(feature = "cli")]
pub mod store;

#[cfg(all(any(feature = "web", feature = "compiler-web"), target_arch = "wasm32"))]
pub mod web;
