// The cards of models and miners: made once, then filled with what changes.
import { ACTIONS } from "./words.js";
import * as fields from "./fields.js";
import { arrange, fill, made } from "./fill.js";
import { askForKey, authorisation } from "./key.js";
import { problem } from "./stream.js";

const models = document.getElementById("models");
const miners = document.getElementById("miners");

export function showModels(statuses, now, hashing) {
  const cards = arrange(models, statuses.map((status) => status.sha256), makeModel);
  statuses.forEach((status, index) => {
    const card = cards[index];
    card.dataset.state = status.state;
    fill(card, fields.model(status, now, hashing(status)));
    const verbs = ACTIONS[`${status.state}:${status.reason}`] ?? ACTIONS[status.state] ?? [];
    showButtons(card, verbs, status.model_name);
  });
}

function showButtons(card, verbs, name) {
  const had = card.contains(document.activeElement) ? document.activeElement : null;
  for (const button of card.querySelectorAll("[data-verb]")) {
    button.hidden = !verbs.includes(button.dataset.verb);
    button.setAttribute("aria-label", `${button.textContent}: ${name}`);
  }
  card.querySelector(".actions").hidden = verbs.length === 0;
  // A button that goes away hands the focus on, so that the keyboard does not begin anew at the top of the page.
  if (had?.dataset.verb && had.hidden) card.querySelector("[data-verb]:not([hidden]), [data-copy]").focus();
}

function makeModel(digest) {
  const card = made("model-template");
  for (const button of card.querySelectorAll("[data-verb]")) {
    button.addEventListener("click", () => ask(card, digest, button.dataset.verb));
  }
  const copy = card.querySelector("[data-copy]");
  copy.hidden = false;
  copy.setAttribute("aria-label", "Copy the SHA-256");
  copy.addEventListener("click", () => copied(copy, card.querySelector("code")));
  return card;
}

async function ask(card, digest, verb) {
  let error = "";
  try {
    const response = await fetch(`api/v1/models/${digest}/${verb}`, { method: "POST", headers: authorisation() });
    if (response.status === 401) askForKey({ focus: true });
    if (!response.ok) error = `That was refused: ${await problem(response)}`;
  } catch {
    error = "That did not arrive: the connection is lost.";
  }
  fill(card, { error });
}

async function copied(button, code) {
  try {
    await navigator.clipboard.writeText(code.textContent);
  } catch {
    // Without TLS a browser has no clipboard for us: select it, and copy in the old way.
    getSelection().selectAllChildren(code);
    document.execCommand("copy");
  }
  button.textContent = "Copied";
  setTimeout(() => { button.textContent = "Copy"; }, 2000);
}

export function showMiners(views) {
  const cards = arrange(miners, views.map((view) => view.url), () => made("miner-template"));
  views.forEach((view, index) => {
    const card = cards[index];
    card.dataset.state = view.ready ? "ready" : "not-ready";
    fill(card, fields.miner(view));
    const names = view.models.map((entry, number) => `${number} ${entry.id}`);
    const lists = arrange(card.querySelector("[data-slot]"), names, () => made("served-template"));
    view.models.forEach((entry, number) => fill(lists[number], fields.served(entry)));
  });
}
