// The list of namespaces.

/** Most requests at a time for what namespaces hold. */
const HELD_AT_ONCE = 4;

async function loadNamespaces(page) {
  const path = `${NAMESPACES}?page=${page}&per_page=100&order=title&direction=asc`;
  const response = await call("GET", path, { signal: replacing("list") });
  const { result, result_info: info } = await response.json();
  Object.assign(state, { namespaces: result, namespacesPage: page, pages: info.total_pages, total: info.total_count });
}

function namespaceRow(namespace) {
  const { title } = namespace;
  const rename = element("button", { class: "writes-all", "aria-label": "Rename " + plainName(title) }, "Rename");
  rename.addEventListener("click", () => renameNamespace(namespace));
  const drop = element("button", { class: "risky writes-all", "aria-label": "Delete " + plainName(title) }, "Delete");
  drop.addEventListener("click", () => dropNamespace(namespace));
  namespace.keysCell = element("td", { class: "number" });
  namespace.bytesCell = element("td", { class: "number wide" });
  showHeld(namespace);
  return element("tr", {},
    element("td", {}, element("a", { href: "#namespace/" + namespace.id }, named(title))),
    element("td", { class: "wide mono quiet id" }, namespace.id), namespace.keysCell, namespace.bytesCell,
    element("td", {}, element("div", { class: "row" }, rename, drop)));
}

function showNamespaces() {
  const { namespaces, namespacesPage: page, pages, total } = state;
  byId("namespace-rows").replaceChildren(...namespaces.map(namespaceRow));
  if (!namespaces.length) {
    const none = element("td", { colspan: 5, class: "quiet" }, "There are no namespaces here.");
    byId("namespace-rows").append(element("tr", {}, none));
  }
  setPageButtons("namespaces", { previous: page > 1, next: page < pages });
  byId("namespaces-place").textContent = `${count(total)} in all` + (pages > 1 ? `, page ${page} of ${pages}` : "");
}

/** How much a namespace holds, as far as it is known yet. */
function showHeld({ held, keysCell, bytesCell }) {
  keysCell.textContent = held ? count(held.keys) : "";
  bytesCell.textContent = held ? bytes(held.live_bytes) : "";
}

/** Asks how much each namespace holds, a few at a time. One that is gone, or damaged, has no numbers. */
async function loadHeld(namespaces, signal) {
  const waiting = [...namespaces];
  const work = async () => {
    for (let namespace; (namespace = waiting.shift());) {
      try {
        const response = await call("GET", namespacePath(namespace.id) + "/statistics", { signal });
        namespace.held = (await response.json()).result;
      } catch (error) {
        if (!error.status) throw error;
      }
      showHeld(namespace);
    }
  };
  await Promise.all(Array.from({ length: HELD_AT_ONCE }, work));
}

async function turnNamespaces(step) {
  await loadNamespaces(state.namespacesPage + step);
  showNamespaces();
  if (step) say(`Page ${state.namespacesPage} of namespaces`);
  await loadHeld(state.namespaces, newest.list.signal);
}

byId("namespaces-previous").addEventListener("click", () => run(() => turnNamespaces(-1), { reads: true }));
byId("namespaces-next").addEventListener("click", () => run(() => turnNamespaces(1), { reads: true }));

function sortNamespaces() {
  state.namespaces.sort((a, b) => compareKeys(a.title, b.title));
  showNamespaces();
}

byId("create-namespace").addEventListener("click", () => {
  byId("title-heading").textContent = "Create namespace";
  byId("title").value = "";
  openDialog(byId("title-dialog"), async () => {
    const response = await call("POST", NAMESPACES, { json: { title: byId("title").value } });
    const { result } = await response.json();
    return () => {
      state.namespaces.push({ ...result, held: { keys: 0, live_bytes: 0 } });
      state.total += 1;
      sortNamespaces();
      say(`Created the namespace ${quoted(result.title)}.`);
    };
  });
});

function renameNamespace(namespace) {
  byId("title-heading").textContent = "Rename namespace";
  byId("title").value = namespace.title;
  openDialog(byId("title-dialog"), async () => {
    const title = byId("title").value;
    await call("PUT", namespacePath(namespace.id), { json: { title } });
    return () => {
      say(`Renamed ${quoted(namespace.title)} to ${quoted(title)}.`);
      namespace.title = title;
      sortNamespaces();
      byId("namespaces-title").focus();
    };
  });
}

function dropNamespace(namespace) {
  const button = byId("drop-dialog").querySelector(".main"), typed = byId("drop-confirm");
  byId("drop-text").replaceChildren("This deletes all keys of ", named(namespace.title), ". It cannot be undone.");
  typed.value = "";
  typed.oninput = () => { button.disabled = ![namespace.title, namespace.id].includes(typed.value); };
  openDialog(byId("drop-dialog"), async () => {
    await call("DELETE", namespacePath(namespace.id));
    return () => {
      state.namespaces = state.namespaces.filter(other => other !== namespace);
      state.total -= 1;
      showNamespaces();
      say(`Deleted the namespace ${quoted(namespace.title)}.`);
      byId("namespaces-title").focus();
    };
  });
  button.disabled = true;
}
