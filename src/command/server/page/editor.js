// Creating and editing a key.

/** What is being edited: the version that was opened, and how its text was put into the field. */
let editing = null;

byId("create-key").addEventListener("click", () => editKey(null));
byId("edit-key").addEventListener("click", () => run(async () => {
  await requireEtag();
  editKey(state.open);
}));

const source = () => document.querySelector("[name=source]:checked").value;

function showFields() {
  const isText = source() === "text";
  for (const id of ["text", "text-tools"]) byId(id).hidden = !isText;
  byId("text-note").hidden = !isText || !byId("text-note").textContent;
  byId("file").hidden = source() !== "file";
  byId("file").required = source() === "file";
  for (const id of ["ttl", "date"]) {
    byId(id).hidden = byId("expiry").value !== id;
    byId(id).required = byId("expiry").value === id;
    byId(id).disabled = byId("expiry").value !== id;
  }
  const isListed = !editing.open && state.keys.some(key => key.name === byId("name").value);
  byId("name-note").textContent = isListed
    ? "A key with this name exists. You will be asked before it is replaced."
    : "";
}

let checking;
byId("key-dialog").addEventListener("input", event => {
  showFields();
  if (event.target.id !== "text") return;
  clearTimeout(checking);
  checking = setTimeout(showValidity, 200);
});
byId("key-dialog").addEventListener("change", showFields);

