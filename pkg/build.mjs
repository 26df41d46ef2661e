// Bundles src into dist: few modules, because a browser finds out about imports of imports one request after the other.
// Declarations are tsc's.
import { readdirSync, rmSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const dist = new URL("./dist/", import.meta.url);
// Chunks are named by their content: those of the build before would stay.
for (const name of readdirSync(dist)) if (name.endsWith(".js")) rmSync(new URL(name, dist));

const bundle = (names) =>
  build({
    absWorkingDir: fileURLToPath(new URL("./", import.meta.url)),
    entryPoints: names.map((name) => `src/${name}.ts`),
    outdir: "dist",
    bundle: true,
    splitting: true,
    format: "esm",
    target: "es2022",
    // wasm-bindgen's modules, each beside its .wasm file, and what the command asks of Node.
    external: ["./wasm/*", "node:*"],
    minify: true,
    logLevel: "warning",
  });

// These share classes, so that an error of one is an error to the other.
await bundle(["index", "compiler", "cli", "internals"]);
await bundle(["worker", "store-worker"]);
