// SHA-256 in hexadecimal.

/** The SHA-256 of bytes, in hexadecimal. */
export type Digest = (bytes: Uint8Array) => Promise<string>;

function hex(bytes: Uint8Array): string {
  let out = "";
  for (const b of bytes) out += b.toString(16).padStart(2, "0");
  return out;
}

/** The engine's own SHA-256, or `fallback` where pages are not given it (http on other hosts than localhost). */
export function digestWith(fallback: (bytes: Uint8Array) => Promise<Uint8Array>): Digest {
  const subtle = globalThis.crypto?.subtle as SubtleCrypto | undefined;
  if (!subtle) return async (bytes) => hex(await fallback(bytes));
  return async (bytes) => hex(new Uint8Array(await subtle.digest("SHA-256", bytes as Uint8Array<ArrayBuffer>)));
}
