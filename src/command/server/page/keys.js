// The keys of a namespace, page by page.

/** Shows the place in the address, and loads only what is not shown already. */
async function showNamespace() {
  const { id } = state.place;
  const isOther = state.namespace?.id !== id;
  if (isOther) {
    state.namespace = state.namespaces?.find(namespace => namespace.id === id) ?? { id };
    state.selected.clear();
    Object.assign(state, { keys: [], next: "", listed: "" });
    closeValue();
    showKeys();
  }
  byId("keys-title").replaceChildren(named(state.namespace.title ?? id));
  for (const name of ["prefix", "contains"]) byId(name).value = state.place[name];
  byId("limit").value = state.place.size;
  if (byId("keys").hidden) {
    show("keys");
    byId("keys-title").focus();
  }
  showTitle();
  const { namespace } = state;
  await Promise.all([followPlace(), isOther && loadDefaultTtl(namespace)]);
  if (namespace.title === undefined) await loadTitle(namespace);
}

/** The lifetime of keys that are put without one; null if they stay. */
async function loadDefaultTtl(namespace) {
  const response = await call("GET", namespacePath(namespace.id) + "/default_ttl", { signal: replacing("ttl") });
  namespace.defaultTtl = (await response.json()).result.default_ttl;
}

/** The title is unknown if the page was opened at this address. */
async function loadTitle(namespace) {
  const response = await call("GET", namespacePath(namespace.id), { signal: replacing("title") });
  namespace.title = (await response.json()).result.title;
  if (state.namespace !== namespace) return;
  byId("keys-title").replaceChildren(named(namespace.title));
  showTitle();
}

const listingOf = ({ id, prefix, contains, size, cursor }) => JSON.stringify([id, prefix, contains, size, cursor]);

async function followPlace({ reloads = false } = {}) {
  const { place } = state;
  if (reloads || state.listed !== listingOf(place)) await (place.contains ? searchKeys(place) : loadKeys(place));
  if (state.place !== place) return;
  if (place.key === null) closeValue();
  else if (reloads || state.open?.name !== place.key) await openKey(place.key);
}

async function loadKeys(place) {
  const { id, prefix, size, cursor, page } = place;
  const { keys, next } = await listPage(id, { prefix, limit: size, cursor, signal: replacing("list") });
  closeValue();
  Object.assign(state, { keys, next, listed: listingOf(place) });
  showKeys();
  say(`Page ${page}: ` + countOf(keys.length, "key"));
}

function keyRow(key) {
  key.button = element("button", { class: "open-key", onclick: () => visitKey(key.name) }, named(key.name));
  key.box = element("input", { type: "checkbox", class: "pick", "aria-label": "Select " + plainName(key.name) });
  key.box.checked = state.selected.has(key.name);
  key.box.addEventListener("click", event => pick(key, event.shiftKey));
  const expires = key.expiration === undefined
    ? element("span", { class: "quiet" }, "never")
    : relativeTime(key.expiration);
  return element("tr", key.name === state.open?.name ? { class: "open" } : {},
    element("td", {}, element("label", {}, key.box)), element("td", {}, key.button),
    element("td", {}, expires), element("td", { class: "mono" }, visibleJson((key.metadata ?? "").slice(0, 200))));
}

const isSearch = () => Boolean(state.place.contains);

function whyNoKeys() {
  if (isSearch()) return "No key was found that contains this.";
  if (!state.listed) return "";
  if (state.next) return "This page has no key that is text.";
  return state.place.prefix ? "No key begins with this prefix." : "There are no keys.";
}

function showKeys() {
  byId("key-rows").replaceChildren(...state.keys.map(keyRow));
  if (!state.keys.length) {
    byId("key-rows").append(element("tr", {}, element("td", { colspan: 4, class: "quiet" }, whyNoKeys())));
  }
  showPlace();
  showSelection();
}

