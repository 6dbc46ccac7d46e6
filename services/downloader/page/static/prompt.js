// The box to try a prompt: one request to /v1/chat/completions of the same origin, shown as it is streamed.
import { askForKey, authorisation } from "./key.js";
import { events, problem } from "./stream.js";

const QUIET_SECONDS = 660; // as long as the gateway waits
const by = (id) => document.getElementById(id);
let running = null;
let offered = [];

export function setUpPrompt() {
  by("prompt").addEventListener("submit", (event) => {
    event.preventDefault();
    if (running === null) send();
  });
  by("text").addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) by("prompt").requestSubmit();
  });
  by("temperature").addEventListener("invalid", () => { by("more").open = true; }); // so that the complaint is seen
  by("stop").addEventListener("click", () => running?.abort());
  const gateway = new URL(location.href);
  [gateway.port, gateway.pathname] = ["8000", "/"];
  by("gateway").href = gateway.href;
}

// See whether there is a gateway, and which models it offers beside those of the miners.
export async function lookForModels(miners) {
  let listed = [];
  try {
    const response = await fetch("v1/models", { headers: authorisation(), cache: "no-store" });
    by("no-gateway").hidden = response.status !== 404;
    by("prompt").hidden = response.status === 404;
    if (response.status === 401) askForKey();
    if (response.ok) listed = (await response.json()).data.map((entry) => String(entry.id));
  } catch {
    listed = []; // the box stays: sending says what is wrong
  }
  const ready = miners.filter((view) => view.ready).flatMap((view) => view.models.map((entry) => entry.id));
  offer([...new Set([...ready, ...listed])]);
}

function offer(names) {
  if (names.join("\n") === offered.join("\n") && by("model").options.length) return;
  offered = names;
  const chosen = by("model").value;
  const options = names.length ? names : [""];
  by("model").replaceChildren(...options.map((name) => new Option(name || "none is ready", name)));
  if (names.includes(chosen)) by("model").value = chosen;
}

async function send() {
  running = new AbortController();
  const answer = by("answer");
  show({ error: "", figures: "Waiting for the first token…" });
  answer.textContent = "";
  by("answered").hidden = by("stop").hidden = false;
  by("send").hidden = true;
  answer.setAttribute("aria-busy", "true");
  by("stop").focus();
  try {
    await stream(answer, running.signal);
  } catch (error) {
    failed(error);
  } finally {
    running = null;
    answer.setAttribute("aria-busy", "false");
    const hadFocus = document.activeElement === by("stop");
    by("stop").hidden = true;
    by("send").hidden = false;
    if (hadFocus) by("send").focus();
  }
}

function failed(error) {
  const isStopped = error.name === "AbortError";
  const begun = by("answer").textContent !== "";
  by("answered").hidden = !begun;
  if (isStopped) show({ figures: `${by("figures").textContent.replace(/ …$/, "")} · stopped` });
  else show({ error: error.shown ?? `The connection broke off: ${error.message}.`, figures: "" });
  if (isStopped && !begun) show({ error: "Stopped before the first token." });
}

function show({ error, figures }) {
  if (error !== undefined) by("prompt-error").textContent = error;
  by("prompt-error").hidden = by("prompt-error").textContent === "";
  if (figures !== undefined) by("figures").textContent = figures;
}

class Refused extends Error {
  constructor(shown) {
    super(shown);
    this.shown = shown;
  }
}

const LEAD = {
  401: "The API key is missing or wrong: ",
  404: "Nobody answers this: ",
  429: "Busy: ",
  502: "The miner broke off: ",
  503: "No miner is ready: ",
};

function messages() {
  const system = by("system").value.trim();
  const user = { role: "user", content: by("text").value };
  return system ? [{ role: "system", content: system }, user] : [user];
}

async function stream(answer, signal) {
  const begun = performance.now();
  const limit = Number(by("limit").value);
  const response = await fetch("v1/chat/completions", {
    method: "POST",
    headers: { "Content-Type": "application/json", ...authorisation() },
    body: JSON.stringify({
      ...(by("model").value ? { model: by("model").value } : {}),
      messages: messages(),
      max_tokens: limit,
      temperature: Number(by("temperature").value),
      stream: true,
      stream_options: { include_usage: true },
    }),
    signal,
  });
  if (!response.ok) {
    if (response.status === 401) askForKey({ focus: true });
    throw new Refused(`${LEAD[response.status] ?? "It was refused: "}${await problem(response)}`);
  }
  const figures = new Figures(begun);
  for await (const { data } of events(response, QUIET_SECONDS)) {
    if (data === "[DONE]") break;
    const chunk = JSON.parse(data);
    if (chunk.error) throw new Refused(`The answer ended early: ${chunk.error.message}`);
    const choice = chunk.choices?.[0];
    if (choice?.delta?.content) append(answer, choice.delta.content, figures);
    if (choice?.finish_reason) figures.finish = choice.finish_reason;
    if (chunk.usage) figures.tokens = chunk.usage.completion_tokens;
    show({ figures: figures.text(" …") });
  }
  if (figures.finish === null) throw new Refused("The answer ended early: the connection was closed.");
  show({ figures: figures.text(figures.finish === "length" ? ` · cut at ${limit} tokens` : "") });
}

function append(answer, text, figures) {
  const follows = answer.scrollTop + answer.clientHeight >= answer.scrollHeight - 8;
  answer.append(text); // a text node, never HTML
  if (follows) answer.scrollTop = answer.scrollHeight;
  figures.came();
}

class Figures {
  constructor(begun) {
    this.begun = begun;
    this.first = this.last = null;
    this.tokens = 0;
    this.finish = null;
  }

  came() {
    this.last = performance.now();
    this.first ??= this.last;
    this.tokens += 1;
  }

  text(end) {
    if (this.first === null) return this.finish === null ? "Waiting for the first token…" : "An empty answer.";
    const seconds = (this.last - this.first) / 1000;
    const texts = [`${this.tokens} token${this.tokens === 1 ? "" : "s"}`];
    if (this.tokens > 1 && seconds > 0) texts.push(`${((this.tokens - 1) / seconds).toFixed(1)} tokens/s`);
    texts.push(`first after ${((this.first - this.begun) / 1000).toFixed(2)} s`);
    return texts.join(" · ") + end;
  }
}
