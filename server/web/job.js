// One job: how it goes on, its hosts, and what could not be read.
import { command, download, every, follow, get, has, isFinal, query } from "./api.js";
import { chart, history } from "./chart.js";
import { announce, append, confirmed, copyButton, el, once, redrawn, scroller, setText, show } from "./dom.js";
import { ago, bytes, count, covers, hostName, many, percent, rate, span, time } from "./format.js";
import { badge, bar, doing, stages } from "./jobs.js";

const waits = {
  queue: "It waits for its turn: other jobs come first.",
  network: "It waits for the network: this machine reaches no host at the moment. Nothing is given up for it.",
  disk: "It waits for room on the disk of the server. It goes on by itself when there is some.",
  relay: "It waits for the relay: nothing is given up for hours, as long as the relay answers at all.",
  directory: "It waits for the directory of accounts. Nothing is given up for hours.",
  hosts: "It waits for hosts: all that is left has asked for a pause, or does not answer. They are asked again by and by.",
};

// service says how the relay or the directory answers that a job waits for.
function service(j) {
  if (!j.waiting_host) return "";
  const asked = Date.parse(j.waiting_until) > Date.now() ? "it is asked again at " + time(j.waiting_until) : "it is being asked now";
  return " " + hostName(j.waiting_host) + " has not answered since " + time(j.waiting_since) + "; " + asked + "." +
    (j.waiting_answer ? " Last: " + j.waiting_answer : "");
}

export async function job(node, { about: id, signal }) {
  const path = "/admin/backfill/" + encodeURIComponent(id);
  let now = await get(path, { signal });

  const title = el("h1", {}), status = el("span", {}), line = el("p", { class: "lead" });
  const actions = el("div", { class: "actions" });
  const trouble = el("p", { class: "notice", role: "status", hidden: true });
  const waiting = el("p", { class: "notice", hidden: true });
  const error = el("p", { class: "notice", hidden: true });
  const said = el("p", { class: "notice bad", role: "alert", hidden: true });
  const steps = stepList(), tiles = tileList(), graph = chart(), seen = history(id);
  const hosts = el("section", { class: "card", "aria-labelledby": "hosts" });
  const failures = el("section", { class: "card", "aria-labelledby": "failures" });
  append(node, [
    el("p", { class: "back" }, el("a", { href: "#/jobs" }, "← Jobs")),
    el("div", { class: "title" }, title, status),
    line, actions, said, trouble, waiting, error,
    el("section", { class: "card", "aria-label": "Progress" }, steps.node, graph.node),
    tiles.node, hosts, failures,
    el("p", { class: "hint ids" }, "Job ", el("code", {}, id), " ", copyButton(id, "the job's id"))]);

  const act = (label, verb, done, ask, primary, later) => el("button", { class: "button" + (primary ? " primary" : ask ? " danger" : ""), "aria-disabled": later && "true", onclick: async (e) => {
    if (ask && !(await confirmed(...ask))) return;
    await once(e.target, async () => {
      said.hidden = true;
      try {
        const answer = await command("POST", path + "/" + verb, undefined, { signal });
        announce(done);
        if (verb === "retry") location.hash = "#/job/" + answer.id;
        else update(await get(path, { signal }));
      } catch (err) {
        if (signal.aborted) return;
        said.hidden = false;
        show(said, err.message);
      }
    });
  } }, label);

  const buttons = () => {
    switch (now.status) {
      case "running": return [
        has("post", "/admin/backfill/{id}/pause") && act("Pause", "pause", "The job pauses."),
        act("Cancel", "cancel", "The job stops.", ["Cancel this job?", "What it has read stays. A cancelled job can be carried on later with Retry.", "Cancel the job"])];
      case "pausing": case "paused": return [
        act("Resume", "resume", "The job goes on.", null, true, now.status === "pausing"),
        act("Cancel", "cancel", "The job stops.", ["Cancel this job?", "What it has read stays. A cancelled job can be carried on later with Retry.", "Cancel the job"])];
      case "failed": case "cancelled": return [act("Retry", "retry", "A new job carries it on.", null, true)];
      case "completed": return [now.failed_repos > 0 && act("Retry what failed", "retry", "A new job carries it on.", null, true)];
      default: return [];
    }
  };
  const report = el("button", { class: "button", onclick: () => once(report, async () => {
    try {
      const size = await download(path + "/report", "report-" + id + ".ndjson", (n) => setText(report, "Report: " + bytes(n)), signal);
      announce("Report downloaded, " + bytes(size));
    } catch (err) {
      if (signal.aborted) return;
      said.hidden = false;
      show(said, err.message);
    }
    setText(report, "Download report");
  }) }, "Download report");

  let shownStatus = "";
  function update(j) {
    now = j;
    setText(title, covers(j));
    if (shownStatus !== j.status + j.failed_repos) {
      show(status, badge(j.status));
      const focused = actions.contains(document.activeElement);
      show(actions, buttons(), report);
      if (focused) actions.querySelector("button")?.focus();
      if (shownStatus !== "" && !shownStatus.startsWith(j.status)) announce("The job is " + j.status);
      shownStatus = j.status + j.failed_repos;
    }
    setText(line, describe(j));
    waiting.hidden = !j.waiting;
    setText(waiting, j.waiting ? (waits[j.waiting] ?? "It waits for " + j.waiting + ".") + service(j) : "");
    error.hidden = !j.error;
    error.className = "notice " + (j.status === "failed" ? "bad" : "warn");
    setText(error, j.error ?? "");
    steps.update(j);
    tiles.update(j);
    if (!isFinal(j)) seen.add(j);
    graph.node.hidden = (isFinal(j) || j.status === "paused") && seen.points.length < 2;
    graph.draw(seen.points);
  }
  update(now);

  const look = async () => {
    await Promise.all([showHosts(hosts, path, now, signal), showFailures(failures, path, now, signal)]);
  };
  const quietly = async () => {
    try { await look(); } catch { /* what is shown stays, and the next look may succeed */ }
  };
  await look();
  if (isFinal(now)) return;
  every(3000, async () => { if (!isFinal(now)) await quietly(); }, signal);
  follow(id, (j) => { update(j); if (isFinal(j)) quietly(); }, (err) => {
    trouble.hidden = !err;
    setText(trouble, err ? err.message : "");
  }, signal).catch((err) => {
    if (signal.aborted) return;
    trouble.hidden = false;
    setText(trouble, err.message);
  });
}

