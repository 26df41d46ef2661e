#!/usr/bin/env node
// `npx nearside build` and `npx nearside inspect`: the compiler under Node, without Rust.
import { closeSync, fstatSync, openSync, readSync } from "node:fs";
import { mkdir, readFile, readdir, rename, rm, writeFile } from "node:fs/promises";
import { basename, dirname, join, resolve } from "node:path";
import { parseArgs } from "node:util";
import { type BuildOptions, type Built, type External, build, inspect } from "./compiler.js";
import { type ErrorCode, NearsideError, toError } from "./errors.js";
import { readNpy, readNpz } from "./npz.js";
import type { Tensor } from "./tensor.js";

const USAGE = `Compiles ONNX models to WebAssembly and WGSL.

Usage: nearside build MODEL.onnx -o DIR [--name N] [--version V] [--dim NAME=MIN..MAX]… [--weights f32|f16]
                      [--golden IN.npz] [--constant NAME=FILE.npy]… [--unfused]
       nearside inspect MODEL.onnx|DIR

Options:
  -o, --output DIR    The package folder to write; it must not exist, be empty, or hold a package
      --name N        The package's name [default: the file's name]
      --version V     The package's version [default: 1.0.0]
      --dim NAME=MIN..MAX
                      Bounds of a symbolic dimension; those not named are fixed at 1
      --constant NAME=FILE.npy
                      An input that becomes a constant, so that shapes may depend on it
      --weights T     How float32 weights are stored and downloaded: f32 or f16 [default: f32]
      --golden IN.npz Inputs whose outputs every device must reproduce before it is trusted [default: made up]
      --unfused       Compile every operator by itself
      --json          Print the result, or the error, as one line of JSON
  -h, --help          Print this

Exit codes: 0 success, 1 a defect or an I/O error, 2 wrong arguments, 3 the model is not valid or not supported,
4 a damaged package, 5 no such file, 6 it exists already, 7 too little memory`;

const CODES: Partial<Record<ErrorCode, number>> = {
  "invalid-input": 2,
  "dim-out-of-bounds": 2,
  "invalid-model": 3,
  "unsupported-op": 3,
  "unsupported-type": 3,
  "invalid-shape": 3,
  overflow: 3,
  "invalid-package": 4,
  "format-version": 4,
  integrity: 4,
  "not-found": 5,
  conflict: 6,
  "device-limit": 7,
};

const OPTIONS = {
  output: { type: "string", short: "o" },
  name: { type: "string" },
  version: { type: "string", default: "1.0.0" },
  dim: { type: "string", multiple: true, default: [] as string[] },
  weights: { type: "string", default: "f32" },
  golden: { type: "string" },
  constant: { type: "string", multiple: true, default: [] as string[] },
  unfused: { type: "boolean", default: false },
  json: { type: "boolean", default: false },
  help: { type: "boolean", short: "h", default: false },
} as const;

const usage = (what: string) => new NearsideError("invalid-input", what, { help: "nearside --help" });

function parse(args: string[]) {
  try {
    return parseArgs({ args, options: OPTIONS, allowPositionals: true });
  } catch (cause) {
    throw usage(cause instanceof Error ? cause.message : String(cause));
  }
}

function parseDim(text: string): [string, [number, number]] {
  const [, name, min, max] = /^([^=]+)=(\d+)(?:\.\.=?(\d+))?$/.exec(text) ?? [];
  const range: [number, number] = [Number(min), Number(max ?? min)];
  if (name === undefined || range[1] < range[0]) throw usage(`"${text}" is not NAME=MIN..MAX or NAME=N`);
  return [name, range];
}

async function read(path: string): Promise<Uint8Array> {
  try {
    return await readFile(path);
  } catch (cause) {
    const missing = cause instanceof Error && "code" in cause && cause.code === "ENOENT";
    throw new NearsideError(missing ? "not-found" : "io", missing ? "there is no such file" : toError(cause).what, { place: path });
  }
}

/** What `parse` makes of a NumPy file. */
async function readNumpy<T>(path: string, parse: (bytes: Uint8Array) => T): Promise<T> {
  const bytes = await read(path);
  try {
    return parse(bytes);
  } catch (thrown) {
    const { code, what, place, help } = toError(thrown);
    throw new NearsideError(code, what, { place: place === undefined ? path : `${path}: ${place}`, help });
  }
}

/** NAME=FILE.npy */
async function readConstant(text: string): Promise<[string, Tensor]> {
  const at = text.indexOf("=");
  if (at < 1) throw usage(`"${text}" is not NAME=FILE.npy`);
  return [text.slice(0, at), await readNumpy(text.slice(at + 1), readNpy)];
}

