// One value: loading it, wholly or in parts, and showing it.

/** Longer values are loaded and shown in parts of this length. */
const PART_BYTES = 1 << 20;
/** An ETag that no value has. A request with a condition is answered with the ETag, however long the value is. */
const NO_ETAG = '"none"';

/** Metadata are UTF-8 in a header, whose bytes come as one character each. */
function metadataOf(response) {
  const header = response.headers.get("cf-kv-metadata");
  if (header === null) return undefined;
  const data = Uint8Array.from(header, character => character.charCodeAt(0));
  return new TextDecoder("utf-8", { ignoreBOM: true }).decode(data);
}

/** A value, or a part of it. Bytes, metadata, expiry and ETag come in one response, so they belong together. */
async function loadValue(name, id, { from = 0, length = PART_BYTES, signal } = {}) {
  const headers = { "if-none-match": NO_ETAG };
  if (length < Infinity) headers.range = `bytes=${from}-${from + length - 1}`;
  const response = await call("GET", valuePath(name, id), { signal, headers });
  const data = new Uint8Array(await response.arrayBuffer());
  return {
    name, id,
    ...partOf(response, data, from, length),
    etag: response.headers.get("etag"),
    expiration: response.headers.get("expiration") ?? undefined,
    metadata: metadataOf(response),
  };
}

/** Which part of the value a response has. What is between the page and the server may ignore the range. */
function partOf(response, data, from, length) {
  const range = response.status === 206 && /^bytes (\d+)-\d+\/(\d+)$/.exec(response.headers.get("content-range"));
  if (range) return { from: Number(range[1]), total: Number(range[2]), bytes: data };
  return { from, total: data.length, bytes: data.subarray(from, from + length) };
}

async function openKey(name) {
  const { id } = state.namespace;
  try {
    const loaded = await loadValue(name, id, { signal: replacing("value") });
    if (state.namespace?.id === id && state.place.key === name) showValue(loaded);
  } catch (error) {
    if (error.status === 404) forgetKey(name);
    else if (error.name !== "AbortError") leaveKey();
    throw error;
  }
  say("");
}

/** Shows another part of the open value, of the same version of it. */
async function openPart(from) {
  const { name, id, etag } = state.open;
  try {
    const part = await loadValue(name, id, { from, signal: replacing("value") });
    if (part.etag === etag) return showValue(part, { focuses: false });
  } catch (error) {
    // The value has become shorter.
    if (error.status !== 416) throw error;
  }
  await openKey(name);
  say("The value has changed, so this is its beginning.");
}

function showValue(loaded, { focuses = true } = {}) {
  const shownAs = focuses ? null : document.querySelector("#kinds [aria-pressed=true]")?.dataset.kind;
  closeValue();
  const open = state.open = Object.assign(loaded, examined(loaded));
  byId("value-title").replaceChildren(named(open.name));
  byId("size").textContent = bytes(open.total) + (open.total >= 1024 ? ` (${count(open.total)} bytes)` : "");
  byId("expires").replaceChildren(...(open.expiration === undefined ? ["never"]
    : [absolute(open.expiration), " (", relativeTime(open.expiration), ")"]));
  byId("no-metadata").hidden = open.metadata !== undefined;
  byId("metadata").hidden = open.metadata === undefined;
  byId("metadata").textContent = visibleJson(open.metadata === undefined ? "" : pretty(open.metadata));
  for (const button of byId("kinds").children) {
    button.disabled = button.dataset.kind !== "hex" && open[button.dataset.kind] === null;
  }
  byId("copy-value").disabled = !open.isUtf8 || !open.isWhole;
  byId("value").hidden = false;
  byId("key-columns").classList.add("two");
  for (const key of state.keys) key.button?.closest("tr").classList.toggle("open", key.name === open.name);
  showParts();
  showAs(shownAs ?? bestKind(open));
  if (focuses) byId("value-title").focus();
}