function describe(j) {
  const parts = [];
  if (isFinal(j)) {
    const said = j.status === "completed" && j.failed_repos > 0 ? "has read all but " + many(j.failed_repos, "repo") : stages[j.status] ?? "has ended";
    parts.push("It " + said, "ended " + time(j.completed_at));
    if (j.started_at) parts.push("took " + span((new Date(j.completed_at) - new Date(j.started_at)) / 1000));
  } else {
    parts.push("It " + doing(j));
    if (j.repos_per_second > 0) parts.push(rate(j.repos_per_second) + " repos and " + rate(j.records_per_second) + " records a second");
    if (j.eta_seconds !== null) parts.push("about " + span(j.eta_seconds) + " left");
    parts.push(j.started_at ? "started " + ago(j.started_at) : "created " + ago(j.created_at));
  }
  return parts.join(" · ");
}

// stepList shows the stages. They overlap, so each has a bar of its own.
function stepList() {
  const step = (name) => {
    const meter = bar(name, 0, 1), text = el("span", { class: "detail" });
    return { meter, text, node: el("li", {}, el("span", { class: "name" }, name), meter, text) };
  };
  const found = step("Find repos"), resolved = step("Look them up"), read = step("Read records");
  const set = (s, part, whole, text) => {
    s.meter.max = Math.max(whole, 1);
    s.meter.value = Math.min(part, Math.max(whole, 1));
    setText(s.text, text);
  };
  return {
    node: el("ol", { class: "steps" }, found.node, resolved.node, read.node),
    update(j) {
      const total = j.total_repos ?? 0, done = j.processed_repos ?? 0;
      if (j.discovery_complete || isFinal(j)) set(found, 1, 1, many(total, "repo") + " found");
      else { found.meter.removeAttribute("value"); setText(found.text, count(total) + " so far"); }
      set(resolved, j.resolved_repos, total, count(j.resolved_repos) + " of " + count(total));
      set(read, done, total, count(done) + " of " + count(total) + (total > 0 ? " · " + percent(done, total) + " %" : ""));
    },
  };
}

