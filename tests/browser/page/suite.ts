// The page of the browser suite.
import { countInto, install, newCounts } from "../../../benches/page/counters.js";
import { describe, runTask, type Done, type Failed, type Task } from "./task.js";
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

/** What the task failed with; an error where it did not fail. */
async function failing(task: Task): Promise<Failed> {
  try {
    await runTask(task);
  } catch (thrown) {
    return describe(thrown);
  }
  throw new Error("it did not fail");
}

/** Bytes of GPU buffers that are still there after the task, and the most that there were. */
async function leaving(task: Task): Promise<{ left: number; peak: number }> {
  const counts = newCounts();
  countInto(counts);
  await runTask(task);
  return { left: counts.bytes, peak: counts.peakBytes };
}

install();
const suite = { inWindow: runTask, inWorker, failing, leaving };
declare global {
  interface Window {
    suite: typeof suite;
  }
}
window.suite = suite;
