// NumPy's .npy files, version 1 to 3, little-endian and in C order. Runs in Node and in pages.

const ARRAYS = {
  "<f4": ["float32", Float32Array],
  "<f8": ["float64", Float64Array],
  "<i8": ["int64", BigInt64Array],
  "<i4": ["int32", Int32Array],
  "|u1": ["uint8", Uint8Array],
  "|i1": ["int8", Int8Array],
  "|b1": ["bool", Uint8Array],
} as const;

type Descriptor = keyof typeof ARRAYS;
export type NpyType = (typeof ARRAYS)[Descriptor][0];
export type NpyData = InstanceType<(typeof ARRAYS)[Descriptor][1]>;

export interface Npy {
  readonly dtype: NpyType;
  readonly shape: readonly number[];
  readonly data: NpyData;
}

/** Reads a file's bytes. */
export function parseNpy(bytes: Uint8Array): Npy {
  const magic = String.fromCharCode(...bytes.subarray(1, 6));
  if (bytes[0] !== 0x93 || magic !== "NUMPY") throw new Error("not an .npy file");
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const wide = (bytes[6] ?? 0) >= 2;
  const start = wide ? 12 : 10;
  const length = wide ? view.getUint32(8, true) : view.getUint16(8, true);
  const header = new TextDecoder().decode(bytes.subarray(start, start + length));
  const descriptor = /'descr':\s*'([^']+)'/.exec(header)?.[1] ?? "";
  if (!(descriptor in ARRAYS)) throw new Error(`.npy of type ${descriptor} is not read here`);
  if (!/'fortran_order':\s*False/.test(header)) throw new Error(".npy in Fortran order is not read here");
  const dims = /'shape':\s*\(([^)]*)\)/.exec(header)?.[1] ?? "";
  const shape = dims.split(",").filter((dim) => dim.trim() !== "").map(Number);
  const [dtype, array] = ARRAYS[descriptor as Descriptor];
  // A copy, because the data may lie at an offset that the array type does not accept. Node's Buffer has a `slice` that
  // copies nothing.
  return { dtype, shape, data: new array(Uint8Array.from(bytes.subarray(start + length)).buffer) };
}
