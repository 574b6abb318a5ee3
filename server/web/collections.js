// The collections that the index holds, and which are kept fresh.
import { command, get, query } from "./api.js";
import { announce, append, choose, el, field, scroller, show } from "./dom.js";
import { badge } from "./jobs.js";
import { ago, count, many, span } from "./format.js";

const path = "/admin/collections";

export async function collections(node, { signal }) {
  const said = el("div", { role: "status" });
  const list = el("div", { class: "stack" });
  append(node, [
    el("div", { class: "title" }, el("h1", {}, "Collections"), el("a", { class: "button", href: "#/create" }, "New job")),
    said, list]);

  async function draw() {
    const stats = await get("/admin/stats", { signal });
    let tracked = stats.tracked_collections.map((collection) => ({ collection })), manages = true;
    try {
      tracked = (await get(path, { signal })).collections;
    } catch (err) {
      if (err.status !== 403 && err.status !== 404) throw err;
      manages = false;
    }
    const all = new Map(Object.entries(stats.collections).map(([name, c]) => [name, { ...c }]));
    for (const t of tracked) all.set(t.collection, { records: 0, repos: 0, ...all.get(t.collection), tracked: t });
    const order = [...all].sort(([a, x], [b, y]) => Boolean(y.tracked) - Boolean(x.tracked) || y.records - x.records || (a < b ? -1 : 1));
    show(list,
      order.length === 0
        ? el("section", { class: "card empty" },
          el("h2", {}, "Nothing here yet"),
          el("p", {}, "Track a collection to have it read from every repo on the network now, and again every day. Collections that a job has read are shown here too."))
        : el("section", { class: "card" }, scroller("Collections", table(order, manages))),
      manages && form());
  }

  function table(order, manages) {
    const head = (text, number) => el("th", { scope: "col", class: number ? "number" : null }, text);
    return el("table", {},
      el("thead", {}, el("tr", {}, head("Collection"), head("Records", true), head("Repos", true), head("As of"), head("Kept fresh"), head(el("span", { class: "unseen" }, "Do")))),
      el("tbody", {}, order.map(([name, c]) => el("tr", {},
        el("th", { scope: "row" }, el("a", { href: query("#/records", { collection: name }) }, name)),
        el("td", { class: "number" }, count(c.records)),
        el("td", { class: "number" }, count(c.repos)),
        el("td", { class: "nowrap" }, age(c)),
        el("td", {}, freshness(c.tracked)),
        el("td", { class: "nowrap" }, el("div", { class: "actions" },
          el("a", { class: "button small", href: query("#/create", { collection: name }), "aria-label": "Read again: " + name }, "Read again"),
          manages && (c.tracked
            ? el("button", { class: "button small", "aria-label": "Stop tracking " + name, onclick: () => remove(name, c) }, "Stop")
            : el("button", { class: "button small", "aria-label": "Track " + name, onclick: () => add(name) }, "Track"))))))));
  }

  const failed = (err) => {
    if (!signal.aborted) show(said, el("p", { class: "notice bad", role: "alert" }, err.message));
  };

  async function add(name) {
    try {
      const { job } = await command("POST", path, { collection: name }, { signal });
      show(said, el("p", { class: "notice good" }, name + " is tracked. ", job && el("a", { href: "#/job/" + job.id }, "The job that reads it")));
      await draw();
    } catch (err) {
      failed(err);
    }
  }

  async function remove(name, c) {
    const records = await choose("Stop tracking " + name + "?",
      "It is not read again by itself. Say what becomes of its " + many(c.records, "record") + ": they can be served on as they are, or deleted. Deleted records come back only with another job.",
      [["", "Leave it"], ["keep", "Keep the records"], ["delete", "Delete the records", true]]);
    if (!records) return;
    try {
      const { deleted } = await command("DELETE", query(path, { collection: name, records }), undefined, { signal });
      announce(name + " is not tracked any more");
      show(said, el("p", { class: "notice good" }, name + " is not tracked any more" + (deleted > 0 ? ", and " + many(deleted, "record") + " were deleted." : ".")));
      await draw();
    } catch (err) {
      failed(err);
    }
  }

  function form() {
    const name = el("input", { type: "text", name: "collection", required: true, placeholder: "xyz.statusphere.status", spellcheck: "false", autocapitalize: "off", autocomplete: "off" });
    return el("form", { class: "card", onsubmit: (e) => { e.preventDefault(); add(name.value.trim()); } },
      el("h2", {}, "Track a collection"),
      field("Collection", name, "It is read from every repo on the network now, and again by itself when it gets old."),
      el("div", { class: "actions" }, el("button", { class: "button primary" }, "Track it")));
  }

  await draw();
}

function age(c) {
  return c.age_seconds === null || c.age_seconds === undefined
    ? el("span", { class: "hint" }, "never read whole") : span(c.age_seconds) + " ago";
}

function freshness(t) {
  if (!t) return el("span", { class: "hint" }, "no: from jobs");
  const job = t.last_job;
  const parts = [el("span", { class: "badge active" }, "tracked")];
  if (t.refresh_at) parts.push(el("span", { class: "hint" }, " read again " + ago(t.refresh_at)));
  if (job && job.status !== "completed") {
    parts.push(" ", el("a", { href: "#/job/" + job.id, "aria-label": "The last job over " + t.collection + ": " + job.status }, badge(job.status)));
  }
  return parts;
}
