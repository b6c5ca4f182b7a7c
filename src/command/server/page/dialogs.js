// What the page says, actions and their errors, and dialogs.

function say(text) {
  byId("alert").textContent = "";
  byId("status").textContent = text;
}

function sayProblem(text) {
  byId("status").textContent = "";
  byId("alert").textContent = text;
}

let running = 0;
/** Runs an action of the user, and shows its error. */
async function run(action, { reads = false } = {}) {
  byId("main").setAttribute("aria-busy", String(++running > 0));
  try {
    await action();
  } catch (error) {
    if (error.name === "AbortError") return;
    if (error.badToken && reads) askForToken("The token was refused: " + error.message);
    else sayProblem(explained(error));
  } finally {
    byId("main").setAttribute("aria-busy", String(--running > 0));
  }
}

const problemOf = dialog => dialog.querySelector("[role=alert]");

/**
 * Opens a dialog. `submit` does its work, and returns a function to call once it is closed. It gets a signal that is
 * aborted if the work is to be stopped. Errors are shown in the dialog.
 */
function openDialog(dialog, submit) {
  const opening = dialog.opening = {};
  problemOf(dialog).textContent = "";
  dialog.changed = dialog.warned = false;
  dialog.work = null;
  say("");
  dialog.querySelector("form").onsubmit = event => {
    event.preventDefault();
    if (!dialog.work) submitDialog(dialog, opening, submit);
  };
  dialog.showModal();
}

async function submitDialog(dialog, opening, submit) {
  const work = dialog.work = new AbortController();
  problemOf(dialog).textContent = "";
  try {
    const after = await submit(work.signal);
    if (dialog.work === work) dialog.work = null;
    if (dialog.opening === opening) dialog.close();
    after();
  } catch (error) {
    const isOpen = dialog.open && dialog.opening === opening;
    const told = error.name === "AbortError" ? "Stopped." : explained(error);
    (isOpen ? problemOf(dialog) : byId("alert")).textContent = told;
  } finally {
    if (dialog.work === work) dialog.work = null;
  }
}

/** Whether to close a dialog now. The first attempt stops an upload, or says that there are changes. */
function mayClose(dialog) {
  if (dialog.work && dialog.dataset.asks !== undefined) {
    dialog.work.abort();
    return false;
  }
  if (dialog.dataset.asks === undefined || !dialog.changed || dialog.warned) return true;
  dialog.warned = true;
  problemOf(dialog).textContent = "Your changes are not saved. Press Cancel or Escape again to discard them.";
  return false;
}

const hasUnsaved = () => [...document.querySelectorAll("dialog[open][data-asks]")].some(dialog => dialog.changed);

for (const dialog of document.querySelectorAll("dialog")) {
  dialog.querySelector(".cancel").addEventListener("click", () => { if (mayClose(dialog)) dialog.close(); });
  dialog.addEventListener("input", () => {
    dialog.changed = true;
    dialog.warned = false;
  });
  dialog.addEventListener("cancel", event => {
    if (event.target === dialog && !mayClose(dialog)) event.preventDefault();
  });
  dialog.addEventListener("close", () => { if (dialog.dataset.asks !== undefined) dialog.work?.abort(); });
  dialog.addEventListener("keydown", event => {
    // Of the other dialogs some have a button that is disabled until it is clear what it will do.
    const saves = event.key === "Enter" && (event.ctrlKey || event.metaKey) && !event.isComposing;
    if (dialog.dataset.asks === undefined || !saves) return;
    event.preventDefault();
    dialog.querySelector("form").requestSubmit();
  });
}

addEventListener("beforeunload", event => { if (hasUnsaved()) event.preventDefault(); });

// ---- Work that takes long ----

const tasks = new Set();

/** Runs work that tells its progress, and can be stopped. The work gets a signal, and a function to tell text. */
async function runTask(label, work) {
  const stopper = new AbortController();
  const text = element("span", { class: "grow" }, label);
  const stop = element("button", { "aria-label": "Stop: " + label, onclick: () => stopper.abort() }, "Stop");
  const row = element("div", { class: "row task" }, text, stop);
  byId("tasks").append(row);
  tasks.add(stopper);
  try {
    await work(stopper.signal, told => { text.textContent = told; });
  } finally {
    tasks.delete(stopper);
    if (row.contains(document.activeElement)) byId("main").querySelector("section:not([hidden]) h2")?.focus();
    row.remove();
  }
}

function stopTasks() {
  for (const stopper of tasks) stopper.abort();
}
