// Searching and counting keys, which reads the whole listing and can be stopped.

const MATCHES_MAX = 1000;

/** Whether a key contains some text, in any case of letters. */
const matches = (name, contains) => name.toLowerCase().includes(contains.toLowerCase());

const found = searched => `${countOf(state.keys.length, "match", "matches")} in ${countOf(searched, "key")}`;

/** Lists the keys that contain some text, as they are found. */
async function searchKeys(place) {
  const { id, prefix, contains } = place;
  const newer = replacing("list");
  closeValue();
  Object.assign(state, { keys: [], next: "", listed: listingOf(place) });
  byId("key-rows").replaceChildren();
  let searched = 0, end = "";
  await runTask(`Searching for ${quoted(contains)}`, async (stopped, tell) => {
    const signal = AbortSignal.any([newer, stopped]);
    try {
      for await (const keys of listPages(id, prefix, signal)) {
        searched += keys.length;
        addMatches(keys.filter(key => matches(key.name, contains)));
        tell(`Searching for ${quoted(contains)}: ${found(searched)}`);
        if (state.keys.length < MATCHES_MAX) continue;
        end = ` The search ended at ${count(MATCHES_MAX)} matches.`;
        break;
      }
    } catch (error) {
      if (error.name !== "AbortError" || newer.aborted) throw error;
      end = " The search was stopped.";
    }
  });
  // The rows that are there stay, since one may have the focus.
  if (state.keys.length) showPlace();
  else showKeys();
  say(`${found(searched)}.${end}`);
}

function addMatches(keys) {
  const added = keys.slice(0, MATCHES_MAX - state.keys.length);
  state.keys.push(...added);
  byId("key-rows").append(...added.map(keyRow));
  showPlace();
  showSelection();
}

/** The server counts keys by their prefix. */
async function countKeys(id, prefix, signal) {
  const parameters = new URLSearchParams({ prefix });
  const response = await call("GET", `${namespacePath(id)}/count?${parameters}`, { signal });
  return (await response.json()).result.count;
}

byId("keys-count").addEventListener("click", () => run(async () => {
  const { id, prefix, contains } = state.place;
  let counted = 0;
  await runTask("Counting", async (signal, tell) => {
    if (!contains) {
      counted = await countKeys(id, prefix, signal);
      return;
    }
    for await (const keys of listPages(id, prefix, signal)) {
      counted += keys.filter(key => matches(key.name, contains)).length;
      tell(`Counting: ${countOf(counted, "key")} so far`);
    }
  });
  const parts = [prefix && `the prefix ${quoted(prefix)}`, contains && `${quoted(contains)} in them`];
  const rules = parts.filter(Boolean).join(" and ");
  say(countOf(counted, "key") + (rules ? ` with ${rules}.` : " in all."));
}, { reads: true }));
