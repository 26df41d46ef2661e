// The manifest of a package: which files it has and the digest of each of their chunks.

/** What a file of a package is for. */
export type Role = "plan" | "wasm" | "wasm-relaxed" | "wasm-threads" | "wgsl" | "golden" | "weights" | "types" | "report" | "module";

/** A file of a package. Bytes; digests are SHA-256 in hexadecimal. */
export interface PackageFile {
  readonly path: string;
  readonly role: Role;
  readonly size: number;
  readonly sha256: string;
  readonly chunk_size: number;
  readonly chunks: readonly string[];
}

/** `manifest.json`. */
export interface Manifest {
  readonly format: number;
  readonly name: string;
  readonly version: string;
  readonly files: readonly PackageFile[];
}

/** The one file of that role, where there is one. */
export function fileOf(manifest: Manifest, role: Role): PackageFile | undefined {
  return manifest.files.find((f) => f.role === role);
}

/** The length of a chunk, bytes. */
export function chunkLength(file: PackageFile, index: number): number {
  return Math.min(file.chunk_size, file.size - index * file.chunk_size);
}
