// The list of namespaces.

async function loadNamespaces(page) {
  const path = `${NAMESPACES}?page=${page}&per_page=100&order=title&direction=asc`;
  const response = await call("GET", path, { signal: replacing("list") });
  const { result, result_info: info } = await response.json();
  Object.assign(state, { namespaces: result, namespacesPage: page, pages: info.total_pages, total: info.total_count });
}

function namespaceRow(namespace) {
  const { title } = namespace;
  const rename = element("button", { class: "writes-all", "aria-label": "Rename " + title }, "Rename");
  rename.addEventListener("click", () => renameNamespace(namespace));
  const drop = element("button", { class: "risky writes-all", "aria-label": "Delete " + title }, "Delete");
  drop.addEventListener("click", () => dropNamespace(namespace));
  return element("tr", {},
    element("td", {}, element("a", { href: "#namespace/" + namespace.id }, named(title))),
    element("td", { class: "wide mono quiet" }, namespace.id),
    element("td", {}, element("div", { class: "row" }, rename, drop)));
}

function showNamespaces() {
  const { namespaces, namespacesPage: page, pages, total } = state;
  byId("namespace-rows").replaceChildren(...namespaces.map(namespaceRow));
  if (!namespaces.length) {
    const none = element("td", { colspan: 3, class: "quiet" }, "There are no namespaces here.");
    byId("namespace-rows").append(element("tr", {}, none));
  }
  setPageButtons("namespaces", page > 1, page < pages);
  byId("namespaces-place").textContent = `${count(total)} in all` + (pages > 1 ? `, page ${page} of ${pages}` : "");
}

async function turnNamespaces(step) {
  await loadNamespaces(state.namespacesPage + step);
  showNamespaces();
  if (step) say(`Page ${state.namespacesPage} of namespaces`);
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
      state.namespaces.push(result);
      state.total += 1;
      sortNamespaces();
      say(`Created the namespace "${result.title}".`);
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
      say(`Renamed "${namespace.title}" to "${title}".`);
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
      say(`Deleted the namespace "${namespace.title}".`);
      byId("namespaces-title").focus();
    };
  });
  button.disabled = true;
}
