// Buffers of one chunk, used again: memory that is new to the process costs half of what hashing its content does.

/** Buffers kept at most. */
const MOST = 16;

export class Buffers {
  readonly #free: ArrayBuffer[] = [];
  #length = 0;

  /** A buffer of that many bytes, with whatever is in it. */
  take(length: number): ArrayBuffer {
    // Chunks are of one length, but for the last of a file.
    if (length > this.#length) {
      this.#length = length;
      this.#free.length = 0;
    }
    return (length === this.#length ? this.#free.pop() : undefined) ?? new ArrayBuffer(length);
  }

  /** Takes a buffer back that nobody looks at any more. */
  give(buffer: ArrayBuffer): void {
    if (buffer.byteLength === this.#length && this.#free.length < MOST) this.#free.push(buffer);
  }
}
