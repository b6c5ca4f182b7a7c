// Exporting keys with their values to a file, in the format of a bulk put.

const EXPORT_BYTES_MAX = 256 << 20;
const KEYS_AT_ONCE = 100;

/** One pair, with its metadata as they were stored. */
function exportedPair({ name, expiration, metadata }, { text, data }) {
  const members = [`"key":${JSON.stringify(name)}`];
  if (data) members.push(`"value":"${base64(data)}"`, `"base64":true`);
  else members.push(`"value":${JSON.stringify(text)}`);
  if (expiration !== undefined) members.push(`"expiration":${expiration}`);
  if (metadata !== undefined) members.push(`"metadata":${metadata}`);
  return `{${members.join(",")}}`;
}

/** A value by itself, whose bytes need not be text. */
async function exactPair(id, key, signal) {
  const loaded = await loadValue(key.name, id, { length: Infinity, signal });
  const text = utf8(loaded.bytes);
  return exportedPair(loaded, text === null ? { data: loaded.bytes } : { text });
}

/** The pairs of some keys. Values that are not text, too large together, or damaged are requested one by one. */
async function pairsOf(id, keys, signal, failed) {
  if (keys.length === 1) {
    try {
      return [await exactPair(id, keys[0], signal)];
    } catch (error) {
      if (error.name === "AbortError" || error.badToken || !error.status) throw error;
      if (error.status !== 404) failed.push(keys[0].name);
      return [];
    }
  }
  let text;
  try {
    const json = { keys: keys.map(key => key.name), withMetadata: true };
    const response = await call("POST", namespacePath(id) + "/bulk/get", { json, signal });
    text = await response.text();
  } catch (error) {
    if (![400, 413, 414, 500].includes(error.status)) throw error;
    const half = Math.ceil(keys.length / 2);
    return [
      ...await pairsOf(id, keys.slice(0, half), signal, failed),
      ...await pairsOf(id, keys.slice(half), signal, failed),
    ];
  }
  const pairs = [];
  for (const [name, found] of jsonMembers(jsonMember(jsonMember(text, "result"), "values"))) {
    const { value, expiration } = JSON.parse(found) ?? {};
    // The replacement character may stand for bytes that are not text.
    if (value?.includes("\ufffd")) pairs.push(...await pairsOf(id, [{ name }], signal, failed));
    else if (value !== undefined) {
      pairs.push(exportedPair({ name, expiration, metadata: metadataIn(found) }, { text: value }));
    }
  }
  return pairs;
}

/** The metadata in an answer to a bulk get, as they were stored: of the moment of the value, not of the listing. */
function metadataIn(found) {
  const metadata = jsonMember(found, "metadata");
  return metadata === "null" ? undefined : metadata;
}

/** Exports pages of keys; returns what could not be exported. */
async function exportPages(id, pages, signal, tell) {
  const lines = [], failed = [];
  let size = 0;
  for await (const page of pages) {
    const keys = page.filter(key => isRequestable(key.name));
    failed.push(...page.filter(key => !isRequestable(key.name)).map(key => key.name));
    for (let at = 0; at < keys.length; at += KEYS_AT_ONCE) {
      const pairs = await pairsOf(id, keys.slice(at, at + KEYS_AT_ONCE), signal, failed);
      for (const pair of pairs) size += pair.length;
      if (size > EXPORT_BYTES_MAX) {
        throw new Error(`The file would be larger than ${bytes(EXPORT_BYTES_MAX)}, so nothing was exported. `
          + "Choose a prefix or some keys, or use the command embercask export.");
      }
      lines.push(...pairs);
      tell(`Exporting: ${countOf(lines.length, "key")}, ${bytes(size)}`);
    }
  }
  return { lines, failed };
}

async function exportKeys(pages, name) {
  const { id } = state.namespace;
  await runTask("Exporting", async (signal, tell) => {
    const { lines, failed } = await exportPages(id, pages(id, signal), signal, tell);
    saveFile(["[\n", lines.join(",\n"), "\n]\n"], fileName(name) + ".json", "application/json");
    if (!failed.length) return say(`Exported ${countOf(lines.length, "key")}.`);
    sayProblem(`Exported ${countOf(lines.length, "key")}. ${countOf(failed.length, "key")} could not be read, such as `
      + failed.slice(0, NAMES_SHOWN).map(plainName).join(", "));
  });
}

const namespaceName = () => state.namespace.title ?? state.namespace.id;

/** Only the keys of each page that contain some text. */
async function* containing(pages, contains) {
  for await (const keys of pages) yield keys.filter(key => matches(key.name, contains));
}

byId("export-keys").addEventListener("click", () => {
  const { prefix, contains } = state.place;
  const pages = (id, signal) => containing(listPages(id, prefix, signal), contains);
  run(() => exportKeys(pages, namespaceName() + (prefix && "-" + prefix)), { reads: true });
});

byId("export-selected").addEventListener("click", () => {
  const keys = [...state.selected.values()];
  run(() => exportKeys(() => [keys], namespaceName() + "-selected"), { reads: true });
});
