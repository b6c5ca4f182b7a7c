// What is shown, and signing in and out.

const VIEWS = ["sign-in", "namespaces", "keys", "statistics"];
const state = { place: parseAddress(""), before: [] };

function forget() {
  for (const kind in newest) newest[kind].abort();
  stopTasks();
  stopLive();
  Object.assign(state, { namespaces: null, namespacesPage: 1, pages: 1, total: 0, namespace: null, access: null });
  Object.assign(state, { keys: [], next: "", listed: "", open: null, selected: new Map(), samples: [] });
  closeValue();
  for (const form of document.forms) form.reset();
  editing = null;
  const lists = ["namespace-rows", "key-rows", "keys-title", "numbers"];
  const inDialogs = ["name-fixed", "versions", "conflict-text", "delete-text", "drop-text"];
  for (const id of [...lists, ...inDialogs]) byId(id).replaceChildren();
}

function show(view) {
  for (const name of VIEWS) byId(name).hidden = name !== view;
  byId("views").hidden = byId("sign-out").hidden = view === "sign-in";
  for (const link of document.querySelectorAll("nav a")) {
    const isIt = link.hash === "#" + view || (view === "keys" && link.hash === "#namespaces");
    if (isIt) link.setAttribute("aria-current", "page"); else link.removeAttribute("aria-current");
  }
}

function askForToken(problem = "") {
  for (const dialog of document.querySelectorAll("dialog[open]")) dialog.close();
  token = "";
  sessionStorage.removeItem("embercask-token");
  forget();
  say("");
  show("sign-in");
  document.title = "embercask";
  byId("sign-in").querySelector("[role=alert]").textContent = problem;
  byId("token").value = "";
  byId("token").focus();
}

/** Asks what the token permits, and hides what it does not; and which lifetimes the server accepts. */
async function loadAccess() {
  const response = await call("GET", "user/tokens/verify", { signal: replacing("access") });
  const { access, minimum_ttl: minimumTtl } = (await response.json()).result;
  Object.assign(state, { access, minimumTtl });
  byId("ttl").min = minimumTtl;
  const { classList } = document.body;
  classList.toggle("no-writes", !state.access.write);
  classList.toggle("no-all", !state.access.all_namespaces);
  classList.toggle("no-writes-all", !(state.access.write && state.access.all_namespaces));
}

byId("sign-in").querySelector("form").addEventListener("submit", async event => {
  event.preventDefault();
  token = byId("token").value.trim();
  if (!/^[ -~]+$/.test(token)) return askForToken("A token has only printable ASCII characters.");
  try {
    await loadAccess();
  } catch (error) {
    if (error.name === "AbortError") return;
    return askForToken(error.badToken ? "The token was refused: " + error.message : error.message);
  }
  byId("token").value = "";
  sessionStorage.setItem("embercask-token", token);
  route();
});
byId("sign-out").addEventListener("click", () => askForToken());

/** Shows what the address names. */
function route() {
  if (!token) return askForToken();
  for (const dialog of document.querySelectorAll("dialog[open]")) if (!dialog.changed && !dialog.work) dialog.close();
  const before = state.place;
  state.place = parseAddress(location.hash);
  if (!["namespace", "statistics"].includes(state.place.view)) state.place.view = "namespaces";
  state.before = Array.isArray(history.state?.before) ? history.state.before : [];
  say("");
  if (state.place.view !== "statistics") stopLive();
  run(() => arrive(before), { reads: true });
}

async function arrive(before) {
  if (!state.access) await loadAccess();
  // The statistics are of all namespaces.
  if (state.place.view === "statistics" && !state.access.all_namespaces) {
    history.replaceState(null, "", "#namespaces");
    state.place.view = "namespaces";
  }
  const { view } = state.place;
  showTitle();
  if (view === "namespace") return showNamespace();
  closeValue();
  // The keys may be others by the time that they are shown again.
  state.listed = "";
  show(view);
  if (before.view !== view || document.activeElement === document.body) byId(view + "-title").focus();
  return view === "statistics" ? loadStatistics() : turnNamespaces(0);
}
addEventListener("hashchange", route);

/** Enables those buttons of a listing that lead somewhere. If the focused one does not, another takes the focus. */
function setPageButtons(name, leads) {
  const focused = document.activeElement;
  const buttons = Object.keys(leads).map(which => byId(`${name}-${which}`));
  Object.values(leads).forEach((isEnabled, index) => { buttons[index].disabled = !isEnabled; });
  if (!buttons.includes(focused) || !focused.disabled) return;
  (buttons.findLast(button => !button.disabled) ?? focused.closest("section").querySelector("h2, h3")).focus();
}
