// A key that another client has written in the meantime: both versions, and the choice.

const PREVIEW_BYTES = 4096;

/** What is stored under the draft's name; null if nothing is. */
async function storedNow({ name, id }, signal) {
  try {
    return await loadValue(name, id, { signal });
  } catch (error) {
    if (error.status === 404) return null;
    throw error;
  }
}

async function previewOf(value) {
  const data = new Uint8Array(await value.slice(0, PREVIEW_BYTES).arrayBuffer());
  const { isPlain, text } = examined({ bytes: data, from: 0, total: value.size });
  return { shown: isPlain ? text : hexDump(data.subarray(0, 512), 0, 8), kind: isPlain ? "text" : "hex" };
}

function expiryText({ expiry, defaultTtl }) {
  const at = expiry.get("expiration"), ttl = expiry.get("expiration_ttl") ?? (at ? null : defaultTtl);
  if (ttl) return `${countOf(ttl, "second")} after saving`;
  return at ? absolute(at) : "never";
}

async function versionBox(heading, value, expires, metadata) {
  const { shown, kind } = await previewOf(value);
  const facts = element("dl", { class: "facts" });
  const shownMetadata = visibleJson(metadata ?? "none");
  for (const [name, text] of [["Size", bytes(value.size)], ["Expires", expires], ["Metadata", shownMetadata]]) {
    facts.append(element("dt", {}, name), element("dd", {}, text));
  }
  const attributes = { tabindex: 0, role: "region", "aria-label": "Value, " + heading, class: kind };
  const title = element("h3", {}, heading), preview = element("pre", attributes, shown);
  const box = element("section", { class: "box stack", "aria-label": heading }, title, facts, preview);
  if (value.size > PREVIEW_BYTES) box.append(element("p", { class: "quiet" }, "This is the beginning of the value."));
  return box;
}

/** The value as it is stored, with its whole length, of which only the beginning is at hand. */
const loadedBlob = loaded => ({ size: loaded.total, slice: (from, to) => new Blob([loaded.bytes.subarray(from, to)]) });

async function storedBox(theirs) {
  const heading = "Stored now";
  if (theirs === null) {
    return element("section", { class: "box stack", "aria-label": heading },
      element("h3", {}, heading), element("p", {}, "Nothing: the key was deleted, or has expired."));
  }
  const expires = theirs.expiration === undefined ? "never" : absolute(theirs.expiration);
  return versionBox(heading, loadedBlob(theirs), expires, theirs.metadata);
}

/** Emphasizes the facts that are not the same in both versions. */
function markDifferences() {
  const [mine, theirs] = [...byId("versions").children].map(box => [...box.querySelectorAll("dd")]);
  theirs.forEach((fact, index) => {
    const differs = fact.textContent !== mine[index].textContent;
    for (const each of [fact, mine[index]]) each.classList.toggle("differs", differs);
  });
}

/** Shows both versions. Returns which one the person wants: "mine", "theirs", or an empty text for neither. */
async function askAboutConflict(draft, theirs, isNew) {
  const dialog = byId("conflict-dialog");
  byId("conflict-text").replaceChildren("The key ", named(draft.name),
    isNew ? " exists already." : theirs ? " was changed since you opened it." : " was deleted since you opened it.",
    " Nothing was saved.");
  const mine = await versionBox("Yours", draft.value, expiryText(draft), draft.metadata);
  byId("versions").replaceChildren(mine, await storedBox(theirs));
  markDifferences();
  byId("keep-mine").textContent = theirs ? "Overwrite with yours" : "Save yours again";
  byId("keep-theirs").textContent = theirs ? "Discard yours, show what is stored" : "Discard yours";
  return new Promise(resolve => {
    dialog.returnValue = "";
    dialog.addEventListener("close", () => resolve(dialog.returnValue), { once: true });
    dialog.showModal();
    dialog.scrollTop = 0;
    dialog.querySelector(".cancel").focus({ preventScroll: true });
  });
}

byId("keep-mine").addEventListener("click", () => byId("conflict-dialog").close("mine"));
byId("keep-theirs").addEventListener("click", () => byId("conflict-dialog").close("theirs"));

function showTheirs({ id, name }, theirs) {
  if (state.namespace?.id !== id || byId("keys").hidden) return;
  if (theirs === null) forgetKey(name);
  else {
    visit({ key: name });
    showTitle();
    noteKey({ name, expiration: theirs.expiration, metadata: theirs.metadata });
    showValue(theirs);
  }
  say("Your changes were discarded.");
}
