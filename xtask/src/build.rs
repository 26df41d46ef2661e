//! `cargo xtask build`: the native program, the wasm modules of the npm package, the package and the page.

use std::path::PathBuf;

use anyhow::{Result, anyhow};

use crate::{process, progress, stamps, wasm};

/// A wasm module of the npm package, built from the library with one feature.
struct Module {
    name: &'static str,
    feature: &'static str,
}

const MODULES: [Module; 2] =
    [Module { name: "runtime", feature: "web" }, Module { name: "compiler", feature: "compiler-web" }];

/// Everything; returns the path of the program. The native build and that of the wasm modules run beside each other: the
/// last steps of each, the linker's optimizations above all, use one core only.
pub(crate) fn run() -> Result<PathBuf> {
    let nearside = std::thread::scope(|scope| {
        let nearside = scope.spawn(|| native("nearside", "nearside"));
        package()?;
        nearside.join().map_err(|_| anyhow!("the native build crashed"))?
    })?;
    page()?;
    Ok(nearside)
}

/// Builds the program `bin` of the package `package` and returns its path. The profile is that of the tests, whose
/// dependencies are optimized: one build of them serves all commands.
pub(crate) fn native(package: &str, bin: &str) -> Result<PathBuf> {
    let bar = progress::spinner(format!("build {bin}"));
    let mut cargo = process::command("cargo");
    process::run(cargo.args(["build", "--package", package, "--bin", bin]), &bar)?;
    progress::done(&bar);
    let name = format!("{bin}{}", std::env::consts::EXE_SUFFIX);
    Ok(process::target().join("debug").join(name))
}

/// The npm package in `pkg/dist`.
pub(crate) fn package() -> Result<()> {
    for module in &MODULES {
        build_module(module)?;
    }
    let pkg = process::root().join("pkg");
    let inputs = ["src", "dist/wasm", "build.mjs", "package.json", "tsconfig.json"].map(|name| pkg.join(name));
    npm_build("pkg", &inputs, &pkg.join("dist/index.js"))
}

/// The page in `www/dist`.
pub(crate) fn page() -> Result<()> {
    let root = process::root();
    let www = root.join("www");
    let inputs = [
        www.join("src"),
        www.join("public"),
        www.join("package.json"),
        www.join("tsconfig.json"),
        root.join("webpack.config.js"),
        root.join("package-lock.json"),
        root.join("pkg/dist"),
    ];
    npm_build("www", &inputs, &www.join("dist/index.html"))
}

fn build_module(module: &Module) -> Result<()> {
    let bar = progress::spinner(format!("build the {} for WebAssembly", module.name));
    // A folder for each feature, because cargo would else build all dependencies anew at each turn.
    let target = process::target().join(format!("wasm-{}", module.name));
    let mut cargo = process::command("cargo");
    cargo.args(["build", "--package", "nearside", "--lib", "--profile", "web", "--target", "wasm32-unknown-unknown"]);
    cargo.args(["--no-default-features", "--features", module.feature]).env("CARGO_TARGET_DIR", &target);
    process::run(&mut cargo, &bar)?;
    let built = target.join("wasm32-unknown-unknown/web/nearside.wasm");
    let folder = process::root().join("pkg/dist/wasm");
    let optimized = folder.join(format!("{}_bg.wasm", module.name));
    stamps::when_changed(module.name, std::slice::from_ref(&built), std::slice::from_ref(&optimized), || {
        wasm::bindgen(&built, &folder, module.name)?;
        wasm::optimize(&optimized, &bar)?;
        wasm::minify(&folder.join(format!("{}.js", module.name)), &bar)
    })?;
    progress::done(&bar);
    Ok(())
}

/// Runs the script `build` of an npm workspace.
fn npm_build(workspace: &str, inputs: &[PathBuf], output: &PathBuf) -> Result<()> {
    let bar = progress::spinner(format!("build {workspace}/"));
    stamps::when_changed(workspace, inputs, std::slice::from_ref(output), || {
        process::run(process::command("npm").args(["run", "build", "--workspace", workspace]), &bar).map(drop)
    })?;
    progress::done(&bar);
    Ok(())
}
