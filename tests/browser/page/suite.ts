// The page of the browser suite.
import { countInto, install, newCounts, type Counts } from "../../../benches/page/counters.js";
import { describe, runTask, type Done, type Failed, type Left, type Task } from "./task.js";
import type { Answer } from "./worker.js";

async function inWorker(task: Task): Promise<Done> {
  const worker = new Worker("/js/tests/browser/page/worker.js", { type: "module" });
  try {
    const answer = await new Promise<Answer>((resolve, reject) => {
      worker.addEventListener("message", (event: MessageEvent<Answer>) => resolve(event.data));
      worker.addEventListener("error", (event) => reject(new Error(event.message)));
      worker.postMessage(task);
    });
    if ("failed" in answer) throw new Error(`${answer.failed.code ?? answer.failed.name}: ${answer.failed.message}`);
    return answer.done;
  } finally {
    worker.terminate();
  }
}

/** Workers that were started and not terminated. */
const workers = new Set<Worker>();

function watchWorkers(): void {
  const Original = window.Worker;
  window.Worker = class extends Original {
    constructor(url: string | URL, options?: WorkerOptions) {
      super(url, options);
      workers.add(this);
    }
    override terminate(): void {
      workers.delete(this);
      super.terminate();
    }
  };
}

/** What is left once a task has ended. What still starts when a load is aborted may take a moment to go. */
async function settled(counts: Counts): Promise<Left> {
  for (let waited = 0; waited < 5000 && (counts.bytes > 0 || workers.size > 0); waited += 50) {
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  return { gpu: counts.bytes, workers: workers.size };
}

/** What the task failed with, and what it left; an error where it did not fail. */
async function failing(task: Task): Promise<Failed & { readonly left: Left }> {
  const counts = newCounts();
  countInto(counts);
  try {
    await runTask(task);
  } catch (thrown) {
    return { ...describe(thrown), left: await settled(counts) };
  }
  throw new Error("it did not fail");
}

/** What the task left, the most bytes of GPU buffers that there were, and the bytes of memory of the page and its workers. */
async function leaving(task: Task): Promise<{ readonly left: Left; readonly peak: number; readonly memory: number }> {
  const counts = newCounts();
  countInto(counts);
  await runTask(task);
  const left = await settled(counts);
  // A worker that is still ending does not answer, and the engine waits a minute for it.
  await new Promise((resolve) => setTimeout(resolve, 3000));
  const { bytes } = await performance.measureUserAgentSpecificMemory();
  return { left, peak: counts.peakBytes, memory: bytes };
}

install();
watchWorkers();
const suite = { inWindow: runTask, inWorker, failing, leaving };
declare global {
  interface Window {
    suite: typeof suite;
    Worker: typeof Worker;
  }
  interface Performance {
    measureUserAgentSpecificMemory(): Promise<{ readonly bytes: number }>;
  }
}
window.suite = suite;