function showPlace() {
  const { page } = state.place;
  for (const name of ["first", "previous", "next"]) byId("keys-" + name).hidden = isSearch();
  setPageButtons("keys", { first: page > 1, previous: page > 1, next: state.next !== "" });
  byId("keys-place").textContent = isSearch()
    ? countOf(state.keys.length, "key")
    : `Page ${page}` + (state.next ? "" : ", the last one");
}

const follow = options => run(() => followPlace(options), { reads: true });

function visitKey(key) {
  const isOpen = state.open?.name === key;
  visit({ key });
  showTitle();
  run(() => isOpen ? openKey(key) : followPlace(), { reads: true });
}

byId("prefix-form").addEventListener("submit", event => {
  event.preventDefault();
  visit({ ...BEGINNING, prefix: byId("prefix").value, contains: byId("contains").value }, { before: [] });
  showTitle();
  follow({ reloads: true });
});
byId("limit").addEventListener("change", () => {
  visit({ page: 1, cursor: "", key: null, size: Number(byId("limit").value) }, { before: [] });
  showTitle();
  follow();
});
byId("keys-refresh").addEventListener("click", async () => {
  await follow({ reloads: true });
  byId("keys-refresh").focus();
});

function turnKeys(change, before) {
  visit({ key: null, ...change }, { before });
  showTitle();
  follow();
}
byId("keys-next").addEventListener("click", () => {
  const { page, cursor } = state.place;
  // If this page could not be loaded, the next cursor is not its own.
  if (state.listed !== listingOf(state.place)) follow();
  else turnKeys({ page: page + 1, cursor: state.next }, [...state.before, cursor]);
});
byId("keys-previous").addEventListener("click", () => run(async () => {
  const { place, before } = state;
  if (before.length) return turnKeys({ page: Math.max(1, place.page - 1), cursor: before.at(-1) }, before.slice(0, -1));
  const found = await findPagesBefore(place);
  if (state.place === place) turnKeys({ page: found.length, cursor: found.at(-1) }, found.slice(0, -1));
}, { reads: true }));
byId("keys-first").addEventListener("click", () => turnKeys({ page: 1, cursor: "" }, []));

/** The cursors of the pages before one, which its address does not have: lists the keys from their beginning on. */
async function findPagesBefore({ id, prefix, size, cursor }) {
  const before = [""], here = state.keys[0]?.name;
  await runTask("Looking for the page before", async (signal, tell) => {
    for (;;) {
      const { keys, next } = await listPage(id, { prefix, limit: size, cursor: before.at(-1), signal });
      const isPast = keys.length > 0 && here !== undefined && compareKeys(keys.at(-1).name, here) >= 0;
      if (!next || next === cursor || isPast) return;
      before.push(next);
      tell(`Looking for the page before: ${countOf(before.length, "page")} so far`);
    }
  });
  return before;
}

/** Adds a written key to the page of the listing, if it belongs there. */
function noteKey(key) {
  const { prefix, contains, page } = state.place;
  if (!key.name.startsWith(prefix) || !matches(key.name, contains)) return;
  const at = state.keys.findIndex(other => compareKeys(other.name, key.name) >= 0);
  if (state.keys[at]?.name === key.name) state.keys[at] = key;
  else if (at > 0 || (at === 0 && page === 1)) state.keys.splice(at, 0, key);
  else if (at < 0 && !state.next) state.keys.push(key);
  showKeys();
}

/** Removes a key that is gone from the listing. The next one gets the focus. */
function forgetKey(name) {
  const at = state.keys.findIndex(key => key.name === name);
  if (at >= 0) state.keys.splice(at, 1);
  state.selected.delete(name);
  leaveKey();
  showKeys();
  focusKey(state.keys[Math.min(Math.max(at, 0), state.keys.length - 1)]);
}

const focusKey = key => (key?.button ?? byId("keys-title")).focus();

/** Closes the open key, in the address too. */
function leaveKey() {
  closeValue();
  if (state.place.key === null) return;
  visit({ key: null });
  showTitle();
}
