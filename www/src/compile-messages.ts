// What the page and the worker that compiles say to each other.
import type { Built, ErrorCode } from "nearside/compiler";

export interface Task {
  readonly model: Uint8Array;
  readonly name: string;
  readonly dims: Readonly<Record<string, readonly [number, number]>>;
}

export type Outcome =
  | { readonly built: Built; readonly ms: number }
  | { readonly error: { readonly code: ErrorCode; readonly what: string; readonly place: string | undefined; readonly help: string | undefined } };
