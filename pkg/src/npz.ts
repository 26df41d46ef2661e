// NumPy's .npz archives under Node: ZIP files of .npy tensors.
import { inflateRawSync } from "node:zlib";
import { NearsideError } from "./errors.js";
import { type DataType, Tensor, elementSize, viewOf } from "./tensor.js";

/** NumPy's names of element types. */
const TYPES: Readonly<Record<string, DataType>> = {
  "<f4": "float32",
  "<f8": "float64",
  "<f2": "float16",
  "|i1": "int8",
  "<i2": "int16",
  "<i4": "int32",
  "<i8": "int64",
  "|u1": "uint8",
  "<u2": "uint16",
  "<u4": "uint32",
  "<u8": "uint64",
  "|b1": "bool",
};

/** A tensor of the archive may have as many bytes. */
const MOST = 2 ** 31 - 1;

const invalid = (what: string, help?: string) => new NearsideError("invalid-input", what, { help });

const viewAt = (bytes: Uint8Array) => new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);

/** Every tensor of a .npz file, by name. */
export function readNpz(bytes: Uint8Array): Record<string, Tensor> {
  try {
    const all: Record<string, Tensor> = {};
    for (const [path, data] of entries(bytes)) {
      const name = path.replace(/\.npy$/, "");
      try {
        all[name] = readNpy(data);
      } catch (thrown) {
        throw thrown instanceof NearsideError ? new NearsideError(thrown.code, thrown.what, { place: name, help: thrown.help }) : thrown;
      }
    }
    return all;
  } catch (thrown) {
    // Offsets that lead outside of the file, and deflated data that is none.
    if (thrown instanceof RangeError || (thrown instanceof Error && "code" in thrown && String(thrown.code).startsWith("Z_"))) {
      throw invalid(`not a .npz archive: ${thrown.message}`);
    }
    throw thrown;
  }
}

/** Path and bytes of the files in a ZIP archive, as its directory at the end lists them. */
function* entries(zip: Uint8Array): Generator<[string, Uint8Array]> {
  const view = viewAt(zip);
  let end = zip.length - 22;
  while (end >= 0 && view.getUint32(end, true) !== 0x06054b50) end--;
  if (end < 0) throw invalid("not a .npz archive: it has no directory", "numpy.savez writes one");
  const count = view.getUint16(end + 10, true);
  let at = view.getUint32(end + 16, true);
  for (let i = 0; i < count; i++) {
    if (view.getUint32(at, true) !== 0x02014b50) throw invalid("not a .npz archive: its directory is damaged");
    const [method, packed, size] = [view.getUint16(at + 10, true), view.getUint32(at + 20, true), view.getUint32(at + 24, true)];
    const [name, extra, comment] = [28, 30, 32].map((o) => view.getUint16(at + o, true)) as [number, number, number];
    const path = new TextDecoder().decode(zip.subarray(at + 46, at + 46 + name));
    const local = view.getUint32(at + 42, true);
    const start = local + 30 + view.getUint16(local + 26, true) + view.getUint16(local + 28, true);
    if (packed > MOST || size > MOST || start + packed > zip.length) throw invalid(`"${path}" is too large, or cut off`);
    const data = zip.subarray(start, start + packed);
    if (method !== 0 && method !== 8) throw invalid(`"${path}" is compressed by method ${method}`, "numpy.savez_compressed writes method 8");
    const whole = method === 0 ? data : inflateRawSync(data, { maxOutputLength: Math.max(size, 1) });
    if (whole.length !== size) throw invalid(`"${path}" has ${whole.length} bytes, not ${size}`);
    yield [path, whole];
    at += 46 + name + extra + comment;
  }
}

/** A .npy file. */
export function readNpy(bytes: Uint8Array): Tensor {
  if (bytes[0] !== 0x93 || new TextDecoder().decode(bytes.subarray(1, 6)) !== "NUMPY") throw invalid("not a .npy file");
  const view = viewAt(bytes);
  const wide = view.getUint8(6) >= 2;
  const begin = wide ? 12 : 10;
  const start = begin + (wide ? view.getUint32(8, true) : view.getUint16(8, true));
  const header = new TextDecoder().decode(bytes.subarray(begin, start));
  const descriptor = /'descr':\s*'([^']*)'/.exec(header)?.[1] ?? "";
  const shape = /'shape':\s*\(([\d,\s]*)\)/.exec(header)?.[1];
  if (shape === undefined) throw invalid("not a .npy file: its header has no shape");
  const type = TYPES[descriptor];
  if (type === undefined) {
    throw new NearsideError("unsupported-type", `elements of type ${descriptor}`, { help: "use a little-endian integer, float or bool type" });
  }
  const dims = shape.split(",").flatMap((d) => (d.trim() === "" ? [] : [Number(d)]));
  if (dims.length > 1 && !/'fortran_order':\s*False/.test(header)) {
    throw invalid("the array is in Fortran order", "save it with numpy.ascontiguousarray");
  }
  const data = bytes.slice(start);
  const want = dims.reduce((n, d) => n * d, elementSize(type));
  if (data.length !== want) throw invalid(`not a .npy file: ${data.length} bytes of data where ${want} are wanted`);
  return new Tensor(type, viewOf(type, Uint8Array.from(data).buffer), dims);
}
