// Browses records: newest first, of one repo, and one as a whole.
import { exact, query } from "./api.js";
import { collectionInput, knownCollections } from "./create.js";
import { append, copyButton, el, field, once, show } from "./dom.js";
import { ago, time } from "./format.js";

const PAGE = 50;

export async function records(node, { params, signal }) {
  const known = await knownCollections(signal);
  const { input: collection, list: proposals } = collectionInput(known.names, params.get("collection") ?? "");
  const did = el("input", { type: "text", name: "did", value: params.get("did") ?? "", placeholder: "did:plc:…", spellcheck: "false", autocapitalize: "off", autocomplete: "off" });
  const order = el("select", { name: "order" },
    el("option", { value: "" }, "latest indexed"), el("option", { value: "rkey" }, "highest record key"));
  order.value = params.get("order") ?? "";
  const form = el("form", { class: "card filters", onsubmit: (e) => {
    e.preventDefault();
    const to = query("#/records", { collection: collection.value.trim(), did: did.value.trim(), order: did.value.trim() ? "" : order.value });
    if (to === location.hash) dispatchEvent(new HashChangeEvent("hashchange"));
    else location.hash = to;
  } }, field("Collection", collection), proposals, field("Repo", did), field("Order", order), el("button", { class: "button primary" }, "Show"));
  const results = el("section", { "aria-label": "Records" });
  append(node, [el("div", { class: "title" }, el("h1", {}, "Records")), form, results]);

  const filter = { collection: params.get("collection"), did: params.get("did"), order: params.get("order") };
  if (!filter.collection && !filter.did) {
    show(results, el("section", { class: "card empty" }, known.names.length === 0
      ? [el("h2", {}, "Nothing here yet"), el("p", {}, "Records appear when a job has read them."),
        el("p", {}, el("a", { class: "button primary", href: "#/create" }, "Create a job"))]
      : [el("h2", {}, "Choose a collection"), el("ul", { class: "choices" }, known.names.map((n) =>
        el("li", {}, el("a", { href: query("#/records", { collection: n }) }, n))))]));
    return;
  }
  const list = el("ul", { class: "record-list" }), more = el("div", { class: "actions" });
  append(results, [list, more]);
  let cursor = "", shown = 0;
  const next = async () => {
    const page = await exact(query("/admin/records", { ...filter, limit: PAGE, cursor }), { signal });
    for (const r of page.records) list.append(row(r, filter));
    shown += page.records.length;
    cursor = page.cursor ?? "";
    show(more, cursor && el("button", { class: "button", onclick: (e) => once(e.target, () => next().catch(failed)) }, "More"));
    if (shown === 0 && !cursor) {
      show(results, el("section", { class: "card empty" }, el("h2", {}, "No such records"),
        el("p", {}, filter.did ? "This repo has none here, or its account is not active." : "None of this collection is here: has a job read it?")));
    }
  };
  const failed = (err) => { if (!signal.aborted) show(more, el("p", { class: "notice bad", role: "alert" }, err.message)); };
  await next();
}

// row is a record on one line, and all of it when it is opened.
function row(r, filter) {
  const body = el("div", { class: "record" });
  const details = el("details", { ontoggle: () => { if (details.open && !body.firstChild) append(body, whole(r)); } },
    el("summary", {},
      el("span", { class: "name" }, filter.collection ? r.rkey : r.collection + "/" + r.rkey),
      el("span", { class: "preview" }, preview(r.value)),
      el("span", { class: "when", title: time(r.indexed_at) }, ago(r.indexed_at))),
    body);
  return el("li", {}, details);
}

function whole(r) {
  return [
    el("dl", { class: "facts" },
      el("dt", {}, "URI"), el("dd", {}, el("a", { href: r.uri, rel: "noreferrer" }, r.uri), " ", copyButton(r.uri, "the URI")),
      el("dt", {}, "Repo"), el("dd", {}, el("a", { href: query("#/records", { did: r.did }) }, r.did)),
      el("dt", {}, "CID"), el("dd", {}, el("code", {}, r.cid)),
      el("dt", {}, "Rev"), el("dd", {}, el("code", {}, r.rev)),
      el("dt", {}, "Indexed"), el("dd", {}, time(r.indexed_at)),
      el("dt", {}, "From"), el("dd", {}, r.provenance)),
    el("pre", { tabindex: "0", "aria-label": "The record as JSON" }, JSON.stringify(r.value, null, 2)),
  ];
}

// preview is what a record says, shortly.
function preview(value) {
  if (value && typeof value === "object") {
    for (const name of ["text", "title", "name", "displayName", "status", "description"]) {
      if (typeof value[name] === "string" && value[name]) return value[name].slice(0, 160);
    }
  }
  return JSON.stringify(value).slice(0, 160);
}
