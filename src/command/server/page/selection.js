// Selected keys: of all pages of a namespace that were looked at.

const SELECTED_MAX = 100000;
const DELETED_AT_ONCE = 1000;
const NAMES_SHOWN = 10;

let lastPicked = null;

/** Selects a key or not, as its box says; with Shift, all from the last one on. */
function pick(key, isRange) {
  const from = isRange ? state.keys.indexOf(lastPicked) : -1, at = state.keys.indexOf(key);
  const range = from < 0 ? [key] : state.keys.slice(Math.min(from, at), Math.max(from, at) + 1);
  pickAll(range, key.box.checked);
  lastPicked = key;
}

function pickAll(keys, isPicked) {
  for (const key of keys) setPicked(key, isPicked);
  showSelection();
  if (isPicked && state.selected.size === SELECTED_MAX) say(`At most ${count(SELECTED_MAX)} keys can be selected.`);
}

function setPicked(key, isPicked) {
  if (isPicked && state.selected.size < SELECTED_MAX) state.selected.set(key.name, key);
  else if (!isPicked) state.selected.delete(key.name);
  if (key.box) key.box.checked = state.selected.has(key.name);
}

function showSelection() {
  const { size } = state.selected, all = byId("pick-all");
  const here = state.keys.filter(key => state.selected.has(key.name)).length;
  all.checked = here > 0 && here === state.keys.length;
  all.indeterminate = here > 0 && here < state.keys.length;
  all.disabled = !state.keys.length;
  const bar = byId("selection");
  if (!size && bar.contains(document.activeElement)) byId("keys-title").focus();
  bar.hidden = !size;
  byId("selected-count").textContent = countOf(size, "key") + " selected"
    + (size > here ? `, ${count(size - here)} of them not on this page` : "");
}

byId("pick-all").addEventListener("click", () => pickAll(state.keys, byId("pick-all").checked));

byId("clear-selection").addEventListener("click", () => {
  state.selected.clear();
  pickAll(state.keys, false);
});

byId("delete-selected").addEventListener("click", askToDeleteSelected);

function askToDeleteSelected() {
  const { id } = state.namespace, names = [...state.selected.keys()];
  byId("delete-heading").textContent = "Delete " + countOf(names.length, "key");
  byId("delete-dialog").querySelector(".risky").textContent = "Delete " + countOf(names.length, "key");
  const shown = names.slice(0, NAMES_SHOWN).map(name => element("li", {}, named(name)));
  const listed = element("ul", { class: "names" }, ...shown);
  if (names.length > NAMES_SHOWN) listed.append(element("li", {}, `and ${count(names.length - NAMES_SHOWN)} more`));
  byId("delete-text").replaceChildren("Each of these keys is deleted with the value that it has now, even if another "
    + "client has changed it since the page listed it. This cannot be undone.", listed);
  openDialog(byId("delete-dialog"), async () => () => run(() => deleteNames(id, names)));
}

/** Deletes keys in steps, each of which is done as a whole. */
async function deleteNames(id, names) {
  let deleted = 0, end = "";
  try {
    await runTask("Deleting", async (signal, tell) => {
      while (deleted < names.length) {
        const step = names.slice(deleted, deleted + DELETED_AT_ONCE);
        await call("POST", namespacePath(id) + "/bulk/delete", { json: step, signal });
        deleted += step.length;
        if (state.namespace?.id === id) for (const name of step) state.selected.delete(name);
        tell(`Deleting: ${count(deleted)} of ${countOf(names.length, "key")}`);
      }
    });
  } catch (error) {
    end = error.name === "AbortError" ? " It was stopped." : "\n" + explained(error);
  }
  await afterDeletion(id, new Set(names.slice(0, deleted)));
  const told = `Deleted ${end ? `${count(deleted)} of ` : ""}${countOf(names.length, "key")}.${end}`;
  if (end) sayProblem(told); else say(told);
}

async function afterDeletion(id, deleted) {
  if (state.namespace?.id !== id || byId("keys").hidden) return;
  if (deleted.has(state.place.key)) leaveKey();
  if (!isSearch()) return followPlace({ reloads: true }).then(() => byId("keys-title").focus());
  state.keys = state.keys.filter(key => !deleted.has(key.name));
  showKeys();
  byId("keys-title").focus();
}
