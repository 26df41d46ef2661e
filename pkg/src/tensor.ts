// Tensors: typed arrays with dims, in the CPU's memory or on the GPU.
import { NearsideError } from "./errors.js";

/** The array type that holds each data type. bool holds 0 and 1; the 16-bit floats hold their bits. */
export interface DataTypes {
  float32: Float32Array;
  float16: Uint16Array;
  bfloat16: Uint16Array;
  float64: Float64Array;
  int8: Int8Array;
  int16: Int16Array;
  int32: Int32Array;
  int64: BigInt64Array;
  uint8: Uint8Array;
  uint16: Uint16Array;
  uint32: Uint32Array;
  uint64: BigUint64Array;
  bool: Uint8Array;
}

/** The name of a data type, as ONNX Runtime has it. */
export type DataType = keyof DataTypes;

/** Any array that holds a tensor's elements. */
export type TensorData = DataTypes[DataType];

/** Where a tensor's data is; `none` after `dispose()`. */
export type DataLocation = "cpu" | "gpu-buffer" | "none";

type Elements = readonly number[] | readonly bigint[] | readonly boolean[];

type ArrayConstructor = {
  new (buffer: ArrayBufferLike, byteOffset?: number, length?: number): TensorData;
  new (length: number): TensorData;
  readonly BYTES_PER_ELEMENT: number;
};

const ARRAYS: { readonly [T in DataType]: ArrayConstructor } = {
  float32: Float32Array,
  float16: Uint16Array,
  bfloat16: Uint16Array,
  float64: Float64Array,
  int8: Int8Array,
  int16: Int16Array,
  int32: Int32Array,
  int64: BigInt64Array,
  uint8: Uint8Array,
  uint16: Uint16Array,
  uint32: Uint32Array,
  uint64: BigUint64Array,
  bool: Uint8Array,
};

/** What a tensor on the GPU needs of the device that holds it. */
export interface GpuValue {
  /** Copies the data to the CPU. */
  read(): Promise<ArrayBuffer>;
  /** Frees the buffer. */
  free(): void;
}

const invalid = (what: string, help?: string) => new NearsideError("invalid-input", what, { place: "Tensor", help });

const isType = (value: unknown): value is DataType => typeof value === "string" && value in ARRAYS;

/** Bytes an element of `type` takes. */
export const elementSize = (type: DataType): number => ARRAYS[type].BYTES_PER_ELEMENT;

function typeOf(data: unknown): DataType | undefined {
  // Chromium's and Firefox's newest array type, which TypeScript's libraries do not all know yet.
  if (Object.prototype.toString.call(data) === "[object Float16Array]") return "float16";
  if (data instanceof Float32Array) return "float32";
  if (data instanceof Float64Array) return "float64";
  if (data instanceof Int8Array) return "int8";
  if (data instanceof Int16Array) return "int16";
  if (data instanceof Int32Array) return "int32";
  if (data instanceof BigInt64Array) return "int64";
  if (data instanceof Uint8Array || data instanceof Uint8ClampedArray) return "uint8";
  if (data instanceof Uint16Array) return "uint16";
  if (data instanceof Uint32Array) return "uint32";
  if (data instanceof BigUint64Array) return "uint64";
  return undefined;
}

function fromElements(type: DataType, elements: Elements): TensorData {
  const array = new ARRAYS[type](elements.length);
  if (type === "float16" || type === "bfloat16") {
    throw invalid(`${type} is given as a Uint16Array of bits, not as an array of numbers`);
  }
  for (let i = 0; i < elements.length; i++) {
    const x = elements[i];
    if (array instanceof BigInt64Array || array instanceof BigUint64Array) {
      if (typeof x !== "bigint" && !Number.isSafeInteger(x)) throw invalid(`element ${i} is ${String(x)}, not an integer`);
      array[i] = BigInt(x ?? 0);
    } else {
      if (typeof x === "bigint") throw invalid(`element ${i} is a BigInt where ${type} wants numbers`);
      array[i] = Number(x);
    }
  }
  return array;
}

/** An array over `buffer`, which must hold whole elements of `type`. */
export function viewOf(type: DataType, buffer: ArrayBuffer): TensorData {
  return new ARRAYS[type](buffer);
}

/** An n-dimensional array, row-major. */
export class Tensor<T extends DataType = DataType> {
  readonly type: T;
  readonly dims: readonly number[];
  /** The number of elements. */
  readonly size: number;
  #data: DataTypes[T] | undefined;
  #gpu: GpuValue | undefined;

