// Keeps the page live: the status once, then its changes as server-sent events; begins anew when the line is lost.
import { showMiners, showModels } from "./cards.js";
import * as fields from "./fields.js";
import { fill } from "./fill.js";
import { setUpKey } from "./key.js";
import { Pace } from "./pace.js";
import { lookForModels, setUpPrompt } from "./prompt.js";
import { events } from "./stream.js";

const QUIET_SECONDS = 40; // the server says something at least every 15
const LONGEST_WAIT = 10;
const by = (id) => document.getElementById(id);
// `ahead`: the server's clock less ours, in milliseconds.
const shown = { facts: {}, models: [], miners: [], ahead: 0 };
const pace = new Pace();
let offeredBy = null;

function show() {
  const now = (Date.now() + shown.ahead) / 1000;
  showModels(shown.models, now, (status) => pace.of(status));
  showMiners(shown.miners);
  const [tone, headline] = fields.headline(shown.models, shown.miners);
  document.body.dataset.tone = tone;
  document.title = `${headline.replace(/\.$/, "")} · R3MES`;
  const [no_models, no_miners] = [shown.models, shown.miners].map((all) => (all.length ? "" : "none"));
  fill(document.body, { ...fields.node(shown.facts), headline, no_models, no_miners });
}

// For those who cannot see it: what changed, once, and not each step of a bar.
function say(text) {
  by("said").textContent = text;
}

function takeModel(status) {
  const index = shown.models.findIndex((one) => one.sha256 === status.sha256);
  if (index < 0) return false;
  const before = shown.models[index];
  shown.models[index] = status;
  pace.note(status);
  if (before.state !== status.state) say(`${status.model_name}: ${fields.model(status, 0).state}`);
  return true;
}

function takeMiners(views) {
  const before = new Map(shown.miners.map((view) => [view.url, view.ready]));
  for (const view of views) {
    if (before.get(view.url) !== view.ready) say(`Miner ${view.url}: ${fields.miner(view).state}`);
  }
  shown.miners = views;
  offerModels();
}

// The gateway is asked only when it may have something else to say.
function offerModels() {
  const offers = JSON.stringify(shown.miners.map((view) => [view.ready, view.models.map((entry) => entry.id)]));
  if (offers === offeredBy) return;
  offeredBy = offers;
  lookForModels(shown.miners);
}

async function takeStatus() {
  const response = await fetch("api/v1/status", { cache: "no-store" });
  if (!response.ok) throw new Error(`status ${response.status}`);
  const { models, miners, ...facts } = await response.json();
  const told = Date.parse(response.headers.get("Date") ?? "");
  Object.assign(shown, { facts, models, miners, ahead: Number.isNaN(told) ? 0 : told - Date.now() });
  models.forEach((status) => pace.note(status));
  offeredBy = null;
  offerModels();
  show();
}

async function take({ event, data }) {
  const news = JSON.parse(data);
  if (event === "status" && !takeModel(news)) await takeStatus();
  if (event === "miners") takeMiners(news);
  if (event === "node") {
    const isOther = ["genesis_sha256", "staged_genesis_sha256"].some((name) => shown.facts[name] !== news[name]);
    shown.facts = news;
    if (isOther) await takeStatus();
  }
  show();
}

async function follow() {
  const leave = new AbortController();
  try {
    await takeStatus();
    const response = await fetch("api/v1/events", { cache: "no-store", signal: leave.signal });
    if (!response.ok) throw new Error(`status ${response.status}`);
    connected();
    for await (const event of events(response, QUIET_SECONDS)) await take(event);
  } finally {
    leave.abort();
  }
}

let isLost = false;
let wait = 1; // seconds until the next try

function connected() {
  by("live").dataset.live = "yes";
  by("live").textContent = "Live";
  by("lost").hidden = true;
  if (isLost) say("Connected again.");
  isLost = false;
  wait = 1;
}

function lost() {
  by("live").dataset.live = "no";
  by("live").textContent = "Connection lost";
  if (isLost) return;
  isLost = true;
  by("lost").hidden = false;
  const time = new Date().toLocaleTimeString();
  by("lost").textContent = `The connection was lost at ${time}. What you see is from then. Trying again…`;
}

async function live() {
  for (;;) {
    try {
      await follow();
    } catch (error) {
      console.debug("the line is lost:", error.message);
    }
    lost();
    await pause(wait);
    wait = Math.min(2 * wait, LONGEST_WAIT);
  }
}

// A network that is there again ends the waiting.
function pause(seconds) {
  return new Promise((resolve) => {
    setTimeout(resolve, seconds * 1000);
    addEventListener("online", resolve, { once: true });
  });
}

by("models").replaceChildren(); // made again, with what they need to be live
by("miners").replaceChildren();
by("no-script").hidden = true;
by("live").classList.remove("late");
by("live").textContent = "Connecting…";
setUpKey(() => lookForModels(shown.miners));
setUpPrompt();
setInterval(() => shown.models.some((status) => status.next_attempt_at !== null) && show(), 1000);
live();
