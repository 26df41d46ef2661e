// The benchmark's driver: starts a server and Chromium, has the page measure, prints the figures as one line of JSON.
// usage: node bench.js CONFIG.json
import { rm } from "node:fs/promises";
import type { CDPSession } from "playwright-core";
import { emptyProfile, launch, type Browser } from "../tests/browser/lib/chromium.js";
import { readConfig } from "../tests/browser/lib/config.js";
import { ISOLATED, serve, type Server } from "../tests/browser/lib/server.js";
import { writePeakModules } from "./peak.js";
import type { Counts } from "./page/counters.js";
import type { RunnerName } from "./page/page.js";
import type { ModelSpec } from "./page/runner.js";

interface Config {
  readonly chromium: string;
  readonly mounts: Readonly<Record<string, string>>;
  /** The folder that is mounted at /js. */
  readonly js: string;
  readonly models: readonly ModelSpec[];
  /** Runners that are compared with each other, in turn. */
  readonly groups: readonly (readonly RunnerName[])[];
  /** Milliseconds that the rounds of one group may take, about. */
  readonly budgetMs: number;
}

interface Figures {
  medianMs: number;
  minMs: number;
  firstMs: number;
  againMs: number;
  mainThreadMs: number;
  maxAbsDiff: number;
  rounds: number;
  counts: Counts;
}

/** What was measured of a group's runners, and why others could not be. */
interface Group {
  readonly figures: Partial<Record<RunnerName, Figures>>;
  readonly failed: Partial<Record<RunnerName, string>>;
}

/** What an error from a page says, without its stack. */
const firstLine = (error: unknown): string => String(error).split("\n", 1)[0]?.split("Error: ").at(-1) ?? "";

function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  const upper = sorted[middle] ?? Number.NaN;
  return sorted.length % 2 === 1 ? upper : (upper + (sorted[middle - 1] ?? Number.NaN)) / 2;
}

/** Milliseconds after which a browser that has just started is at rest. */
const SETTLE = 2500;

function progress(text: string): void {
  process.stderr.write(`${text}\n`);
}

/** How a runner is opened in a browser of its own. */
interface Visit {
  /** Where the browser keeps things; an empty folder of its own otherwise. */
  readonly profile?: string;
  /** What is put into the HTTP cache first. */
  readonly warm: readonly string[];
  /** Whether the runtime may keep files of its own. */
  readonly keep: boolean;
}

/** Opens a runner in a browser of its own; milliseconds to its first answer. */
async function visit(config: Config, server: Server, name: RunnerName, model: ModelSpec, visit: Visit): Promise<number> {
  const browser = await launch(config.chromium, [], visit.profile);
  try {
    const { page, errors } = await browser.page();
    await page.goto(`${server.origin}/bench/index.html`);
    await page.evaluate((urls) => window.bench.warm(urls), visit.warm);
    // The browser's own start, a new tab's page above all, takes a core for a while.
    await rest();
    try {
      const first = await page.evaluate(([name, model, keep]) => window.bench.open(name, model, keep), [name, model, visit.keep] as const);
      // What is written behind the page's back is to be there on the next visit.
      if (visit.keep) await rest();
      return first.ms;
    } catch (error) {
      throw new Error(`${name} on ${model.name}: ${String(error)}\n${errors.join("\n")}`);
    }
  } finally {
    await browser.close();
  }
}

const rest = (): Promise<void> => new Promise((resolve) => setTimeout(resolve, SETTLE));

/** Milliseconds to the first answer. */
interface First {
  /** In a browser that has only the HTTP cache. */
  readonly first: number;
  /** On a second visit, with whatever the first one left: the HTTP cache, and files of the runtime's own. */
  readonly again: number;
}

async function first(config: Config, server: Server, requested: Set<string>, name: RunnerName, model: ModelSpec): Promise<First> {
  const profile = await emptyProfile();
  try {
    // What the runner fetches, a first visit tells.
    requested.clear();
    await visit(config, server, name, model, { profile, warm: [], keep: true });
    const warm = [...requested];
    const again = await visit(config, server, name, model, { profile, warm: [], keep: true });
    return { first: await visit(config, server, name, model, { warm, keep: false }), again };
  } finally {
    await rm(profile, { recursive: true, force: true });
  }
}

