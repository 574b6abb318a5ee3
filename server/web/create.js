// Makes a job: first what it would cover, then the start.
import { command, get } from "./api.js";
import { append, el, field, show } from "./dom.js";
import { many } from "./format.js";

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

  function draw(body) {
    const n = body.dids?.length ?? (body.did ? 1 : 0);
    const start = el("button", { class: "button primary", onclick: async () => {
      start.disabled = true;
      try {
        const job = await command("POST", "/admin/backfill", body, { signal });
        location.hash = "#/job/" + job.id;
      } catch (err) {
        start.disabled = false;
        failed(err);
      }
    } }, "Start the job");
    const what = body.collection ?? (known.tracked.length > 0 ? known.tracked.join(", ") : "every collection");
    show(review,
      el("h2", { id: "review" }, "What this starts"),
      el("dl", { class: "facts" },
        el("dt", {}, "Records of"), el("dd", {}, what),
        el("dt", {}, "From"), el("dd", {}, n > 0 ? many(n, "named repo") : "every repo that the relay lists"),
        el("dt", {}, "Hosts"), el("dd", {}, "each is asked no faster than it allows; the job waits for those that want a pause"),
        el("dt", {}, "Again"), el("dd", {}, "a job over what is here already writes only what has changed, and deletes what is gone")),
      el("div", { class: "actions" }, start));
    review.hidden = false;
    start.focus();
  }
  append(node, [el("p", { class: "back" }, el("a", { href: "#/jobs" }, "← Jobs")), el("div", { class: "title" }, el("h1", {}, "New job")), form, review]);
  collection.focus();
}