function tileList() {
  const list = [
    ["Records", (j) => j.total_records], ["New", (j) => j.created_records], ["Changed", (j) => j.updated_records],
    ["Unchanged", (j) => j.unchanged_records], ["Deleted", (j) => j.deleted_records], ["Rejected", (j) => j.rejected_records],
    ["Empty", (j) => j.empty_repos], ["Unavailable", (j) => j.unavailable_repos], ["Failed", (j) => j.failed_repos],
  ].map(([name, value]) => ({ value, name, dd: el("dd", {}) }));
  return {
    node: el("dl", { class: "tiles" }, list.map((t) => el("div", {}, el("dt", {}, t.name), t.dd))),
    update(j) {
      for (const t of list) {
        setText(t.dd, count(t.value(j)));
        t.dd.parentNode.classList.toggle("bad", (t.name === "Failed" || t.name === "Rejected") && t.value(j) > 0);
      }
    },
  };
}

const FIRST_HOSTS = 12;

async function showHosts(node, path, j, signal) {
  let list;
  try {
    list = (await get(path + "/pds-summary", { signal })).pds_endpoints;
  } catch (err) {
    if (err.status !== 404) throw err;
    show(node, el("h2", { id: "hosts" }, "Hosts"), el("p", { class: "hint" }, err.message + "."));
    return;
  }
  const all = node.dataset.all === "yes";
  const shown = all ? list : list.slice(0, FIRST_HOSTS);
  const bad = list.filter((h) => h.state === "down" || h.state === "parked").length;
  const rows = shown.map((h) => el("tr", {},
    el("th", { scope: "row" }, hostName(h.pds_endpoint)),
    el("td", {}, badge(h.state), h.paused_until && el("span", { class: "hint" }, " until " + new Date(h.paused_until).toLocaleTimeString("en"))),
    el("td", { class: "number" }, count(h.completed_repos + h.failed_repos) + " of " + count(h.total_repos)),
    el("td", { class: "number" }, count(h.total_records)),
    el("td", { class: "number" + (h.failed_repos > 0 ? " bad" : "") }, count(h.failed_repos))));
  redrawn(node,
    el("h2", { id: "hosts" }, "Hosts ", el("span", { class: "hint" }, many(list.length, "host") + (bad > 0 ? ", " + many(bad, "is", "are") + " parked or down" : ""))),
    list.length === 0
      ? el("p", { class: "hint" }, isFinal(j) ? "No repo was found on a host." : "Hosts appear when the first repos have been looked up.")
      : scroller("Hosts", el("table", {},
        el("thead", {}, el("tr", {}, ["Host", "State"].map((t) => el("th", { scope: "col" }, t)), ["Repos", "Records", "Failed"].map((t) => el("th", { scope: "col", class: "number" }, t)))),
        el("tbody", {}, rows))),
    list.length > shown.length && el("button", { class: "button", onclick: () => {
      node.dataset.all = "yes";
      showHosts(node, path, j, signal).catch((err) => { if (!signal.aborted) append(node, [el("p", { class: "notice bad", role: "alert" }, err.message)]); });
    } }, "Show all " + count(list.length)));
}

// MOST_PAGES bounds the pages that are read at once to count reasons.
const MOST_PAGES = 10;

