// Copying to the clipboard.

/** Copies text. Browsers offer their clipboard to pages with TLS or on this machine only; others have the old way. */
async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    copySelected(text);
  }
}

function copySelected(text) {
  const field = element("textarea", { class: "unseen", "aria-hidden": "true" });
  const { activeElement } = document;
  field.value = text;
  document.body.append(field);
  field.select();
  const isCopied = document.execCommand("copy");
  field.remove();
  activeElement?.focus();
  if (!isCopied) throw new Error("The browser does not let the page copy.");
}

function copying(id, what, text) {
  byId(id).addEventListener("click", () => run(async () => {
    await copyText(text());
    say(`Copied the ${what}.`);
  }));
}

copying("copy-key", "key", () => state.open.name);
copying("copy-value", "value", () => state.open.text);
