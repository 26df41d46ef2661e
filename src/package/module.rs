//! The package's JavaScript: a module that loads the model from where it lies, and its types from the signature.

use crate::plan::{Plan, Port};

/// `index.js`. Each file stands in a URL of its own: so bundlers find it and emit it.
pub fn javascript<'a>(paths: impl Iterator<Item = &'a str>) -> String {
    let files: String = paths
        .map(|p| format!("  {0}: new URL({1}, import.meta.url),\n", quoted(p), quoted(&format!("./{p}"))))
        .collect();
    format!(
        "import {{ load as loadModel }} from \"nearside\";\n\n\
         const files = {{\n{files}}};\n\n\
         /** Loads this model. */\n\
         export const load = (options) => loadModel({{ files }}, options);\n"
    )
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
    fn every_file_is_a_url_of_its_own() {
        let js = javascript(["manifest.json", "model.wasm"].into_iter());
        assert!(js.contains("\"model.wasm\": new URL(\"./model.wasm\", import.meta.url),\n"), "{js}");
    }

    #[test]
    fn names_are_quoted() {
        assert_eq!(quoted("a\"b\\\n"), r#""a\"b\\\u000a""#);
    }
}
