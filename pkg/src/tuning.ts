// Which shaders were the fastest on an adapter: remembered between visits, found again when something is new.
import { note, recall } from "./notes.js";

/** More entries than a model has dispatches are no choice of ours. */
const MOST = 1 << 16;

/** Under what the choice for a model's code on an adapter is noted. */
export const tuningKey = (code: string, adapter: string) => `tuning ${code} ${adapter}`;

/** What was chosen before; empty where nothing was. */
export async function remembered(key: string): Promise<Uint32Array> {
  const list = await recall(key);
  const whole = (n: unknown): n is number => typeof n === "number" && Number.isInteger(n) && n >= 0 && n < MOST;
  return Array.isArray(list) && list.length <= MOST && list.every(whole) ? Uint32Array.from(list) : new Uint32Array();
}

export const remember = (key: string, choice: Uint32Array): Promise<void> => note(key, [...choice]);

/** Calls `work` when the page has nothing to do, or soon where that is not told. */
export function whenIdle(work: () => void): void {
  if (typeof requestIdleCallback === "function") requestIdleCallback(work, { timeout: 2000 });
  else setTimeout(work, 200);
}
