// Keeps files in the origin private file system. Runs in a worker: only there is a file open for reading and writing at
// once, without a stream between.
import type { StoreAnswer, StoreRequest } from "./store.js";

/** What TypeScript's DOM library has for workers only. */
interface SyncFile {
  getSize(): number;
  read(into: Uint8Array, options: { readonly at: number }): number;
  write(bytes: Uint8Array, options: { readonly at: number }): number;
}

interface Opening {
  createSyncAccessHandle(options: { readonly mode: string }): Promise<SyncFile>;
}

interface Scope {
  onmessage: ((event: MessageEvent<StoreRequest>) => void) | null;
  postMessage(answer: StoreAnswer, transfer?: Transferable[]): void;
}

const FOLDER = "nearside-files-1";

/** The quota learns of a removed file a little later: milliseconds, and how often they are waited. */
const WAIT = 50;
const WAITS = 4;

const scope = globalThis as unknown as Scope;
const open = new Map<string, SyncFile>();
let folder: FileSystemDirectoryHandle | undefined;

async function home(): Promise<FileSystemDirectoryHandle> {
  folder ??= await (await navigator.storage.getDirectory()).getDirectoryHandle(FOLDER, { create: true });
  return folder;
}

async function opened(name: string, create: boolean): Promise<SyncFile | undefined> {
  const already = open.get(name);
  if (already) return already;
  let handle: FileSystemFileHandle;
  try {
    handle = await (await home()).getFileHandle(name, { create });
  } catch (thrown) {
    if (!create && nameOf(thrown) === "NotFoundError") return undefined;
    throw thrown;
  }
  // Pages that load one model at once write the same bytes at the same places. Engines that do not know this mode lock the
  // file, and the second page does without it.
  const file = await (handle as unknown as Opening).createSyncAccessHandle({ mode: "readwrite-unsafe" });
  open.set(name, file);
  return file;
}

async function write(name: string, at: number, bytes: Uint8Array): Promise<void> {
  for (let waits = 0; ; ) {
    try {
      const file = await opened(name, true);
      if (file?.write(bytes, { at }) === bytes.length) return;
      throw new DOMException("the file takes no more", "QuotaExceededError");
    } catch (thrown) {
      if (nameOf(thrown) !== "QuotaExceededError") throw thrown;
      if (waits > 0) {
        waits--;
        await new Promise((resolve) => setTimeout(resolve, WAIT));
      } else if (await evict()) {
        waits = WAITS;
      } else {
        throw thrown;
      }
    }
  }
}

/** Removes the file that was written the longest ago and that no page has open. False where there is none. */
async function evict(): Promise<boolean> {
  const files: { readonly name: string; readonly written: number }[] = [];
  const all = await home();
  for await (const [name, handle] of all.entries()) {
    if (open.has(name) || !(handle instanceof FileSystemFileHandle)) continue;
    const written = await handle.getFile().then((f) => f.lastModified, () => undefined);
    if (written !== undefined) files.push({ name, written });
  }
  files.sort((a, b) => a.written - b.written);
  for (const { name } of files) {
    const gone = await all.removeEntry(name).then(() => true, () => false);
    if (gone) return true;
  }
  return false;
}

async function answer(request: StoreRequest): Promise<void> {
  const { id, op, file: name } = request;
  try {
    if (op === "write") {
      await write(name, request.at, request.bytes);
      return scope.postMessage({ id, value: undefined });
    }
    const file = await opened(name, false);
    if (op === "length") return scope.postMessage({ id, value: file?.getSize() ?? 0 });
    const bytes = new Uint8Array(request.into);
    const length = file?.read(bytes, { at: request.at }) ?? 0;
    scope.postMessage({ id, value: bytes.subarray(0, length) }, [bytes.buffer]);
  } catch (thrown) {
    const message = thrown instanceof Error ? thrown.message : String(thrown);
    scope.postMessage({ id, error: { name: nameOf(thrown), message } });
  }
}

const nameOf = (thrown: unknown): string => (thrown instanceof Error ? thrown.name : "Error");

let last = Promise.resolve();
scope.onmessage = ({ data }) => {
  // One after the other: requests for a file that is being opened must find it open.
  last = last.then(() => answer(data));
};
