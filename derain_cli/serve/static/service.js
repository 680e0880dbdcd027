// What the page asks of the server.

const ASK_EVERY = 400; // milliseconds

/** A failure, in the server's own words. */
export class Failure extends Error {}

export async function models() {
  const answer = await fetch("/v1/models");
  if (!answer.ok) throw new Failure("The server does not answer.");
  return answer.json();
}

// crypto.randomUUID is there on this machine's own pages only, not on one of the home network.
function newKey() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/**
 * Send a file and get one back: `{promise, stop}`.
 * `say({state, fraction, place, left})` hears how far it is.
 */
export function send(address, parameters, file, say) {
  const request = new XMLHttpRequest();
  let stopped = false;
  const promise = attempt();

  async function attempt() {
    for (;;) {
      const wait = await once();
      if (typeof wait !== "number") return wait;
      say({ state: "busy" });
      await new Promise((go) => setTimeout(go, Math.min(wait, 15) * 1000));
      if (stopped) throw new Failure("stopped");
    }
  }

  function once() {
    const key = newKey();
    const query = new URLSearchParams(parameters);
    request.open("POST", `${address}?${query}`);
    request.responseType = "blob";
    request.setRequestHeader("Derain-Job", key);
    request.setRequestHeader("Content-Type", "application/octet-stream");
    say({ state: "sending", fraction: 0 });
    request.upload.onprogress = (event) => {
      if (event.lengthComputable) say({ state: "sending", fraction: event.loaded / event.total });
    };
    const asking = setInterval(() => ask(key, say), ASK_EVERY);
    return new Promise((resolve, reject) => {
      request.onload = () => settle(request).then(resolve, reject);
      request.onerror = () => reject(new Failure("The server does not answer. Is derain still running?"));
      request.onabort = () => reject(new Failure("stopped"));
      request.send(file);
    }).finally(() => clearInterval(asking));
  }

  return {
    promise,
    stop: () => {
      stopped = true;
      request.abort();
    },
  };
}

async function ask(key, say) {
  try {
    const progress = await (await fetch(`/v1/jobs/${key}`)).json();
    if (progress.state === "unknown" || progress.state === "receiving") return;
    const { seconds, expected_seconds: expected, place, state } = progress;
    const left = seconds === null || !expected ? null : Math.max(0, expected - seconds);
    say({ state, place, left, fraction: left === null ? null : Math.min(0.97, seconds / expected) });
  } catch {
    // The request itself tells when the server is gone.
  }
}

/** The file and its notices; or, when the server is full, the seconds to wait. */
async function settle(request) {
  if (request.status === 200) {
    const notices = JSON.parse(request.getResponseHeader("Derain-Notices") || "[]");
    return { blob: request.response, notices, name: nameOf(request.getResponseHeader("Content-Disposition")) };
  }
  if (request.status === 503) return Number(request.getResponseHeader("Retry-After")) || 2;
  const text = request.response ? await request.response.text() : "";
  let message = `The server answered ${request.status}.`;
  try {
    message = JSON.parse(text).error.message;
  } catch {
    // Not one of its own answers.
  }
  throw new Failure(message);
}

function nameOf(disposition) {
  const match = /filename\*=UTF-8''([^;]+)/.exec(disposition || "");
  return match ? decodeURIComponent(match[1]) : "derained";
}
