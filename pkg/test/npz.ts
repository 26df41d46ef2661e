// .npz archives, as numpy.savez and numpy.savez_compressed write them.
import { deflateRawSync } from "node:zlib";

const bytesOf = (a: ArrayBufferView) => new Uint8Array(a.buffer, a.byteOffset, a.byteLength);

/** A .npy file of version 1. `descriptor` is NumPy's name of the type, such as `<f4`. */
export function npy(descriptor: string, dims: readonly number[], data: ArrayBufferView): Uint8Array {
  const shape = dims.length === 1 ? `${dims[0]},` : dims.join(", ");
  const text = `{'descr': '${descriptor}', 'fortran_order': False, 'shape': (${shape}), }`;
  const header = `${text.padEnd(Math.ceil((text.length + 11) / 64) * 64 - 11)}\n`;
  const length = Uint8Array.of(header.length & 255, header.length >> 8);
  return Buffer.concat([Uint8Array.of(0x93), Buffer.from("NUMPY"), Uint8Array.of(1, 0), length, Buffer.from(header), bytesOf(data)]);
}

/** A ZIP archive of the files; the checksums, which nobody reads here, are 0. */
export function zip(files: Readonly<Record<string, Uint8Array>>, compressed = false): Uint8Array {
  const parts: Uint8Array[] = [];
  const directory: Uint8Array[] = [];
  let at = 0;
  for (const [path, bytes] of Object.entries(files)) {
    const name = Buffer.from(path);
    const data = compressed ? deflateRawSync(bytes) : bytes;
    const common = Buffer.alloc(26);
    common.writeUInt16LE(20, 0);
    common.writeUInt16LE(compressed ? 8 : 0, 4);
    common.writeUInt32LE(data.length, 14);
    common.writeUInt32LE(bytes.length, 18);
    common.writeUInt16LE(name.length, 22);
    const place = Buffer.alloc(14);
    place.writeUInt32LE(at, 10);
    const local = Buffer.concat([Buffer.from("PK\x03\x04"), common, name, data]);
    directory.push(Buffer.concat([Buffer.from("PK\x01\x02"), Uint8Array.of(20, 0), common, place, name]));
    parts.push(local);
    at += local.length;
  }
  const entries = Buffer.concat(directory);
  const end = Buffer.alloc(18);
  end.writeUInt16LE(directory.length, 4);
  end.writeUInt16LE(directory.length, 6);
  end.writeUInt32LE(entries.length, 8);
  end.writeUInt32LE(at, 12);
  return Buffer.concat([...parts, entries, Buffer.from("PK\x05\x06"), end]);
}
