// The configuration that xtask writes for a script: a JSON file, named by the script's only argument.
import { readFile } from "node:fs/promises";
import { basename } from "node:path";

/** Reads it; `T` is what the script and xtask agree on. */
export async function readConfig<T>(): Promise<T> {
  const [, script, path] = process.argv;
  if (path === undefined) throw new Error(`usage: node ${basename(script ?? "script")} CONFIG.json`);
  return JSON.parse(await readFile(path, "utf8")) as T;
}
