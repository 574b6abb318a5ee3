// Talks to the server.

// The server may stand behind a path that only a proxy knows: addresses are relative to
// the folder above that of this file.
const base = new URL("../", import.meta.url);
export const urlOf = (route) => new URL("." + route, base).href;

// The key is kept in the session storage of this tab: it outlives a reload and
// ends with the tab. A cookie would be sent along with requests that other pages
// make, and the local storage would stay on the disk of a machine that may be
// somebody else's tomorrow. Another server behind another path of the same name does not
// get it.
const KEY = "appview-key" + base.pathname;

export const session = {
  get key() { return sessionStorage.getItem(KEY); },
  open(key) { sessionStorage.setItem(KEY, key); },
  close() { sessionStorage.removeItem(KEY); },
};

// What the server can be asked, by its own description: what it does not have is not
// offered.
let paths = {};
export async function learnRoutes() {
  try {
    paths = (await get("/openapi.json")).paths;
  } catch { /* it is asked again with the next view */ }
  return Object.keys(paths).length > 0;
}
export const has = (method, path) => paths[path]?.[method] !== undefined;

// Refused is an answer that is not a success, in the server's own words.
export class Refused extends Error {
  constructor(status, text) {
    super(text);
    this.status = status;
  }
}

// Unreachable says that no answer came.
export class Unreachable extends Error {}

// onSignedOut is called when the key opens nothing any more.
let onSignedOut = () => {};
export function whenSignedOut(f) { onSignedOut = f; }

async function send(route, options = {}) {
  const key = options.key ?? session.key;
  const headers = { Authorization: "Bearer " + (key ?? "") };
  if (options.body !== undefined) headers["Content-Type"] = "application/json";
  let res;
  try {
    res = await fetch(urlOf(route), {
      method: options.method ?? "GET", headers, signal: options.signal, cache: "no-store", credentials: "omit", redirect: "error",
      body: options.body === undefined ? undefined : JSON.stringify(options.body),
    });
  } catch (err) {
    if (options.signal?.aborted) throw err;
    throw new Unreachable("The server does not answer. Is it still running? This page goes on by itself when it is back.");
  }
  if (res.ok) return res;
  let text = "the server answered " + res.status;
  try {
    const body = await res.json();
    text = body.message ?? body.error ?? text;
  } catch { /* a proxy may answer with a page of its own */ }
  const err = new Refused(res.status, text);
  // Once for each key: of several requests under way, the first has said why.
  if (res.status === 401 && options.key === undefined && key === session.key) onSignedOut(err);
  throw err;
}

export async function get(path, options) {
  return (await send(path, options)).json();
}

// exact is get for what strangers wrote: a number that JavaScript would make another one
// of, as one past 2^53, stays as it was written where the browser knows how.
export async function exact(path, options) {
  return JSON.parse(await (await send(path, options)).text(), (_, value, at) =>
    typeof value === "number" && JSON.rawJSON && at?.source && String(value) !== at.source ? JSON.rawJSON(at.source) : value);
}

export async function command(method, path, body, options) {
  const res = await send(path, { ...options, method, body });
  return res.status === 204 ? null : res.json();
}

// download hands an answer of any length to the browser as a file. progress is told
// how many bytes have come.
export async function download(path, name, progress, signal) {
  const res = await send(path, { signal });
  const parts = [];
  let size = 0;
  const reader = res.body.getReader();
  for (;;) {
    const { done, value } = await reader.read();
    if (done) break;
    parts.push(value);
    size += value.length;
    progress(size);
  }
  const url = URL.createObjectURL(new Blob(parts, { type: res.headers.get("Content-Type") ?? "" }));
  const link = document.createElement("a");
  link.href = url;
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
  return size;
}

// query appends parameters to a path, leaving out empty ones.
export function query(path, params) {
  const q = new URLSearchParams();
  for (const [name, value] of Object.entries(params)) {
    if (value !== undefined && value !== null && value !== "") q.set(name, value);
  }
  const text = q.toString();
  return text ? path + "?" + text : path;
}