/** Milliseconds that the page's main thread was busy during `work`, divided by `runs`. */
async function busy(session: CDPSession, runs: number, work: () => Promise<unknown>): Promise<number> {
  const read = async (): Promise<number> => {
    const { metrics } = await session.send("Performance.getMetrics");
    return metrics.find((metric) => metric.name === "TaskDuration")?.value ?? Number.NaN;
  };
  const before = await read();
  await work();
  return (((await read()) - before) * 1000) / runs;
}

async function measureGroup(
  config: Config,
  browser: Browser,
  server: Server,
  requested: Set<string>,
  all: readonly RunnerName[],
  model: ModelSpec,
): Promise<Group> {
  const firsts = new Map<RunnerName, First>();
  const failed: Partial<Record<RunnerName, string>> = {};
  for (const name of all) {
    progress(`${model.name}: first answer of ${name}`);
    try {
      firsts.set(name, await first(config, server, requested, name, model));
    } catch (error) {
      // Not every peer runs every model; ours does.
      if (name.startsWith("nearside")) throw error;
      failed[name] = firstLine(error);
      progress(`${model.name}: ${name} fails: ${failed[name]}`);
    }
  }
  const group = all.filter((name) => firsts.has(name));
  const { page, errors } = await browser.page();
  await page.goto(`${server.origin}/bench/index.html`);
  const session = await page.context().newCDPSession(page);
  await session.send("Performance.enable");
  const figures: Partial<Record<RunnerName, Figures>> = {};
  try {
    const diffs = new Map<RunnerName, number>();
    for (const name of group) {
      progress(`${model.name}: open ${name}`);
      const { maxAbsDiff } = await page.evaluate(([name, model]) => window.bench.open(name, model, false), [name, model] as const);
      diffs.set(name, maxAbsDiff);
    }
    const interleave = (rounds: number) =>
      page.evaluate(([group, rounds]) => window.bench.interleave(group, rounds), [group, rounds] as const);
    const warmup = await interleave(1);
    const round = Object.values(warmup).reduce((sum, times) => sum + median(times), 0);
    // Peers that take most of a minute a run are measured as often as a median needs.
    const rounds = Math.max(3, Math.min(40, Math.round(config.budgetMs / round)));
    progress(`${model.name}: ${rounds} rounds of ${group.join(", ")}`);
    const times = await interleave(rounds);
    for (const name of group) {
      const runs = rounds > 3 ? Math.min(10, rounds) : 1;
      let counts: Counts | undefined;
      const mainThreadMs = await busy(session, runs, async () => {
        counts = await page.evaluate(([name, runs]) => window.bench.count(name, runs), [name, runs] as const);
      });
      if (!counts) throw new Error("nothing was counted");
      const own = times[name] ?? [];
      figures[name] = {
        medianMs: median(own),
        minMs: Math.min(...own),
        firstMs: firsts.get(name)?.first ?? Number.NaN,
        againMs: firsts.get(name)?.again ?? Number.NaN,
        mainThreadMs,
        maxAbsDiff: diffs.get(name) ?? Number.NaN,
        rounds,
        counts,
      };
    }
    for (const name of group) await page.evaluate((name) => window.bench.close(name), name);
  } catch (error) {
    throw new Error(`${group.join(", ")} on ${model.name}: ${String(error)}\n${errors.join("\n")}`);
  } finally {
    await page.close();
  }
  return { figures, failed };
}

async function main(): Promise<void> {
  const config = await readConfig<Config>();
  await writePeakModules(config.js);
  const requested = new Set<string>();
  const intercept = ({ url }: { readonly url?: string | undefined }): boolean => {
    if (url !== undefined) requested.add(url);
    return false;
  };
  const server = await serve({ mounts: config.mounts, headers: ISOLATED, intercept });
  const browser = await launch(config.chromium);
  try {
    const { page } = await browser.page();
    await page.goto(`${server.origin}/bench/index.html`);
    const peak = await page.evaluate(() => window.bench.measurePeak());
    await page.close();
    const models: Record<string, Group["figures"]> = {};
    const failed: Record<string, Group["failed"]> = {};
    for (const model of config.models) {
      for (const group of config.groups) {
        const measured = await measureGroup(config, browser, server, requested, group, model);
        models[model.name] = { ...models[model.name], ...measured.figures };
        failed[model.name] = { ...failed[model.name], ...measured.failed };
      }
    }
    process.stdout.write(`${JSON.stringify({ chromium: browser.version, peak, models, failed })}\n`);
  } finally {
    await browser.close();
    await server.close();
  }
}

await main();
