// Runs one task in a worker and posts what came of it.
import { describe, runTask, type Done, type Failed, type Task } from "./task.js";

export type Answer = { readonly done: Done } | { readonly failed: Failed };

addEventListener("message", (event: MessageEvent<Task>) => {
  runTask(event.data).then(
    (done) => postMessage({ done } satisfies Answer),
    (thrown: unknown) => postMessage({ failed: describe(thrown) } satisfies Answer),
  );
});