async function showFailures(node, path, j, signal) {
  const want = [j.failed_repos, j.unavailable_repos, isFinal(j)].join(" ");
  if (node.dataset.shown === want) return;
  if (j.failed_repos + j.unavailable_repos === 0) {
    show(node, el("h2", { id: "failures" }, "What was not read"),
      el("p", { class: "hint" }, isFinal(j) ? "Nothing: every repo could be read." : "Nothing so far."));
    node.dataset.shown = want;
    return;
  }
  const groups = new Map();
  let cut = false;
  try {
    for (const state of ["failed", "unavailable"]) {
      let cursor = "", pages = 0;
      do {
        const page = await get(query(path + "/repos", { state, limit: 1000, cursor }), { signal });
        for (const r of page.repos) {
          const key = state + " " + (r.reason ?? "unknown");
          if (!groups.has(key)) groups.set(key, { state, reason: r.reason ?? "unknown", repos: [] });
          groups.get(key).repos.push(r);
        }
        cursor = page.cursor ?? "";
      } while (cursor && ++pages < MOST_PAGES);
      cut ||= cursor !== "";
    }
  } catch (err) {
    if (err.status !== 404) throw err;
    show(node, el("h2", { id: "failures" }, "What was not read"), el("p", { class: "hint" }, err.message + "."));
    return;
  }
  const open = new Set([...node.querySelectorAll("details[open]")].map((d) => d.dataset.group));
  const order = [...groups].sort(([, a], [, b]) => (a.state === b.state ? b.repos.length - a.repos.length : a.state === "failed" ? -1 : 1));
  show(node,
    el("h2", { id: "failures" }, "What was not read ", el("span", { class: "hint" }, count(j.failed_repos) + " failed, " + count(j.unavailable_repos) + " unavailable")),
    order.map(([key, g]) => el("details", { class: "reason " + g.state, "data-group": key, open: open.has(key) },
      el("summary", {}, el("span", { class: "badge " + g.state }, g.state), el("code", {}, g.reason), el("span", { class: "number" }, many(g.repos.length, "repo"))),
      el("p", { class: "hint" }, meanings[g.reason] ?? ""),
      scroller("Repos: " + g.reason, el("table", {},
        el("thead", {}, el("tr", {}, ["Repo", "Host"].map((t) => el("th", { scope: "col" }, t)), el("th", { scope: "col", class: "number" }, "Attempts"))),
        el("tbody", {}, g.repos.slice(0, 200).map((r) => el("tr", {},
          el("th", { scope: "row" }, el("a", { href: query("#/records", { did: r.did }) }, r.did)),
          el("td", {}, hostName(r.pds)), el("td", { class: "number" }, count(r.attempts))))))),
      g.repos.length > 200 && el("p", { class: "hint" }, "The first 200 of " + count(g.repos.length) + " are shown; the report has all."))),
    cut && el("p", { class: "hint" }, "There are more than could be counted here; the report has all."));
  node.dataset.shown = want;
}

// meanings says in a line what docs/operating.md says of each reason.
const meanings = {
  not_found: "The host or the directory does not know the account: an answer, not a failure.",
  deleted: "The account was deleted.",
  taken_down: "The host took the account down. Its records are kept and served nowhere.",
  suspended: "The host suspended the account. Its records are kept and served nowhere.",
  deactivated: "The owner switched the account off. A job after its return serves it again.",
  no_pds: "The account's document names no host. Only its owner can change that.",
  bad_did: "There is no document for this account.",
  tombstoned: "The account was given up for ever.",
  denied: "It is on this server's own deny list.",
  dns: "The host's name does not resolve. Retry; if it is every host, look at this machine's DNS.",
  connect: "The host cannot be reached. Retry later.",
  tls: "The host cannot be reached safely. Retry; if it is every host, look at this machine's clock.",
  timeout: "The host took too long. Retry later.",
  http_5xx: "The host says that it is broken. Retry; tell its operator if it stays.",
  cut_body: "The host cut its answer short. Retry; tell its operator if it stays.",
  bad_answer: "The host's answer makes no sense. Retry; tell its operator if it stays.",
  incomplete: "The repo could not be read to its end. Retry.",
  did_lookup: "The directory of identities did not answer. Retry.",
  host_down: "The host failed again and again and was set aside. Retry when it is back.",
  rate_limited: "The host asked for a longer pause than a job waits. Retry later.",
  no_rev: "The host does not say at which revision the repo is: it lacks a part of the protocol.",
  http_4xx: "The host refuses the request. It may block this server's address.",
  bad_endpoint: "The address in the account's document cannot be used.",
  refused_address: "The host's name leads to a private address.",
  bad_signature: "The repo is not signed with the account's key. Nothing of it is stored.",
  bad_rev: "The host names an impossible revision. Retry after the account has written.",
  rev_went_back: "The host shows an older state than before. Retry after the account has written.",
  too_large: "It is past what one repo or page may have, or what one account may take of the database.",
  rejected: "Some records do not match their CID, or are malformed. The others are stored.",
};