/** Reads tensors from the files beside the model. The compiler has checked that the names stay below its folder. */
function beside(folder: string): External {
  return (location, offset, length) => {
    const file = openSync(join(folder, location), "r");
    try {
      if (offset + length > fstatSync(file).size) throw new Error(`${length} bytes from ${offset} reach beyond its end`);
      const bytes = new Uint8Array(length);
      for (let at = 0; at < length; ) {
        const n = readSync(file, bytes, at, length - at, offset + at);
        if (n === 0) throw new Error("it ends early");
        at += n;
      }
      return bytes;
    } finally {
      closeSync(file);
    }
  };
}

/** Only a folder that holds nothing, or a package, is written over. */
async function checkFolder(folder: string): Promise<void> {
  const entries = await readdir(folder).catch((): string[] => []);
  if (entries.length > 0 && !entries.includes("manifest.json")) {
    throw new NearsideError("conflict", "the folder is not empty and holds no package", { place: folder, help: "name another folder with -o" });
  }
}

/** Writes the package beside its place, then moves it there: a folder is a whole package or none. */
async function write(folder: string, built: Built): Promise<void> {
  const parts = `${resolve(folder)}.partial-${process.pid}`;
  try {
    for (const [path, bytes] of Object.entries(built.files)) {
      await mkdir(dirname(join(parts, path)), { recursive: true });
      await writeFile(join(parts, path), bytes);
    }
    await rm(folder, { recursive: true, force: true });
    await rename(parts, folder);
  } catch (cause) {
    await rm(parts, { recursive: true, force: true });
    throw new NearsideError("io", toError(cause).what, { place: folder, cause });
  }
}

interface Result {
  readonly json: unknown;
  readonly text: string;
}

async function main(args: string[]): Promise<Result> {
  const { values, positionals } = parse(args);
  const [command, path, ...rest] = positionals;
  if (values.help || command === undefined) return { json: { usage: USAGE }, text: USAGE };
  if (path === undefined || rest.length > 0) throw usage(`${command} takes one model`);
  if (command === "inspect") return show(path);
  if (command !== "build") throw usage(`there is no command "${command}" here; the native nearside has more`);
  if (values.output === undefined) throw usage("build needs -o DIR");
  const { weights } = values;
  if (weights !== "f32" && weights !== "f16") throw usage(`--weights is "${weights}", not f32 or f16`);
  const begin = performance.now();
  const name = values.name ?? basename(path).replace(/\.[^.]*$/, "").toLowerCase().replace(/[^a-z0-9._-]/g, "-");
  await checkFolder(values.output);
  const model = await read(path);
  const dims = Object.fromEntries(values.dim.map(parseDim));
  const external = beside(dirname(path));
  const golden = values.golden === undefined ? {} : { golden: await readNumpy(values.golden, readNpz) };
  const constants = Object.fromEntries(await Promise.all(values.constant.map(readConstant)));
  const options: BuildOptions = { name, version: values.version, dims, constants, weights, fused: !values.unfused, external, ...golden };
  const built = await build(model, options);
  await write(values.output, built);
  const { summary } = built;
  const seconds = (performance.now() - begin) / 1000;
  for (const note of values.json ? [] : summary.notes) process.stderr.write(`note: ${note}\n`);
  const gpu = summary.dispatches === undefined ? "none" : `${summary.dispatches} dispatches`;
  const text = `Built ${summary.name}@${summary.version} in ${seconds.toFixed(1)} s: ${summary.kernels} kernels on wasm, ${gpu} on WebGPU\n  ${values.output}`;
  return { json: { package: values.output, ...summary, seconds }, text };
}

async function show(path: string): Promise<Result> {
  const report = await readFile(join(path, "report.txt"), "utf8").catch(() => undefined);
  if (report !== undefined) {
    const manifest: unknown = JSON.parse(await readFile(join(path, "manifest.json"), "utf8"));
    return { json: manifest, text: report };
  }
  const contents = await inspect(await read(path), beside(dirname(path)));
  const list = (title: string, rows: readonly string[]) => `${title}\n${rows.map((r) => `  ${r}\n`).join("")}`;
  const ops = contents.ops.map(([op, n]) => `${String(n).padStart(5)}  ${op}`);
  const text = `${contents.name}, ${contents.parameters} parameters\n${list("inputs", contents.inputs)}${list("outputs", contents.outputs)}${list("operators", ops)}`;
  const why = contents.untyped;
  const untyped = why === undefined ? "" : `not all types are known without the sizes of the inputs (build takes --dim)\n  ${why}\n`;
  return { json: contents, text: text + untyped };
}

const args = process.argv.slice(2);
const json = args.includes("--json");
try {
  const result = await main(args);
  process.stdout.write(`${json ? JSON.stringify(result.json) : result.text.trimEnd()}\n`);
} catch (thrown) {
  const { code, what, place, help } = toError(thrown);
  if (json) process.stdout.write(`${JSON.stringify({ error: { code, message: what, place, help } })}\n`);
  else process.stderr.write(`error: ${place === undefined ? "" : `${place}: `}${what} [${code}]${help === undefined ? "" : `\n  help: ${help}`}\n`);
  process.exitCode = CODES[code] ?? 1;
}
