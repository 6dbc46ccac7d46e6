// Everything that the page shows, as text by the name of its field; as in fields.py, which makes the first state.
import { NO_SOURCE, REASONS, SOURCES, STATES, STORIES } from "./words.js";
import { at, inBytes, inTime, percent, sentence } from "./text.js";

const IN_PROGRESS = new Set(["downloading", "paused", "verifying", "failed"]);
const FOLLOWED = new Set(["downloading", "paused", "verifying"]);

// `hashing` is [bytes per second, seconds left] of the verification, as far as they are known.
export function model(status, now, hashing = []) {
  const { state, reason, expected_bytes: expected, received_bytes: received } = status;
  const source = SOURCES[status.source] ?? "";
  const story = reason === null ? STORIES[state] ?? "" : REASONS[reason] ?? "";
  const moves = IN_PROGRESS.has(state) && (received > 0 || state !== "failed");
  const hashes = FOLLOWED.has(state) && expected > 0;
  return {
    name: status.model_name,
    state: STATES[state] ?? state,
    story: story.replace("{source}", source || NO_SOURCE),
    message: sentence(status.message),
    next: next(status, now),
    received: moves ? progress(received, expected, status.bytes_per_second, status.eta_seconds) : "",
    received_bar: moves ? [received, expected || Math.max(received, 1)] : "",
    hashed: hashes ? progress(status.hashed_bytes, expected, ...(state === "verifying" ? hashing : [])) : "",
    hashed_bar: hashes ? [status.hashed_bytes, expected] : "",
    file: status.file_name,
    size: expected ? inBytes(expected) : "",
    source: source && source[0].toUpperCase() + source.slice(1),
    verified: status.verified_at === null ? "" : at(status.verified_at),
    digest: status.sha256,
  };
}

function progress(part, whole, rate = null, secondsLeft = null) {
  const texts = whole ? [percent(part, whole), `${inBytes(part)} of ${inBytes(whole)}`] : [inBytes(part)];
  if (rate) texts.push(`${inBytes(rate)}/s`);
  if (secondsLeft !== null) texts.push(`${inTime(secondsLeft)} left`);
  return texts.join(" · ");
}

function next(status, now) {
  if (status.state !== "failed" || status.reason === "cancelled") return "";
  if (status.next_attempt_at === null) return "It stays so until somebody acts: correct the cause, then try again.";
  return `Next attempt in ${inTime(status.next_attempt_at - now)}.`;
}

export function miner(view) {
  const { running, waiting } = view;
  return {
    url: view.url,
    state: view.ready ? "Ready" : "Not ready",
    reason: view.ready && view.models.length ? "" : sentence(view.reason),
    load: running === null || waiting === null ? "" : `${running} running, ${waiting} waiting`,
  };
}

export function served(entry) {
  const details = entry.r3mes ?? {};
  const hardware = details.hardware ?? {};
  const why = hardware.why ?? [];
  const context = details.context_tokens;
  return {
    name: entry.id,
    asleep: details.loaded ?? true ? "" : "Unloaded for lack of requests; the next one loads it again.",
    engine: details.engine ?? "",
    engine_reason: sentence(details.engine_reason ?? ""),
    device: device(hardware),
    device_reason: sentence(why.find((line) => line.includes("GPU")) ?? ""),
    context: context ? `${context.toLocaleString("en-US")} tokens` : "",
    quantization: details.quantization ?? "",
    why,
  };
}

function device({ threads, gpu_layers: layers, gpu_offload_active: offloads }) {
  if (offloads) return (layers ?? -1) < 0 ? "GPU, all layers" : `GPU, ${layers} layers`;
  return (threads ?? null) === null ? "" : `CPU, ${threads} thread${threads === 1 ? "" : "s"}`;
}

export function node(facts) {
  const { disk, queue } = facts;
  return {
    node: facts.node,
    version: facts.version,
    genesis: facts.genesis_sha256,
    staged: facts.staged_genesis_sha256 ?? "",
    redis: facts.redis_up ? "Answers" : "Away: verdicts wait, downloads go on",
    queue: queue === null ? "Unknown while Redis is away" : `${queue.queued} waiting, ${queue.started} at work`,
    disk: `${inBytes(disk.free_bytes)} free of ${inBytes(disk.total_bytes)}`,
    disk_bar: [disk.total_bytes - disk.free_bytes, disk.total_bytes],
  };
}

export function headline(models, miners) {
  const ready = miners.filter((view) => view.ready);
  if (ready.length) {
    const names = [...new Set(ready.flatMap((view) => view.models.map((entry) => entry.id)))];
    const count = ready.length === 1 ? "A miner is" : `${ready.length} miners are`;
    return ["good", `${count} ready${names.length ? `: ${names.join(", ")}` : ""}.`];
  }
  for (const state of ["downloading", "verifying"]) {
    const status = models.find((one) => one.state === state);
    if (status) {
      const done = state === "downloading" ? status.received_bytes : status.hashed_bytes;
      const share = percent(done, status.expected_bytes);
      return ["busy", `${STATES[state]} ${status.model_name}${share ? `, ${share}` : ""}.`];
    }
  }
  const verified = models.find((one) => one.state === "verified");
  if (verified) {
    return ["busy", `${verified.model_name} is verified, but no miner ${miners.length ? "is ready" : "answers"} yet.`];
  }
  const failed = models.find((one) => one.state === "failed" || one.state === "vetoed");
  if (failed) return ["bad", `${failed.model_name} is not here, and needs a look.`];
  return ["busy", "No model is here yet."];
}
