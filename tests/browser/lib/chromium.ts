// Chromium as the tests and benchmarks start it: the system's own, headless, WebGPU on its software adapter.
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { chromium, type BrowserContext, type Page } from "playwright-core";

const FLAGS = [
  "--no-sandbox",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
  "--enable-unsafe-webgpu",
  "--use-webgpu-adapter=swiftshader",
  "--disk-cache-size=4000000000",
];

export interface Browser {
  readonly version: string;
  readonly context: BrowserContext;
  /** A new page whose errors are collected in `errors`. */
  page(): Promise<WatchedPage>;
  close(): Promise<void>;
}

export interface WatchedPage {
  readonly page: Page;
  /** Uncaught errors and messages of console.error, in order. */
  readonly errors: readonly string[];
}

/** A folder for what Chromium keeps; whoever asks removes it. */
export const emptyProfile = (): Promise<string> => mkdtemp(join(tmpdir(), "nearside-chromium-"));

/** Starts Chromium with a given profile, or with an empty one of its own. */
export async function launch(executablePath: string, extraFlags: readonly string[] = [], given?: string): Promise<Browser> {
  const profile = given ?? (await emptyProfile());
  const context = await chromium.launchPersistentContext(profile, {
    executablePath,
    headless: true,
    args: [...FLAGS, ...extraFlags],
  });
  return {
    version: context.browser()?.version() ?? "unknown",
    context,
    async page() {
      const page = await context.newPage();
      const errors: string[] = [];
      page.on("pageerror", (error) => errors.push(String(error)));
      page.on("crash", () => errors.push("the page crashed"));
      page.on("console", (message) => {
        if (message.type() === "error") errors.push(message.text());
      });
      return { page, errors };
    },
    async close() {
      await context.close();
      if (given === undefined) await rm(profile, { recursive: true, force: true });
    },
  };
}