  /** `new Tensor("float32", data, [1, 3, 224, 224])`. Typed arrays are not copied. */
  constructor(type: T, data: DataTypes[T] | Elements | Uint8ClampedArray, dims?: readonly number[]);
  /** `new Tensor(data, [2, 3])`: the type follows from the array; arrays of numbers are float32, of booleans bool. */
  constructor(data: TensorData | Elements | Uint8ClampedArray, dims?: readonly number[]);
  constructor(
    first: T | TensorData | Elements | Uint8ClampedArray | GpuTensor<T>,
    second?: TensorData | Elements | Uint8ClampedArray | readonly number[],
    third?: readonly number[],
  ) {
    if (first instanceof GpuTensor) {
      this.type = first.type;
      this.dims = first.dims;
      this.size = count(first.dims);
      this.#gpu = first.value;
      return;
    }
    const typed = typeof first === "string";
    if (typed && !isType(first)) throw invalid(`"${String(first)}" is not a data type`, `one of ${Object.keys(ARRAYS).join(", ")}`);
    const given = typed ? second : first;
    const dims = typed ? third : second;
    if (given === undefined || typeof given === "string") throw invalid("no data");
    const type = typed ? first : (typeOf(given) ?? elementsType(given));
    const data = this.#convert(type, given);
    const shape = dims === undefined ? [data.length] : checkDims(dims);
    if (count(shape) !== data.length) {
      throw invalid(`${data.length} elements, but dims [${shape.join(", ")}] have ${count(shape)}`);
    }
    this.type = type as T;
    this.dims = shape;
    this.size = data.length;
    this.#data = data as DataTypes[T];
  }

  #convert(type: DataType, given: unknown): TensorData {
    if (Array.isArray(given)) return fromElements(type, given as Elements);
    if (!ArrayBuffer.isView(given) || given instanceof DataView) throw invalid("data is neither a typed array nor an array");
    const wanted = ARRAYS[type];
    const same =
      given instanceof wanted ||
      (type === "float16" && typeOf(given) === "float16") ||
      (wanted === Uint8Array && given instanceof Uint8ClampedArray);
    if (!same) {
      throw invalid(`${given.constructor.name} given for ${type}`, `${type} takes ${wanted.name}`);
    }
    if (given instanceof wanted) return given;
    return new wanted(given.buffer, given.byteOffset, given.byteLength / wanted.BYTES_PER_ELEMENT);
  }

  /** A tensor on the GPU. For the package's own use. */
  static onGpu<T extends DataType>(type: T, dims: readonly number[], value: GpuValue): Tensor<T> {
    const make = Tensor as unknown as new (gpu: GpuTensor<T>) => Tensor<T>;
    return new make(new GpuTensor(type, dims, value));
  }

  /** Where the data is. */
  get location(): DataLocation {
    return this.#data ? "cpu" : this.#gpu ? "gpu-buffer" : "none";
  }

  /** The elements, where they are on the CPU. */
  get data(): DataTypes[T] {
    if (this.#data) return this.#data;
    if (this.#gpu) throw new NearsideError("invalid-input", "the data is on the GPU", { place: "Tensor.data", help: "await getData()" });
    throw gone("Tensor.data");
  }

  /** The buffer that holds this tensor on the GPU. For the package's own use. */
  get gpuValue(): GpuValue | undefined {
    return this.#gpu;
  }

  /** The elements, read from the GPU where they are there. With `release` the GPU's copy is freed. */
  async getData(release = false): Promise<DataTypes[T]> {
    if (this.#data) return this.#data;
    const gpu = this.#gpu;
    if (!gpu) throw gone("Tensor.getData");
    const data = viewOf(this.type, await gpu.read()) as DataTypes[T];
    if (release) {
      gpu.free();
      this.#gpu = undefined;
      this.#data = data;
    }
    return data;
  }

  /** Frees the data; the tensor is not usable after it. Calling it again does nothing. */
  dispose(): void {
    this.#gpu?.free();
    this.#gpu = undefined;
    this.#data = undefined;
  }

  /** The same data under other dims of as many elements. */
  reshape(dims: readonly number[]): Tensor<T> {
    return new Tensor(this.type, this.data, dims);
  }
}

class GpuTensor<T extends DataType> {
  constructor(
    readonly type: T,
    readonly dims: readonly number[],
    readonly value: GpuValue,
  ) {}
}

const gone = (place: string) => new NearsideError("disposed", "the tensor was disposed", { place });

function elementsType(given: unknown): DataType {
  if (!Array.isArray(given)) throw invalid("data is neither a typed array nor an array");
  const kinds = new Set(given.map((x: unknown) => typeof x));
  if (kinds.size > 1) throw invalid("an array of mixed types");
  if (kinds.has("boolean")) return "bool";
  if (kinds.has("bigint")) return "int64";
  if (kinds.has("number") || kinds.size === 0) return "float32";
  throw invalid(`an array of type ${[...kinds].join(", ")}`);
}

function checkDims(dims: unknown): readonly number[] {
  if (!Array.isArray(dims)) throw invalid("dims are not an array of numbers");
  const ok = dims.every((n: unknown) => Number.isSafeInteger(n) && Number(n) >= 0);
  if (!ok) throw invalid(`dims [${dims.join(", ")}] are not whole numbers of 0 or more`);
  return Object.freeze([...(dims as number[])]);
}

const count = (dims: readonly number[]) => dims.reduce((n, d) => n * d, 1);
