// Importing keys from a file in the format of a bulk put.

const IMPORT_BYTES_MAX = 100 << 20;
const ITEMS_AT_ONCE = 1000;
const CHARACTERS_AT_ONCE = 8 << 20;
const LIFETIME_MIN = 60;

byId("import-keys").addEventListener("click", () => {
  const { id } = state.namespace;
  byId("import-file").value = "";
  openDialog(byId("import-dialog"), async () => {
    const plan = importPlan(await importText(byId("import-file").files[0]));
    return () => run(() => importChunks(id, plan));
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

const isExpiring = ({ expiration, expiration_ttl: ttl }) =>
  ttl === undefined && typeof expiration === "number" && expiration < serverNow() / 1000 + LIFETIME_MIN;

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

/** Puts each chunk as a whole. Stopping, or an error, leaves what was put before. */
async function importChunks(id, { chunks, items, expiring }) {
  let put = 0, end = "";
  try {
    await runTask("Importing", async (signal, tell) => {
      for (const chunk of chunks) {
        const headers = { "content-type": "application/json" };
        await call("PUT", namespacePath(id) + "/bulk", { body: `[${chunk.items.join(",")}]`, headers, signal });
        put += chunk.items.length;
        tell(`Importing: ${count(put)} of ${countOf(items, "key")}`);
      }
    });
  } catch (error) {
    end = error.name === "AbortError"
      ? " It was stopped."
      : `\nThe next ones, counted from 0, were refused: ${explained(error)}`;
  }
  if (state.namespace?.id === id && !byId("keys").hidden) await followPlace({ reloads: true });
  const skipped = expiring ? ` ${countOf(expiring, "key")} left out, which would expire within a minute.` : "";
  const told = `Imported ${end ? `${count(put)} of ` : ""}${countOf(items, "key")}.${skipped}${end}`;
  if (end) sayProblem(told); else say(told);
}
