// Makes a job: first what it would cover and take, then the start.
import { command, get, has, query } from "./api.js";
import { append, el, field, once, show } from "./dom.js";
import { count, hostName, many, span } from "./format.js";

// knownCollections are those that the index holds or tracks. A key that may not
// read them knows none.
export async function knownCollections(signal) {
  try {
    const stats = await get("/admin/stats", { signal });
    return { names: [...new Set([...Object.keys(stats.collections), ...stats.tracked_collections])].sort(), tracked: stats.tracked_collections };
  } catch (err) {
    if (err.status !== 403) throw err;
    return { names: [], tracked: [] };
  }
}

// collectionInput is an input that proposes collections.
export function collectionInput(names, value = "") {
  const list = el("datalist", { id: "known-collections" }, names.map((n) => el("option", { value: n })));
  const input = el("input", { type: "text", name: "collection", list: "known-collections", value, placeholder: "xyz.statusphere.status", spellcheck: "false", autocapitalize: "off", autocomplete: "off" });
  return { input, list };
}

// basis says in words what a figure of a plan comes from.
const basis = {
  listing: "by the relay's listing", relay: "as the relay has counted", job: "as an earlier job found", floor: "or more",
  index: "by the records that repos have here", assumed: "if each has one page of records",
};

// figure is a figure of a plan: an estimate has no more digits than it knows.
function figure(n, from, sampled) {
  if (from === "named" || from === "lookup") return count(n);
  const why = from === "sample" ? "estimated from " + many(sampled, "repo") : basis[from];
  const shown = count(from === "listing" || from === "floor" ? n : Number(n.toPrecision(2)));
  return (from === "listing" ? "" : from === "floor" ? "at least " : "about ") + shown + (why ? ", " + why : "");
}

// plan fills a node with what a job would take. The job can be started before it is
// known, or if it cannot be.
async function plan(node, body, signal) {
  if (!has("get", "/admin/backfill/plan")) return;
  show(node, el("p", { class: "hint" }, "Finding out what it would take…"));
  const dids = (body.dids ?? (body.did ? [body.did] : [])).join(",");
  try {
    const p = await get(query("/admin/backfill/plan", { collection: body.collection, dids }), { signal });
    const slowest = p.bottleneck?.role === "max_hosts" ? "this server, which reads from --max-hosts hosts at once" : hostName(p.bottleneck?.host) + ({ plc: " (the directory)", relay: " (the relay)" }[p.bottleneck?.role] ?? "");
    show(node, el("dl", { class: "facts" },
      el("dt", {}, "Repos"), el("dd", {}, figure(p.repos, p.basis.repos)),
      el("dt", {}, "On hosts"), el("dd", {}, figure(p.hosts, p.basis.hosts, p.basis.sampled_repos)),
      el("dt", {}, "Requests"), el("dd", {}, figure(p.requests, p.basis.requests)),
      p.bottleneck && [
        el("dt", {}, "Time"), el("dd", {}, "about " + span(p.seconds) + ", if everybody is asked as fast as may be"),
        el("dt", {}, "Bottleneck"), el("dd", {}, `${slowest}: ${many(p.bottleneck.repos, "repo")}, ${many(p.bottleneck.requests, "request")}`)],
      p.jobs_before > 0 && [el("dt", {}, "Before it"), el("dd", {}, many(p.jobs_before, "job has", "jobs have") + " to end")]),
    p.repos === 0 && el("p", { class: "notice warn" }, "No repo is known to have such records. Is the collection spelled right?"));
  } catch (err) {
    if (signal.aborted) return;
    show(node, el("p", { class: "notice warn" }, "What it would take cannot be told: " + err.message));
  }
}

export async function create(node, { params, signal }) {
  const known = await knownCollections(signal);
  const { input: collection, list } = collectionInput(known.names, params.get("collection") ?? "");
  const dids = el("textarea", { name: "dids", rows: "4", spellcheck: "false", placeholder: "did:plc:…" });
  const didsField = field("Repos, one DID a line", dids, "At most 500. Handles are looked up by the command line only: appview backfill create --did alice.example.com");
  didsField.hidden = true;
  const scope = (value, label, checked) => el("label", { class: "choice" },
    el("input", { type: "radio", name: "scope", value, checked, onchange: () => { didsField.hidden = value !== "dids"; } }), label);
  const said = el("p", { class: "notice bad", role: "alert", hidden: true });
  const review = el("section", { class: "card", "aria-labelledby": "review", hidden: true });

  const request = () => {
    const body = {};
    if (collection.value.trim()) body.collection = collection.value.trim();
    if (!didsField.hidden) {
      const names = dids.value.split(/[\s,]+/).filter(Boolean);
      if (names.length === 0) throw new Error("Name the repos, or choose every repo of the network.");
      if (names.length === 1) body.did = names[0];
      else body.dids = names;
    }
    return body;
  };
  const failed = (err) => {
    if (signal.aborted) return;
    said.hidden = false;
    show(said, err.message);
  };
  const form = el("form", { class: "card", onsubmit: (e) => {
    e.preventDefault();
    said.hidden = true;
    try {
      draw(request());
    } catch (err) {
      failed(err);
    }
  } },
    field("Collection", collection, known.tracked.length > 0
      ? "Left empty: the tracked collections, " + known.tracked.join(", ")
      : "Left empty: every collection there is. That is a lot: name one."),
    list,
    el("fieldset", {}, el("legend", {}, "Which repos"),
      scope("network", "Every repo on the network that has such records", true), scope("dids", "Only these", false)),
    didsField, said,
    el("div", { class: "actions" }, el("button", { class: "button primary" }, "Review"), el("a", { class: "button", href: "#/jobs" }, "Leave it")));

  let asked = new AbortController();
  signal.addEventListener("abort", () => asked.abort());
  function draw(body) {
    asked.abort(); // what was planned before
    asked = new AbortController();
    const takes = el("div", { "aria-live": "polite" });
    const n = body.dids?.length ?? (body.did ? 1 : 0);
    const start = el("button", { class: "button primary", onclick: () => once(start, async () => {
      try {
        const job = await command("POST", "/admin/backfill", body, { signal });
        location.hash = "#/job/" + job.id;
      } catch (err) {
        failed(err);
      }
    }) }, "Start the job");
    const what = body.collection ?? (known.tracked.length > 0 ? known.tracked.join(", ") : "every collection");
    show(review,
      el("h2", { id: "review" }, "What this starts"),
      el("dl", { class: "facts" },
        el("dt", {}, "Records of"), el("dd", {}, what),
        el("dt", {}, "From"), el("dd", {}, n > 0 ? many(n, "named repo") : "every repo that the relay lists"),
        el("dt", {}, "Hosts"), el("dd", {}, "each is asked no faster than it allows; the job waits for those that want a pause"),
        el("dt", {}, "Again"), el("dd", {}, "a job over what is here already writes only what has changed, and deletes what is gone")),
      takes,
      el("div", { class: "actions" }, start));
    review.hidden = false;
    start.focus();
    plan(takes, body, asked.signal);
  }
  append(node, [el("p", { class: "back" }, el("a", { href: "#/jobs" }, "← Jobs")), el("div", { class: "title" }, el("h1", {}, "New job")), form, review]);
  collection.focus();
}
