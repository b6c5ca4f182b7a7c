// Keys of the keyboard, and the start.

function moveFocus(event) {
  const picked = event.target.matches(".pick"), selector = picked ? ".pick" : ".open-key";
  const all = [...document.querySelectorAll("#key-rows " + selector)];
  all[all.indexOf(event.target) + (event.key === "ArrowDown" ? 1 : -1)]?.focus();
}

function focusPrefix() {
  leaveKey();
  byId("prefix").focus();
  byId("prefix").select();
}

/** The key of the row that has the focus. */
const focusedKey = target => state.keys.find(key => key.button === target || key.box === target);

document.addEventListener("keydown", event => {
  const hasModifier = event.ctrlKey || event.metaKey || event.altKey || event.isComposing;
  if (hasModifier || document.querySelector("dialog[open]") || byId("keys").hidden) return;
  const isTyping = event.target.matches("input:not([type=checkbox]), select, textarea");
  const key = focusedKey(event.target);
  if (event.key === "/" && !isTyping) {
    event.preventDefault();
    focusPrefix();
  } else if (event.key === "Escape" && state.open) {
    leaveValue();
  } else if (["ArrowDown", "ArrowUp"].includes(event.key) && key) {
    event.preventDefault();
    moveFocus(event);
  } else if (event.key === "x" && key) {
    key.box.click();
  } else if (event.key === "Delete" && key && state.selected.size && state.access.write) {
    askToDeleteSelected();
  }
});

forget();
route();
