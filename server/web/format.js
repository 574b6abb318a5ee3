// Numbers, sizes and times as people read them.

const integers = new Intl.NumberFormat("en");
const times = new Intl.DateTimeFormat("en", { dateStyle: "medium", timeStyle: "medium" });

export function count(n) {
  return n === null || n === undefined ? "–" : integers.format(n);
}

// many is a number with its noun.
export function many(n, one, more = one + "s") {
  return count(n) + " " + (n === 1 ? one : more);
}

export function rate(n) {
  return n >= 10 ? integers.format(Math.round(n)) : integers.format(Math.round(n * 10) / 10);
}

export function bytes(n) {
  if (n === null || n === undefined) return "–";
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let i = 0;
  while (n >= 1024 && i < units.length - 1) { n /= 1024; i++; }
  return (i === 0 ? String(n) : n.toFixed(1)) + " " + units[i];
}

export function time(text) {
  return text ? times.format(new Date(text)) : "–";
}

// ago is how long ago a moment was, or how far ahead it is.
export function ago(text, now = Date.now()) {
  if (!text) return "–";
  const s = Math.round((now - new Date(text).getTime()) / 1000);
  return s >= 0 ? (s < 5 ? "just now" : span(s) + " ago") : "in " + span(-s);
}

// span is a number of seconds in its two largest units.
export function span(s) {
  s = Math.max(0, Math.round(s));
  const parts = [[Math.floor(s / 86400), "d"], [Math.floor(s / 3600) % 24, "h"], [Math.floor(s / 60) % 60, "min"], [s % 60, "s"]];
  const first = parts.findIndex(([n]) => n > 0);
  if (first < 0) return "0 s";
  return parts.slice(first, first + 2).filter(([n]) => n > 0).map(([n, unit]) => n + " " + unit).join(" ");
}

export function percent(part, whole) {
  return whole > 0 ? Math.min(100, Math.floor((100 * part) / whole)) : 0;
}

// hostName is a host's URL without what nobody needs to read.
export function hostName(url) {
  return url ? url.replace(/^https:\/\//, "") : "–";
}

// covers says what a job is about.
export function covers(job) {
  const all = job.targets ? "All collections" : "Tracked or all collections"; // the list does not say
  const what = job.collection ?? (job.targets?.length > 0 ? "Tracked collections: " + job.targets.join(", ") : all);
  if (job.did) return what + " of " + job.did;
  return job.scope === "dids" ? what + " of named repos" : what;
}