// pause waits, and leaves nothing behind on the signal: a page may be open for weeks.
const pause = (ms, signal) => new Promise((resolve) => {
  const end = () => { clearTimeout(timer); signal.removeEventListener("abort", end); resolve(); };
  const timer = setTimeout(end, ms);
  signal.addEventListener("abort", end);
});

export const isFinal = (job) => ["completed", "failed", "cancelled"].includes(job.status);

// seen waits until the page is seen.
const seen = (signal) => new Promise((resolve) => {
  const look = () => {
    if (document.hidden && !signal.aborted) return;
    document.removeEventListener("visibilitychange", look);
    signal.removeEventListener("abort", look);
    resolve();
  };
  document.addEventListener("visibilitychange", look);
  signal.addEventListener("abort", look);
  look();
});

// How long the first event may take, and how long nothing may come after it: the
// server says every 15 seconds that it is there.
const FIRST = 5_000, SILENCE = 40_000;

// follow calls onJob with a job whenever it has changed, until it is final or the
// signal is aborted. EventSource cannot send a key, so the stream is read by hand;
// where something on the way keeps events back, the job is asked for again and
// again. onTrouble is told what is wrong, and null when it is over. A page that nobody
// sees follows nothing: a browser makes six connections to a server for all its tabs,
// and with as many streams nothing else would be answered in any of them.
export async function follow(id, onJob, onTrouble, signal) {
  const path = "/admin/backfill/" + encodeURIComponent(id);
  let streams = true, wait = 1000;
  const told = (job) => { wait = 1000; onTrouble(null); onJob(job); };
  while (!signal.aborted) {
    await seen(signal);
    if (signal.aborted) return;
    try {
      if (streams) {
        const { last, hidden } = await readEvents(path + "/events", told, signal);
        if (signal.aborted || last && isFinal(last)) return;
        if (hidden) continue;
        if (!last) streams = false;
      } else {
        const job = await get(path, { signal });
        told(job);
        if (isFinal(job)) return;
      }
    } catch (err) {
      if (signal.aborted) return;
      if (err instanceof Refused && [401, 403, 404].includes(err.status)) throw err;
      if (err instanceof Refused && err.status !== 503) streams = false;
      onTrouble(err);
      wait = Math.min(2 * wait, 15_000);
    }
    await pause(wait, signal);
  }
}

// readEvents reads one stream as long as the page is seen. It returns the last job that
// came, and whether the page was hidden.
async function readEvents(path, onJob, signal) {
  const own = new AbortController();
  const stop = () => own.abort();
  let hidden = false;
  const look = () => {
    if (!document.hidden) return;
    hidden = true;
    stop();
  };
  signal.addEventListener("abort", stop);
  document.addEventListener("visibilitychange", look);
  let late = setTimeout(stop, FIRST), last = null;
  try {
    const res = await send(path, { signal: own.signal });
    const reader = res.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
      const { done, value } = await reader.read();
      if (done) break;
      if (last) { clearTimeout(late); late = setTimeout(stop, SILENCE); }
      const blocks = (rest + value).split("\n\n");
      rest = blocks.pop();
      for (const block of blocks) {
        for (const line of block.split("\n")) {
          if (!line.startsWith("data:")) continue;
          last = JSON.parse(line.slice(5));
          clearTimeout(late);
          late = setTimeout(stop, SILENCE);
          onJob(last);
        }
      }
    }
  } catch (err) {
    if (signal.aborted || !own.signal.aborted) throw err;
  } finally {
    clearTimeout(late);
    signal.removeEventListener("abort", stop);
    document.removeEventListener("visibilitychange", look);
  }
  return { last, hidden };
}

// every calls f again and again, a while after it has ended, as long as the page is
// seen and the signal is not aborted.
export async function every(ms, f, signal) {
  while (!signal.aborted) {
    if (!document.hidden) await f();
    await pause(ms, signal);
  }
}
