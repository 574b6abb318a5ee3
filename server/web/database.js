// The file that everything is in.
import { get } from "./api.js";
import { append, el } from "./dom.js";
import { bar } from "./jobs.js";
import { bytes, count, percent } from "./format.js";

export async function database(node, { signal }) {
  const stats = await get("/admin/stats", { signal });
  const { file_bytes: file, free_bytes: free } = stats.database;
  const records = Object.values(stats.collections).reduce((n, c) => n + c.records, 0);
  let ready = "ready", why = "";
  try {
    await get("/ready", { signal });
  } catch (err) {
    if (signal.aborted) throw err;
    ready = "not ready";
    why = err.message;
  }
  append(node, [
    el("div", { class: "title" }, el("h1", {}, "Database"), el("span", { class: "badge " + (why ? "failed" : "active") }, ready)),
    why && el("p", { class: "notice bad" }, why),
    stats.disk_full && el("p", { class: "notice bad", role: "alert" },
      "The disk is full: jobs wait and changes are refused until there is room. Reads go on. Make room on the disk; deleting records makes none."),
    el("dl", { class: "tiles" },
      tile("File", bytes(file)), tile("In use", bytes(file - free)), tile("Free in it", bytes(free)),
      tile("Records served", count(records)), tile("Repos", count(stats.repos)), tile("Changes ever", count(stats.seq))),
    el("section", { class: "card" },
      el("h2", {}, "What compaction would give back"),
      bar("Part of the file that is free", free, file),
      el("p", {}, "About ", el("strong", {}, bytes(free)), " of " + bytes(file) + " (" + percent(free, file) + " %) is free. It is used before the file grows, so that there is seldom a reason to give it back."),
      el("p", {}, "To give it back, stop the server and run ", el("code", {}, "appview compact"), ". Before, or at any time while it runs, ",
        el("code", {}, "appview backup FILE"), " makes a copy. More is in ", el("code", {}, "docs/operating.md"), "."),
    ),
    el("p", { class: "hint" }, "Version " + stats.version)]);
}

function tile(name, value) {
  return el("div", {}, el("dt", {}, name), el("dd", {}, value));
}