/** Says whether text that looks like JSON is valid. */
function showValidity() {
  const text = byId("text").value, problem = jsonProblem(text);
  const isLike = /^\s*[[{]/.test(text);
  byId("validity").textContent = !isLike ? "" : problem ? "Not JSON: " + problem : "Valid JSON";
  for (const id of ["format-json", "compact-json"]) byId(id).disabled = problem !== "";
}

function reformat(change) {
  const field = byId("text"), text = change(field.value);
  if (text === null || text === field.value) return;
  field.value = text;
  field.dispatchEvent(new Event("input", { bubbles: true }));
  field.focus();
}
byId("format-json").addEventListener("click", () => reformat(pretty));
byId("compact-json").addEventListener("click", () => reformat(compact));

// A text field converts all line ends to LF.
function lineEndsOf(open) {
  if (!open?.isPlain || !open.text.includes("\r")) return "LF";
  return /\r(?!\n)|(?<!\r)\n/.test(open.text) ? "mixed" : "CR LF";
}

const LINE_END_NOTES = {
  "mixed": "Its mixed line ends become LF if you change the text.",
  "CR LF": "Its line ends stay CR LF.",
  "LF": "",
};

function fillValue(open) {
  const isText = !open || (open.isPlain && open.isWhole);
  byId("source-kept").hidden = !open;
  byId("text-note").textContent = open && !open.isWhole
    ? "The value is larger than 1 MiB, so its text is not here. Text replaces all of it."
    : LINE_END_NOTES[editing.lineEnds];
  byId("text").value = isText && open ? open.text : "";
  editing.textBefore = byId("text").value;
  document.querySelector(`[name=source][value=${isText ? "text" : "kept"}]`).checked = true;
}

function fillExpiry(open) {
  byId("file").value = byId("ttl").value = byId("date").value = "";
  const kept = byId("expiry").querySelector("[value=kept]");
  kept.hidden = kept.disabled = open?.expiration === undefined;
  kept.textContent = kept.hidden ? "" : "as it is: " + absolute(open.expiration);
  const { defaultTtl } = state.namespace;
  byId("expiry").querySelector("[value=never]").textContent = defaultTtl
    ? `after ${countOf(defaultTtl, "second")}, the namespace's default`
    : "never";
  byId("expiry").value = kept.hidden ? "never" : "kept";
}

function editKey(open) {
  const { id, defaultTtl } = state.namespace;
  editing = { open, id, defaultTtl, lineEnds: lineEndsOf(open) };
  byId("key-heading").textContent = open ? "Edit key" : "Create key";
  byId("name-field").hidden = Boolean(open);
  byId("name").required = !open;
  byId("name").value = open ? "" : state.place.prefix;
  byId("name-fixed").replaceChildren(open ? named(open.name) : "");
  byId("name-fixed").hidden = !open;
  fillValue(open);
  fillExpiry(open);
  byId("metadata-text").value = open?.metadata ?? "";
  editing.metadataBefore = byId("metadata-text").value;
  showFields();
  showValidity();
  showProgress(null);
  openDialog(byId("key-dialog"), saveKey);
}

async function valueOfFields(signal) {
  const { open, lineEnds, textBefore } = editing, text = byId("text").value;
  const isKept = source() === "kept" || (source() === "text" && open?.isPlain && open.isWhole && text === textBefore);
  if (source() === "file") return byId("file").files[0];
  if (open && isKept) return new Blob([await wholeValue(open, signal)]);
  return new Blob([lineEnds === "CR LF" ? text.replaceAll("\n", "\r\n") : text]);
}

function metadataOfFields() {
  const text = byId("metadata-text").value;
  const metadata = text === editing.metadataBefore ? editing.open?.metadata : text.trim() || undefined;
  if (metadata !== undefined && !isJson(metadata)) throw new Error("The metadata is not JSON.");
  return metadata;
}

/** The query for the expiry that was chosen. */
function expiryOfFields() {
  const parameters = new URLSearchParams(), chosen = byId("expiry").value;
  if (chosen === "ttl") parameters.set("expiration_ttl", byId("ttl").value);
  if (chosen === "date") parameters.set("expiration", Math.floor(new Date(byId("date").value) / 1000));
  if (chosen === "kept") parameters.set("expiration", editing.open.expiration);
  return parameters;
}

/** What the fields say: the version of the key that is to be stored. */
async function draftOfFields(signal) {
  const { open, id } = editing, name = open ? open.name : byId("name").value;
  const draft = { id, name, metadata: metadataOfFields(), expiry: expiryOfFields(), defaultTtl: editing.defaultTtl };
  draft.value = await valueOfFields(signal);
  if (draft.value.size > VALUE_BYTES_MAX) {
    throw new Error(`The value has ${count(draft.value.size)} bytes. At most ${count(VALUE_BYTES_MAX)} are accepted.`);
  }
  return draft;
}

function showProgress(sent, total) {
  byId("sending").hidden = sent === null;
  if (sent === null) return;
  byId("sent").value = total ? sent / total : 1;
  byId("sent-text").textContent = sent < total
    ? `Sent ${bytes(sent)} of ${bytes(total)}`
    : `Sent ${bytes(total)}, waiting`;
}

/** Puts a draft if the condition holds. */
async function putDraft(draft, condition, signal) {
  const { path, body } = putOf(draft);
  try {
    return await upload(path, body, { headers: condition, signal, progress: showProgress });
  } finally {
    showProgress(null);
  }
}

/** Saves what the fields say. If the key is not what it was when it was opened, a person has to choose. */
async function saveKey(signal) {
  const { open } = editing, draft = await draftOfFields(signal);
  let condition = open ? { "if-match": open.etag } : { "if-none-match": "*" };
  for (;;) {
    try {
      const response = await putDraft(draft, condition, signal);
      const written = await writtenValue(draft, response);
      return () => showWritten(written);
    } catch (error) {
      if (error.status !== 412) throw error;
    }
    const theirs = await storedNow(draft, signal);
    const choice = await askAboutConflict(draft, theirs, !open);
    if (choice === "theirs") return () => showTheirs(draft, theirs);
    if (choice !== "mine") throw new Error("Not saved: the key has changed. Your version is still here.");
    condition = theirs ? { "if-match": theirs.etag } : { "if-none-match": "*" };
  }
}

/** The value that was written, without another request. */
async function writtenValue({ id, name, value, metadata, expiry, defaultTtl }, response) {
  const lifetime = expiry.get("expiration_ttl") ?? (expiry.has("expiration") ? null : defaultTtl);
  const now = Math.floor(Date.parse(response.headers.get("date")) / 1000);
  const data = new Uint8Array(await value.slice(0, value.size > PART_BYTES ? PART_BYTES : value.size).arrayBuffer());
  return {
    id, name, from: 0, total: value.size, bytes: data,
    etag: response.headers.get("etag"),
    expiration: lifetime ? now + Number(lifetime) : expiry.get("expiration") ?? undefined,
    metadata: metadata === "null" ? undefined : metadata,
  };
}

function showWritten(written) {
  const { id, name, expiration, metadata } = written;
  say(`Saved the key ${quoted(name)}.`);
  if (state.namespace?.id !== id || byId("keys").hidden) return;
  visit({ key: name });
  showTitle();
  noteKey({ name, expiration, metadata });
  showValue(written);
}
