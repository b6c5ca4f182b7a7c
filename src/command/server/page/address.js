// The address, which names what is shown: #namespaces, #statistics, or
// #namespace/ID?prefix=…&contains=…&size=…&page=…&cursor=…&key=…
// Addresses from before there were parameters have the prefix behind the id: #namespace/ID/PREFIX

const SIZES = [25, 100, 500, 1000];
const SIZE_DEFAULT = 100;
/** Most pages to go back in a listing. */
const BEFORE_MAX = 1000;
/** The first page of everything. */
const BEGINNING = { prefix: "", contains: "", page: 1, cursor: "", key: null };

function parseAddress(hash) {
  const at = hash.indexOf("?");
  const [path, query] = at < 0 ? [hash, ""] : [hash.slice(0, at), hash.slice(at + 1)];
  const [view, id = "", prefix = ""] = path.slice(1).split("/");
  const parameters = new URLSearchParams(query);
  const size = Number(parameters.get("size"));
  const cursor = parameters.get("cursor") ?? "";
  return {
    view: view === "namespace" && !id ? "namespaces" : view,
    id,
    prefix: parameters.get("prefix") ?? decoded(prefix),
    contains: parameters.get("contains") ?? "",
    size: SIZES.includes(size) ? size : SIZE_DEFAULT,
    page: cursor ? Math.max(2, Math.trunc(Number(parameters.get("page"))) || 2) : 1,
    cursor,
    key: parameters.get("key") || null,
  };
}

function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

function formatAddress({ view, id, prefix, contains, size, page, cursor, key }) {
  if (view !== "namespace") return "#" + view;
  const parameters = new URLSearchParams();
  if (prefix) parameters.set("prefix", prefix);
  if (contains) parameters.set("contains", contains);
  if (size !== SIZE_DEFAULT) parameters.set("size", size);
  if (cursor) parameters.set("page", page);
  if (cursor) parameters.set("cursor", cursor);
  if (key !== null) parameters.set("key", key);
  return `#namespace/${encodeURIComponent(id)}` + (parameters.size ? "?" + parameters : "");
}

/**
 * Goes to a place in the namespace that is shown. The cursors of the pages before it belong to the history's entry.
 * Closing a key adds no entry: the entry of the key becomes one of the listing. If that doubles the entry before it,
 * because the key was opened from there, the next visit replaces it.
 */
function visit(change, { before = state.before } = {}) {
  const from = state.place, place = { ...from, ...change };
  const address = formatAddress(place), isSame = address === formatAddress(from);
  const isOfKey = !isSame && address === formatAddress({ ...from, key: place.key });
  const closes = isOfKey && place.key === null;
  const { opened = false, doubled = false } = history.state ?? {};
  const flags = isSame ? { opened, doubled } : { opened: isOfKey && from.key === null, doubled: closes && opened };
  state.place = place;
  state.before = before.slice(-BEFORE_MAX);
  history[isSame || closes || doubled ? "replaceState" : "pushState"]({ before: state.before, ...flags }, "", address);
}

function showTitle() {
  const { view, key } = state.place;
  const names = { "namespaces": ["Namespaces"], "statistics": ["Statistics"] };
  const parts = names[view] ?? [key, state.namespace?.title ?? state.namespace?.id].filter(part => part !== null);
  document.title = [...parts.filter(Boolean).map(plainName), "embercask"].join(" – ");
}