function bestKind({ image, json, text, isPlain }) {
  if (image) return "image";
  if (json !== null && /^\s*[[{]/.test(text)) return "json";
  return isPlain ? "text" : "hex";
}

/** Where a part is in its value, with buttons for the others. */
function showParts() {
  const { from, total, isWhole, bytes: data } = state.open;
  byId("parts").hidden = isWhole;
  byId("parts-place").textContent = `Bytes ${count(from)} to ${count(from + data.length - 1)} of ${count(total)}`;
  setPageButtons("part", { previous: from > 0, next: from + data.length < total });
}
byId("part-previous").addEventListener("click", () => run(() => openPart(Math.max(0, state.open.from - PART_BYTES))));
byId("part-next").addEventListener("click", () => run(() => openPart(state.open.from + PART_BYTES)));

function closeValue() {
  newest.value?.abort();
  clearContent();
  state.open = null;
  for (const id of ["value-title", "size", "expires", "metadata"]) byId(id).replaceChildren();
  byId("value").hidden = true;
  byId("key-columns").classList.remove("two");
  document.querySelector("tr.open")?.classList.remove("open");
}

function clearContent() {
  const image = byId("content").querySelector("img");
  if (image) URL.revokeObjectURL(image.src);
  byId("content").replaceChildren();
}

/** Overrides, embeddings and isolates of the direction of text. */
const DIRECTIONS = /[\u202a-\u202e\u2066-\u2069]/;

/** What has to be said about a value that is shown so. */
function notesOf({ bytes: data, text, isUtf8, isWhole }, kind) {
  const notes = [];
  if (!isWhole) notes.push("The value is larger than 1 MiB: this is a part of it.");
  if (kind === "text" && !isUtf8) notes.push("The value is not UTF-8: \ufffd stands for invalid bytes.");
  if (kind === "text" && DIRECTIONS.test(text)) {
    notes.push("Characters in the text change its direction. Hex shows them.");
  }
  if (kind === "hex" && data.length > HEX_BYTES_MAX) {
    notes.push(`These are the first 64 KiB of ${isWhole ? "it" : "the part"}.`);
  }
  if (!data.length) notes.push("The value is empty.");
  return notes.join(" ");
}

function note(text) {
  byId("value-note").textContent = text;
  byId("value-note").hidden = !text;
}

function showAs(kind) {
  const { bytes: data, text, json, from } = state.open;
  clearContent();
  for (const button of byId("kinds").children) {
    button.setAttribute("aria-pressed", String(button.dataset.kind === kind));
  }
  note(notesOf(state.open, kind));
  if (kind === "image") return showImage();
  if (!data.length) return;
  const shownAs = {
    text: () => text,
    json: () => visibleJson(json),
    hex: () => hexDump(data, from, byId("value").clientWidth < 660 ? 8 : 16),
  };
  const attributes = { tabindex: 0, role: "region", "aria-label": "Value", class: kind };
  byId("content").append(element("pre", attributes, shownAs[kind]()));
}

function showImage() {
  const { bytes: data, image } = state.open;
  const src = URL.createObjectURL(new Blob([data], { type: image }));
  const shown = element("img", { alt: "The value as an image", src });
  shown.addEventListener("error", () => note("The value begins like an image but cannot be shown as one."));
  byId("content").append(shown);
}

byId("kinds").addEventListener("click", event => {
  if (event.target.dataset.kind) showAs(event.target.dataset.kind);
});

byId("close-value").addEventListener("click", leaveValue);
function leaveValue() {
  const { name } = state.open;
  leaveKey();
  focusKey(state.keys.find(key => key.name === name));
}

/** All bytes of the open value. */
async function wholeValue(open, signal) {
  if (open.isWhole) return open.bytes;
  const whole = await loadValue(open.name, open.id, { length: Infinity, signal });
  if (whole.etag === open.etag) return whole.bytes;
  throw new Error("The value has changed since it was opened. Open it again to see what it is now.");
}

/** Lets the browser save a file. */
function saveFile(parts, name, type) {
  const url = URL.createObjectURL(new Blob(parts, { type }));
  element("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 60000);
}

const fileName = text => text.replace(/[^\p{L}\p{N}._-]+/gu, "_").replace(/^\.+/, "").slice(-100) || "value";

byId("download").addEventListener("click", () => run(async () => {
  const { open } = state;
  saveFile([await wholeValue(open)], fileName(open.name), "application/octet-stream");
}));

/** Only with the ETag of what is open can it be written or deleted without losing what other clients write. */
async function requireEtag() {
  if (!state.open.etag) await openKey(state.open.name);
  if (!state.open.etag) throw new Error("The response has no ETag, so the page could not tell if the key has changed.");
}

byId("delete-key").addEventListener("click", () => run(async () => {
  await requireEtag();
  askToDelete(state.open);
}));

/** Deletes the version of a key that was shown; if it has changed, shows the new one, and asks again. */
function askToDelete({ name, id, etag }) {
  byId("delete-heading").textContent = "Delete key";
  byId("delete-dialog").querySelector(".risky").textContent = "Delete key";
  byId("delete-text").replaceChildren("This deletes ", named(name), " and its value. It cannot be undone.");
  openDialog(byId("delete-dialog"), async () => {
    try {
      await call("DELETE", valuePath(name, id), { headers: { "if-match": etag } });
    } catch (error) {
      if (error.status !== 412 || state.namespace?.id !== id) throw error;
      await openKey(name);
      etag = state.open?.etag;
      throw new Error("The key has changed since it was opened. The page now shows it: delete again to delete that.");
    }
    return () => {
      if (state.namespace?.id === id) forgetKey(name);
      say(`Deleted the key ${quoted(name)}.`);
    };
  });
}
