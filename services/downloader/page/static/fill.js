// Puts values into the places of the HTML, always as text; as render.py does for the first state.

// Fill the places of `root` that `values` names: an empty value hides its place.
export function fill(root, values) {
  for (const place of root.querySelectorAll("[data-field], [data-of], [data-bar], [data-list]")) {
    const { field, of, bar, list } = place.dataset;
    const value = values[field ?? of ?? bar ?? list];
    if (value === undefined) continue;
    const isEmpty = value.length === 0;
    if (place.hidden !== isEmpty) place.hidden = isEmpty;
    if (field !== undefined && place.textContent !== value) place.textContent = value;
    if (bar !== undefined && !isEmpty) [place.max, place.value] = [value[1], value[0]];
    if (list !== undefined) fillList(place, value);
  }
}

function fillList(place, texts) {
  const present = [...place.children].map((item) => item.textContent);
  if (present.length === texts.length && present.every((text, index) => text === texts[index])) return;
  place.replaceChildren(...texts.map((text) => {
    const item = document.createElement("li");
    item.textContent = text;
    return item;
  }));
}

export function made(template) {
  return document.getElementById(template).content.firstElementChild.cloneNode(true);
}

// Let `parent` have one child for each key, in order. Those that stay are not touched, so that they keep the focus.
export function arrange(parent, keys, make) {
  const present = new Map([...parent.children].map((child) => [child.dataset.key, child]));
  const wanted = keys.map((key) => {
    const child = present.get(key) ?? make(key);
    child.dataset.key = key;
    return child;
  });
  for (const child of [...parent.children]) if (!wanted.includes(child)) child.remove();
  wanted.forEach((child, index) => {
    if (parent.children[index] !== child) parent.insertBefore(child, parent.children[index] ?? null);
  });
  return wanted;
}
