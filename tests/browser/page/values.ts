// Little-endian bytes of a tensor as typed arrays and as numbers.
import type { DataType, TensorData } from "nearside";

/** The typed array that a tensor of this type takes. */
export function view(dtype: DataType, bytes: ArrayBuffer): TensorData {
  switch (dtype) {
    case "float32":
      return new Float32Array(bytes);
    case "float64":
      return new Float64Array(bytes);
    case "float16":
    case "bfloat16":
    case "uint16":
      return new Uint16Array(bytes);
    case "int8":
      return new Int8Array(bytes);
    case "uint8":
    case "bool":
      return new Uint8Array(bytes);
    case "int16":
      return new Int16Array(bytes);
    case "int32":
      return new Int32Array(bytes);
    case "uint32":
      return new Uint32Array(bytes);
    case "int64":
      return new BigInt64Array(bytes);
    case "uint64":
      return new BigUint64Array(bytes);
  }
}

function half(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 31;
  const fraction = bits & 1023;
  if (exponent === 0) return sign * fraction * 2 ** -24;
  if (exponent === 31) return fraction ? Number.NaN : sign * Number.POSITIVE_INFINITY;
  return sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
}

function bfloat(bits: number): number {
  return new Float32Array(Uint32Array.of(bits << 16).buffer)[0] ?? Number.NaN;
}

/** The elements as numbers. 64-bit integers beyond 2^53 lose their last bits, the same on both sides of a comparison. */
export function numbers(dtype: DataType, data: TensorData): number[] {
  const elements = data as Iterable<number | bigint>;
  if (dtype === "float16") return Array.from(elements, (bits) => half(Number(bits)));
  if (dtype === "bfloat16") return Array.from(elements, (bits) => bfloat(Number(bits)));
  return Array.from(elements, Number);
}
