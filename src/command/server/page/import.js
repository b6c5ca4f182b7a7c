// Importing keys from a file in the format of a bulk put.

const IMPORT_BYTES_MAX = 100 << 20;
const ITEMS_AT_ONCE = 1000;
const CHARACTERS_AT_ONCE = 8 << 20;
const PUTS_AT_ONCE = 4;

byId("import-keys").addEventListener("click", () => {
  const { id } = state.namespace;
  byId("import-dialog").querySelector("form").reset();
  openDialog(byId("import-dialog"), async () => {
    const plan = importPlan(await importText(byId("import-file").files[0]));
    const keepsExisting = document.querySelector("[name=existing]:checked").value === "kept";
    return () => run(() => importItems(id, plan, keepsExisting));
  });
});

async function importText(file) {
  if (file.size > IMPORT_BYTES_MAX) {
    throw new Error(`The file is larger than ${bytes(IMPORT_BYTES_MAX)}. `
      + "The command embercask bulk put reads files of any size.");
  }
  const text = utf8(new Uint8Array(await file.arrayBuffer()))?.replace(/^\ufeff/, "");
  if (text === undefined) throw new Error("The file is not UTF-8.");
  const problem = jsonProblem(text);
  if (problem) throw new Error("The file is not JSON: " + problem);
  return text;
}

/** What is wrong with an item; an empty text if nothing is that the page can see. */
function itemProblem(item) {
  if (item === null || typeof item !== "object" || Array.isArray(item)) return "it is not an object";
  if (typeof item.key !== "string") return 'its "key" is not a string';
  return typeof item.value === "string" ? "" : 'its "value" is not a string';
}

/** Whether an item would expire too soon for the server, which would refuse all items beside it. */
const isExpiring = ({ expiration, expiration_ttl: ttl }) => (ttl ?? null) === null
  && typeof expiration === "number" && expiration < serverNow() / 1000 + state.minimumTtl;

/** Cuts the items into requests. Their text is sent as it is, since parsing would round large numbers in metadata. */
function importPlan(text) {
  if (!/^\s*\[/.test(text)) throw new Error("The file has no array of keys and values.");
  const plan = { chunks: [], items: 0, expiring: 0 };
  let chunk = null, number = 0;
  for (const json of jsonItems(text)) {
    number += 1;
    const item = JSON.parse(json), problem = itemProblem(item);
    if (problem) throw new Error(`Item ${count(number)} cannot be imported: ${problem}.`);
    if (isExpiring(item)) {
      plan.expiring += 1;
      continue;
    }
    if (!chunk || chunk.items.length === ITEMS_AT_ONCE || chunk.characters + json.length > CHARACTERS_AT_ONCE) {
      chunk = { items: [], characters: 0 };
      plan.chunks.push(chunk);
    }
    chunk.items.push(json);
    chunk.characters += json.length;
    plan.items += 1;
  }
  return plan;
}

/** Puts each chunk as a whole. */
async function replaceItems(id, chunks, signal, tell) {
  for (const { items } of chunks) {
    const headers = { "content-type": "application/json" };
    await call("PUT", namespacePath(id) + "/bulk", { body: `[${items.join(",")}]`, headers, signal });
    tell(items.length, 0);
  }
}

/** Puts each item by itself, if its key is absent. Of several with one key the last counts, as in a bulk put. */
async function addItems(id, chunks, signal, tell) {
  const byKey = new Map(chunks.flatMap(({ items }) => items.map(json => [JSON.parse(json).key, json])));
  const waiting = [...byKey.values()];
  while (waiting.length) {
    const step = waiting.splice(-PUTS_AT_ONCE);
    const ends = await Promise.allSettled(step.map(json => isAdded(id, json, signal)));
    const added = ends.filter(end => end.value === true).length;
    tell(added, ends.filter(end => end.value === false).length);
    const failed = ends.find(end => end.status === "rejected");
    if (failed) throw failed.reason;
  }
}

/** Puts an item if its key is absent; returns whether it was. */
async function isAdded(id, json, signal) {
  const draft = draftOfItem(id, json), { path, body } = putOf(draft);
  try {
    await call("PUT", path, { body, headers: { "if-none-match": "*" }, signal });
    return true;
  } catch (error) {
    if (error.status === 412) return false;
    if (error.status) error.message = `${quoted(draft.name)}: ${error.message}`;
    throw error;
  }
}

/** An item as the fields of a key. Its metadata are sent as they are in the file. */
function draftOfItem(id, json) {
  const { key: name, value: text, base64: isBase64, ...item } = JSON.parse(json), expiry = new URLSearchParams();
  for (const lifetime of ["expiration", "expiration_ttl"]) {
    if ((item[lifetime] ?? null) !== null) expiry.set(lifetime, item[lifetime]);
  }
  const metadata = (item.metadata ?? null) === null ? undefined : jsonMember(json, "metadata");
  return { id, name, value: new Blob([isBase64 ? bytesOfBase64(name, text) : text]), metadata, expiry };
}

function bytesOfBase64(name, text) {
  try {
    return Uint8Array.from(atob(text.replaceAll("-", "+").replaceAll("_", "/")), character => character.charCodeAt(0));
  } catch {
    throw new Error(`The value of ${quoted(name)} is not base64.`);
  }
}

/** Imports the items. Stopping, or an error, leaves what was put before. */
async function importItems(id, { chunks, items, expiring }, keepsExisting) {
  let put = 0, kept = 0, end = "";
  try {
    const work = keepsExisting ? addItems : replaceItems;
    await runTask("Importing", (signal, tell) => work(id, chunks, signal, (more, left) => {
      put += more;
      kept += left;
      tell(`Importing: ${count(put + kept)} of ${countOf(items, "key")}`);
    }));
  } catch (error) {
    const what = keepsExisting ? "" : "The next ones, counted from 0, were refused: ";
    end = error.name === "AbortError" ? " It was stopped." : `\n${what}${explained(error)}`;
  }
  if (state.namespace?.id === id && !byId("keys").hidden) await followPlace({ reloads: true });
  const told = [`Imported ${put < items ? `${count(put)} of ` : ""}${countOf(items, "key")}.`];
  if (kept) told.push(`${countOf(kept, "key")} existed and stayed as before.`);
  if (expiring) {
    const soon = countOf(state.minimumTtl, "second");
    told.push(`${countOf(expiring, "key")} left out, which would expire within ${soon}.`);
  }
  if (end) sayProblem(told.join(" ") + end); else say(told.join(" "));
}
