//! The functions of a module: equal functions are one.

use std::collections::HashMap;
use wasm_encoder::{CodeSection, FunctionSection, InstructionSink, TypeSection, ValType};

/// A function's signature, locals and instructions without the last `end`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Function {
    pub(super) params: Vec<ValType>,
    pub(super) results: Vec<ValType>,
    pub(super) locals: Vec<ValType>,
    pub(super) code: Vec<u8>,
}

/// All functions of the module, in order of their indices.
#[derive(Debug, Default)]
pub(super) struct Shared {
    functions: Vec<Function>,
    index: HashMap<Function, u32>,
    /// Functions of [`super::math`] that are in the module.
    pub(super) named: HashMap<String, u32>,
}

impl Shared {
    /// The index of that function, which is added if it is new.
    pub(super) fn add(&mut self, f: Function) -> u32 {
        if let Some(i) = self.index.get(&f) {
            return *i;
        }
        let i = u32::try_from(self.functions.len()).unwrap_or(u32::MAX);
        self.functions.push(f.clone());
        self.index.insert(f, i);
        i
    }

    /// Whether an f64 is a whole number; infinities are.
    pub(super) fn exact(&mut self) -> u32 {
        let mut code = vec![];
        InstructionSink::new(&mut code).local_get(0).local_get(0).f64_trunc().f64_eq();
        self.add(Function { params: vec![ValType::F64], results: vec![ValType::I32], locals: vec![], code })
    }

    /// The type, function and code sections.
    pub(super) fn sections(&self) -> (TypeSection, FunctionSection, CodeSection) {
        let (mut types, mut functions, mut code) = (TypeSection::new(), FunctionSection::new(), CodeSection::new());
        let mut signatures: HashMap<(&[ValType], &[ValType]), u32> = HashMap::new();
        for f in &self.functions {
            let next = u32::try_from(signatures.len()).unwrap_or(u32::MAX);
            let t = *signatures.entry((&f.params, &f.results)).or_insert_with(|| {
                types.ty().function(f.params.iter().copied(), f.results.iter().copied());
                next
            });
            functions.function(t);
            let mut body = wasm_encoder::Function::new_with_locals_types(f.locals.iter().copied());
            body.raw(f.code.iter().copied());
            body.instructions().end();
            code.function(&body);
        }
        (types, functions, code)
    }
}
