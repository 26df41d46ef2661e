// Small facts that were found out once, kept between visits in the Cache API as JSON. One that is lost is found out again.

const NAME = "nearside-notes-1";

const address = (key: string) => `https://note.nearside.invalid/${encodeURIComponent(key)}`;

/** What was noted under a key, from whoever: to be checked. */
export async function recall(key: string): Promise<unknown> {
  if (typeof caches === "undefined") return undefined;
  try {
    const found = await (await caches.open(NAME)).match(address(key));
    return found ? ((await found.json()) as unknown) : undefined;
  } catch {
    return undefined;
  }
}

export async function note(key: string, fact: unknown): Promise<void> {
  if (typeof caches === "undefined") return;
  try {
    await (await caches.open(NAME)).put(address(key), new Response(JSON.stringify(fact)));
  } catch {
    // As good as lost.
  }
}
