// What administrators did.
import { get, query } from "./api.js";
import { append, el, once, scroller, show } from "./dom.js";
import { time } from "./format.js";

export async function audit(node, { signal }) {
  const rows = el("tbody", {}), more = el("div", { class: "actions" });
  let cursor = "";
  const next = async () => {
    const page = await get(query("/admin/events", { limit: 100, cursor }), { signal });
    for (const e of page.events) {
      const a = e.actor;
      rows.append(el("tr", {},
        el("td", { class: "nowrap" }, time(e.at)),
        el("td", {}, a.name ?? a.kind, a.prefix && [" ", el("code", {}, a.prefix + "…")]),
        el("th", { scope: "row" }, e.action),
        el("td", {}, e.target ?? "", e.detail && el("span", { class: "hint" }, " " + e.detail)),
        el("td", {}, e.outcome === "done" ? e.outcome : el("strong", {}, e.outcome))));
    }
    cursor = page.cursor ?? "";
    show(more, cursor && el("button", { class: "button", onclick: (e) => once(e.target, async () => {
      try { await next(); } catch (err) { if (!signal.aborted) show(more, el("p", { class: "notice bad", role: "alert" }, err.message)); }
    }) }, "Older"));
  };
  append(node, [el("div", { class: "title" }, el("h1", {}, "Audit log"))]);
  await next();
  append(node, rows.firstChild
    ? [el("section", { class: "card" }, scroller("Audit log", el("table", {},
      el("thead", {}, el("tr", {}, ["When", "Who", "What", "On", "Outcome"].map((t) => el("th", { scope: "col" }, t)))), rows))), more]
    : [el("section", { class: "card empty" }, el("h2", {}, "Nothing here yet"), el("p", {}, "Every change that somebody makes with a key is noted here."))]);
}
