// Server-sent events over fetch: unlike EventSource it tells a status, sends a key, and sees that a line has gone dead.

// Yield {event, data} of each event; throws when no byte, not even a comment, comes within `quietSeconds`.
export async function* events(response, quietSeconds) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  let event = { event: "message", data: [] };
  try {
    for (;;) {
      const { done, value } = await within(reader.read(), quietSeconds);
      if (done) return;
      const lines = (rest + value).split(/\r\n|\n/);
      rest = lines.pop();
      for (const line of lines) {
        if (line === "") {
          if (event.data.length) yield { event: event.event, data: event.data.join("\n") };
          event = { event: "message", data: [] };
        } else if (line.startsWith("data:")) {
          event.data.push(line.slice(5).replace(/^ /, ""));
        } else if (line.startsWith("event:")) {
          event.event = line.slice(6).trim();
        }
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

async function within(promise, seconds) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`nothing came for ${seconds} s`)), seconds * 1000);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

// What an answer that is an error says, in one line.
export async function problem(response) {
  let said = "";
  try {
    said = (await response.json()).error.message;
  } catch {
    said = "";
  }
  const wait = response.headers.get("Retry-After");
  const words = said || `the service answers with status ${response.status}`;
  return /^[0-9]+$/.test(wait ?? "") ? `${words} (trying again makes sense in ${wait} s)` : words;
}
