// The part of the Cache API that is used, in memory.

/** Puts an empty one in place; what is stored in it by address. */
export function fakeCaches(): { readonly stored: Map<string, string> } {
  const stored = new Map<string, string>();
  const cache = {
    match: async (key: string) => (stored.has(key) ? new Response(stored.get(key)) : undefined),
    put: async (key: string, response: Response) => void stored.set(key, await response.text()),
  };
  Object.defineProperty(globalThis, "caches", { value: { open: async () => cache }, configurable: true });
  return { stored };
}

/** Replaces everything that is stored. */
export function spoil(stored: Map<string, string>, text: string): void {
  for (const key of stored.keys()) stored.set(key, text);
}
