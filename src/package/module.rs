//! The package's JavaScript: a module that loads the model from where it lies, and its types from the signature.

use crate::plan::{Plan, Port};

/// `index.js`.
pub fn javascript() -> String {
    r#"import { load as loadModel } from "nearside";

/** Loads this model from the folder of this module. */
export const load = (options) => loadModel(new URL("./", import.meta.url), options);
"#
    .into()
}

/// `index.d.ts`: inputs and outputs by name, with their element types and shapes.
pub fn types(plan: &Plan) -> String {
    let dims: String = plan
        .dims
        .iter()
        .map(|d| format!(" * @remarks `{}` may be {} to {}.\n", d.name, d.range.min, d.range.max))
        .collect();
    format!(
        "import type {{ LoadOptions, Model, Tensor }} from \"nearside\";\n\n\
         /** What the model takes. */\nexport interface Inputs {{\n{}}}\n\n\
         /** What the model gives. */\nexport interface Outputs {{\n{}}}\n\n\
         /**\n * Loads {} {}.\n{dims} */\n\
         export declare const load: (options?: LoadOptions) => Promise<Model<Inputs, Outputs>>;\n",
        plan.inputs.iter().map(field).collect::<String>(),
        plan.outputs.iter().map(field).collect::<String>(),
        plan.name,
        plan.version,
    )
}

fn field(port: &Port) -> String {
    let shape = crate::tensor::show(&port.shape).replace("*/", "* /");
    format!("  /** {} {shape} */\n  {}: Tensor<\"{}\">;\n", port.dtype, quoted(&port.name), port.dtype)
}

/// A JSON string, which is a JavaScript property name too.
fn quoted(s: &str) -> String {
    let mut out = String::from("\"");
    for c in s.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c.is_control() => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// `package.json`.
pub fn package_json(plan: &Plan) -> String {
    format!(
        r#"{{
  "name": {},
  "version": {},
  "type": "module",
  "sideEffects": false,
  "exports": {{
    ".": {{ "types": "./index.d.ts", "default": "./index.js" }},
    "./*": "./*"
  }},
  "types": "./index.d.ts",
  "peerDependencies": {{ "nearside": "^{}" }}
}}
"#,
        quoted(&plan.name),
        quoted(&plan.version),
        env!("CARGO_PKG_VERSION"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_quoted() {
        assert_eq!(quoted("a\"b\\\n"), r#""a\"b\\\u000a""#);
    }
}
