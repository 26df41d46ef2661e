// Which shaders were the fastest on an adapter: remembered between visits, found again when something is new.

const NAME = "nearside-tuning-1";

/** More entries than a model has dispatches are no choice of ours. */
const MOST = 1 << 16;

/** Where the choice for a model's code on an adapter is kept. */
export const tuningKey = (code: string, adapter: string) => `https://tuning.nearside.invalid/${code}/${encodeURIComponent(adapter)}`;

/** What was chosen before; empty where nothing was. */
export async function remembered(key: string): Promise<Uint32Array> {
  if (typeof caches === "undefined") return new Uint32Array();
  try {
    const found = await (await caches.open(NAME)).match(key);
    const list: unknown = found ? await found.json() : [];
    const whole = (n: unknown): n is number => typeof n === "number" && Number.isInteger(n) && n >= 0 && n < MOST;
    return Array.isArray(list) && list.length <= MOST && list.every(whole) ? Uint32Array.from(list) : new Uint32Array();
  } catch {
    // A cache that fails costs another timing, no more.
    return new Uint32Array();
  }
}

export async function remember(key: string, choice: Uint32Array): Promise<void> {
  if (typeof caches === "undefined") return;
  try {
    await (await caches.open(NAME)).put(key, new Response(JSON.stringify([...choice])));
  } catch {
    // As above.
  }
}

/** Calls `work` when the page has nothing to do, or soon where that is not told. */
export function whenIdle(work: () => void): void {
  if (typeof requestIdleCallback === "function") requestIdleCallback(work, { timeout: 2000 });
  else setTimeout(work, 200);
}
