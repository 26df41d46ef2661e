//! The wasm-bindgen modules: conversion between JavaScript and Rust, nothing else. `pkg/src` is what calls them.
//!
//! Every error is thrown as a plain object `{ code, what, place, help }`; `pkg/src/errors.ts` makes a class of it.

#[cfg(feature = "compiler-web")]
mod compiler;
#[cfg(feature = "web")]
mod gpu;
#[cfg(feature = "web")]
mod runtime;
mod tensor;

use crate::error::{Error, Kind};
use serde::{Deserialize, Serialize};
use wasm_bindgen::prelude::*;

type Result<T> = std::result::Result<T, JsValue>;

#[derive(Serialize)]
struct Thrown<'a> {
    code: &'a str,
    what: &'a str,
    place: Option<&'a str>,
    help: Option<&'a str>,
}

fn throw(e: Error) -> JsValue {
    let thrown = Thrown { code: e.kind().code(), what: e.message(), place: e.place(), help: e.help_text() };
    serde_wasm_bindgen::to_value(&thrown).unwrap_or_else(|_| JsValue::from_str(e.message()))
}

fn to_js(value: &impl Serialize) -> Result<JsValue> {
    serde_wasm_bindgen::to_value(value).map_err(|e| throw(Error::new(Kind::Internal, e.to_string())))
}

fn from_js<T: for<'a> Deserialize<'a>>(value: JsValue, kind: Kind) -> Result<T> {
    serde_wasm_bindgen::from_value(value).map_err(|e| throw(Error::new(kind, e.to_string())))
}
