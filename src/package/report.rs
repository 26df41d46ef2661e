//! The build report: what the model became, as text and as a page.

use crate::compile::Compiled;
use crate::package::variant_file;
use crate::tensor::show;
use std::collections::BTreeSet;
use std::fmt::Write;

/// A row of the report: what, and how much or which.
type Row = (String, String);

/// `1.5 MB`.
pub fn size(bytes: u64) -> String {
    match bytes {
        0..1000 => format!("{bytes} B"),
        1000..1_000_000 => format!("{:.1} kB", bytes as f64 / 1e3),
        _ => format!("{:.1} MB", bytes as f64 / 1e6),
    }
}

/// The report's sections.
fn sections(c: &Compiled) -> Vec<(&'static str, Vec<Row>)> {
    let plan = &c.plan;
    let row = |a: &str, b: String| (a.to_owned(), b);
    let signature = |ports: &[crate::plan::Port], what: &str| -> Vec<Row> {
        ports.iter().map(|p| (format!("{what} {}", p.name), format!("{} {}", p.dtype, show(&p.shape)))).collect()
    };
    let mut model = vec![row("name", plan.name.clone()), row("version", plan.version.clone())];
    model.extend(signature(&plan.inputs, "input"));
    model.extend(signature(&plan.outputs, "output"));
    model.extend(
        plan.dims.iter().map(|d| row(&format!("dimension {}", d.name), format!("{}..{}", d.range.min, d.range.max))),
    );
    model.extend(c.report.notes.iter().map(|n| row("note", n.clone())));
    let mut graph = vec![
        row("nodes read", c.report.nodes_read.to_string()),
        row("nodes after rewriting", c.report.nodes_after_passes.to_string()),
        row("values lowered", c.report.values_lowered.to_string()),
        row("values stored after fusion", c.report.values_stored.to_string()),
        row("kernels on wasm", plan.cpu.kernels.len().to_string()),
    ];
    if let Some(gpu) = &plan.gpu {
        graph.push(row("dispatches on WebGPU", gpu.dispatches.len().to_string()));
        let first: BTreeSet<u32> =
            gpu.dispatches.iter().filter_map(|d| d.candidates.first()).map(|c| c.shader).collect();
        graph.push(row("shaders", format!("{} (and {} to choose from)", first.len(), gpu.shaders.len() - first.len())));
    }
    let ops = c.report.ops.iter().map(|(op, n)| row(op, n.to_string())).collect();
    let weights: u64 = plan.packs.iter().map(|p| p.size).sum();
    let mut memory = vec![
        row("weights", size(weights)),
        row("wasm memory", size(plan.cpu.memory)),
        row(
            "wasm activations",
            format!("{} (least possible {})", size(c.report.cpu_activations), size(c.report.cpu_optimum)),
        ),
    ];
    if let (Some(gpu), Some(bytes)) = (&plan.gpu, plan.gpu_bytes()) {
        memory.push(row("WebGPU buffers", size(bytes)));
        memory.push(row(
            "WebGPU activations",
            format!("{} (least possible {})", size(c.report.gpu_activations), size(c.report.gpu_optimum)),
        ));
        memory.push(row("needs maxBufferSize", size(gpu.requires.max_buffer_size)));
        memory.push(row("needs maxStorageBufferBindingSize", size(gpu.requires.max_storage_binding)));
        memory.push(row("needs maxStorageBuffersPerShaderStage", gpu.requires.max_storage_bindings.to_string()));
    }
    let mut code: Vec<Row> = c.wasm.iter().map(|(v, b)| row(variant_file(*v).0, size(b.len() as u64))).collect();
    code.push(row("model.wgsl", size(c.wgsl.len() as u64)));
    vec![("Model", model), ("Graph", graph), ("Operators", ops), ("Memory", memory), ("Code", code)]
}

/// `report.txt`.
pub fn text(c: &Compiled) -> String {
    let mut out = String::new();
    for (title, rows) in sections(c) {
        let _ = writeln!(out, "{title}");
        let width = rows.iter().map(|r| r.0.chars().count()).max().unwrap_or(0);
        for (what, value) in rows {
            let _ = writeln!(out, "  {what:width$}  {value}");
        }
        out.push('\n');
    }
    let _ = writeln!(out, "Kernels on wasm, in order");
    for (i, k) in c.plan.cpu.kernels.iter().enumerate() {
        let _ = writeln!(out, "  {i:4}  {k}");
    }
    if let Some(gpu) = &c.plan.gpu {
        let _ = writeln!(out, "\nDispatches on WebGPU, in order");
        for (i, d) in gpu.dispatches.iter().enumerate() {
            let Some(c) = d.candidates.first() else { continue };
            let [x, y, z] = &c.workgroups;
            let _ = writeln!(out, "  {i:4}  shader {:3}  {x} x {y} x {z}  {}", c.shader, d.name);
        }
    }
    out
}

fn escape(s: &str) -> String {
    s.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#1c2430;\
background:#fbfcfd}h1{font-size:1.6rem}h2{font-size:1.1rem;margin:2rem 0 .5rem}table{border-collapse:collapse;width:100%}\
td{padding:.25rem .75rem .25rem 0;border-bottom:1px solid #dde3ea;vertical-align:top}td+td{text-align:right;\
font-variant-numeric:tabular-nums}.bar{display:block;height:.5rem;border-radius:.25rem;background:#2b6cb0}\
ol{columns:2;font-size:.85rem}@media(max-width:40rem){ol{columns:1}}@media(prefers-color-scheme:dark){body{color:#dfe6ee;\
background:#12161c}td{border-color:#2a323d}.bar{background:#63b3ed}}";

/// `report.html`: the same with bars for the operators; it needs nothing but itself.
pub fn html(c: &Compiled) -> String {
    let mut out = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\
         <title>{0} {1}</title><style>{STYLE}</style></head><body>\n<h1>{0} {1}</h1>\n",
        escape(&c.plan.name),
        escape(&c.plan.version)
    );
    let most = c.report.ops.values().copied().max().unwrap_or(1).max(1);
    for (title, rows) in sections(c) {
        let _ = writeln!(out, "<h2>{title}</h2>\n<table>");
        for (what, value) in rows {
            let bar = match (title, value.parse::<usize>()) {
                ("Operators", Ok(n)) => {
                    format!(
                        "<td style=\"width:50%\"><span class=\"bar\" style=\"width:{}%\"></span></td>",
                        100 * n / most
                    )
                }
                _ => String::new(),
            };
            let _ = writeln!(out, "<tr><td>{}</td>{bar}<td>{}</td></tr>", escape(&what), escape(&value));
        }
        out.push_str("</table>\n");
    }
    out.push_str("<h2>Kernels on wasm, in order</h2>\n<ol>\n");
    for k in &c.plan.cpu.kernels {
        let _ = writeln!(out, "<li>{}</li>", escape(k));
    }
    out.push_str("</ol>\n</body></html>\n");
    out
}
