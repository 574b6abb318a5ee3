// The collections that the index holds.
import { get, query } from "./api.js";
import { append, el, scroller } from "./dom.js";
import { count } from "./format.js";

export async function collections(node, { signal }) {
  const stats = await get("/admin/stats", { signal });
  const names = [...new Set([...Object.keys(stats.collections), ...stats.tracked_collections])];
  const held = (name) => stats.collections[name] ?? { records: 0, repos: 0 };
  names.sort((a, b) => held(b).records - held(a).records || (a < b ? -1 : 1));
  append(node, [el("div", { class: "title" }, el("h1", {}, "Collections"), el("a", { class: "button primary", href: "#/create" }, "New job"))]);
  if (names.length === 0) {
    append(node, [el("section", { class: "card empty" },
      el("h2", {}, "Nothing here yet"),
      el("p", {}, "Collections appear when a job has read records of them."),
      el("p", {}, el("a", { class: "button primary", href: "#/create" }, "Create a job")))]);
    return;
  }
  append(node, [el("section", { class: "card" }, scroller("Collections", el("table", {},
    el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "Collection"), ["Records", "Repos"].map((t) => el("th", { scope: "col", class: "number" }, t)), el("th", { scope: "col" }, "Kept"), el("th", { scope: "col" }, el("span", { class: "unseen" }, "Do")))),
    el("tbody", {}, names.map((name) => el("tr", {},
      el("th", { scope: "row" }, el("a", { href: query("#/records", { collection: name }) }, name)),
      el("td", { class: "number" }, count(held(name).records)),
      el("td", { class: "number" }, count(held(name).repos)),
      el("td", {}, stats.tracked_collections.includes(name) ? el("span", { class: "badge active" }, "tracked") : el("span", { class: "hint" }, "from jobs")),
      el("td", {}, el("a", { href: query("#/create", { collection: name }) }, "Read again"))))))))]);
}
