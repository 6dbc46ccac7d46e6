// The API key: asked for when one is needed, kept in this tab alone.
const NAME = "r3mes-api-key";
const form = document.getElementById("key-form");
const field = document.getElementById("key");

function stored() {
  try {
    return sessionStorage.getItem(NAME) ?? "";
  } catch {
    return ""; // a browser that keeps nothing
  }
}

export function authorisation() {
  const key = field.value.trim() || stored();
  return key ? { Authorization: `Bearer ${key}` } : {};
}

export function askForKey({ focus = false } = {}) {
  form.hidden = false;
  if (focus) field.focus();
}

export function setUpKey(changed) {
  field.value = stored();
  if (document.body.dataset.needsKey === "yes" || field.value) askForKey();
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    try {
      const key = field.value.trim();
      if (key) sessionStorage.setItem(NAME, key);
      else sessionStorage.removeItem(NAME);
    } catch {
      // the field itself still holds it
    }
    changed();
  });
}
