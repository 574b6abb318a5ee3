// The list of jobs.
import { every, get, isFinal, query } from "./api.js";
import { append, el, once, setText, show } from "./dom.js";
import { ago, count, covers, many, percent, span } from "./format.js";

const PAGE = 25;

// badge is a status, told by its word and by its colour.
export function badge(status) {
  return el("span", { class: "badge " + status }, status);
}

// bar is how much of something is done.
export function bar(label, part, whole) {
  const node = el("progress", { max: Math.max(whole ?? 0, 1), "aria-label": label });
  node.value = whole ? Math.min(part ?? 0, whole) : 0;
  return node;
}

export const stages = {
  pending: "waits for its turn",
  discovering_repos: "finds repos",
  resolving_pds: "looks up where they live",
  fetching_records: "reads records",
  completed: "has read everything there was",
  failed: "has failed",
  cancelled: "was stopped",
};

// doing is what an unfinished job does: a paused one keeps its stage.
export function doing(job) {
  const other = { pausing: "is about to pause", paused: "is paused", cancelling: "is about to stop" }[job.status];
  return other ?? stages[job.stage] ?? job.stage;
}

export async function jobs(node, { signal }) {
  const list = el("ul", { class: "cards", "aria-label": "Jobs" });
  const more = el("div", { class: "actions" });
  const failed = el("p", { class: "notice bad", role: "alert", hidden: true });
  const older = [];
  append(node, [
    el("div", { class: "title" }, el("h1", {}, "Jobs"), el("a", { class: "button primary", href: "#/create" }, "New job")),
    list, failed, more]);

  const cards = new Map();
  const draw = (newest) => {
    const all = [...newest, ...older.filter((o) => !newest.some((n) => n.id === o.id))];
    if (all.length === 0) {
      show(list, el("li", { class: "card empty" },
        el("h2", {}, "Nothing here yet"),
        el("p", {}, "A job finds every repo on the network that has records of a collection, reads each from the host where it lives, and keeps the records here."),
        el("p", {}, el("a", { class: "button primary", href: "#/create" }, "Create the first job")),
        el("p", { class: "hint" }, "Or on the command line: ", el("code", {}, "appview backfill create --collection xyz.statusphere.status"))));
      return;
    }
    // Cards stay the same nodes: whoever has the focus on one keeps it.
    for (const [id, card] of cards) {
      if (!all.some((j) => j.id === id)) { card.node.remove(); cards.delete(id); }
    }
    if (cards.size === 0) list.replaceChildren();
    all.forEach((j, i) => {
      let card = cards.get(j.id);
      if (!card) cards.set(j.id, card = jobCard());
      card.update(j);
      if (list.children[i] !== card.node) list.insertBefore(card.node, list.children[i] ?? null);
    });
  };

  let newest = await get(query("/admin/backfill/status", { limit: PAGE }), { signal });
  draw(newest);
  // New jobs push others out of the first page, so that what is older begins elsewhere
  // when it is asked for.
  let offered = false, ended = false;
  const offer = (is) => { if (is !== offered) show(more, (offered = is) && next); };
  const next = el("button", { class: "button", onclick: () => once(next, async () => {
    failed.hidden = true;
    try {
      const page = await get(query("/admin/backfill/status", { limit: PAGE, before: (older.at(-1) ?? newest.at(-1)).id }), { signal });
      older.push(...page);
      ended = page.length < PAGE;
      draw(newest);
      offer(!ended);
    } catch (err) {
      if (signal.aborted) return;
      failed.hidden = false;
      show(failed, err.message);
    }
  }) }, "Older jobs");
  offer(newest.length === PAGE);

  every(2000, async () => {
    try {
      const now = await get(query("/admin/backfill/status", { limit: PAGE }), { signal });
      if (signal.aborted) return;
      if (older.length > 0) older.unshift(...newest.filter((o) => !now.some((n) => n.id === o.id)));
      newest = now;
      draw(newest);
      if (older.length === 0 && !ended) offer(newest.length === PAGE);
    } catch { /* what is shown stays, and the next look may succeed */ }
  }, signal);
}

function jobCard() {
  const name = el("span", { class: "name" }), state = el("span", {}), line = el("span", { class: "detail" }), when = el("span", { class: "when" });
  const progress = el("div", {});
  const error = el("span", { class: "error" });
  const link = el("a", { class: "card link" }, el("span", { class: "head" }, name, state), progress, line, error, when);
  return {
    node: el("li", {}, link),
    update(j) {
      link.setAttribute("href", "#/job/" + j.id);
      setText(name, covers(j));
      if (state.firstChild?.textContent !== j.status) show(state, badge(j.status));
      const done = percent(j.processed_repos ?? 0, j.total_repos ?? 0);
      if (isFinal(j)) progress.replaceChildren();
      else if (!progress.firstChild) show(progress, bar("Repos read", 0, 1));
      const meter = progress.firstChild;
      if (meter) { meter.max = Math.max(j.total_repos ?? 0, 1); meter.value = j.processed_repos ?? 0; }
      const parts = [count(j.processed_repos ?? 0) + " of " + many(j.total_repos ?? 0, "repo"), many(j.total_records ?? 0, "record")];
      if (!isFinal(j)) parts.unshift(doing(j), done + " %");
      setText(line, parts.join(" · "));
      setText(error, j.error ?? "");
      setText(when, isFinal(j) && j.started_at
        ? "ended " + ago(j.completed_at) + ", took " + span((new Date(j.completed_at) - new Date(j.started_at)) / 1000)
        : "created " + ago(j.created_at));
    },
  };
}
