// Puts the page together: who is signed in, and which view is shown.
import { Unreachable, has, learnRoutes, session, urlOf, whenSignedOut } from "./api.js";
import { announce, append, el, show } from "./dom.js";
import { audit } from "./audit.js";
import { collections } from "./collections.js";
import { create } from "./create.js";
import { database } from "./database.js";
import { job } from "./job.js";
import { jobs } from "./jobs.js";
import { keys } from "./keys.js";
import { records } from "./records.js";
import { signIn } from "./signin.js";

// A view fills a node. Its signal is aborted when another one is shown.
const views = {
  jobs: { title: "Jobs", show: jobs },
  job: { title: "Job", show: job, under: "jobs" },
  create: { title: "New job", show: create, under: "jobs" },
  collections: { title: "Collections", show: collections },
  records: { title: "Records", show: records },
  keys: { title: "Keys", show: keys, needs: "/admin/api-keys" },
  audit: { title: "Audit log", show: audit, needs: "/admin/events" },
  database: { title: "Database", show: database },
};
const menu = ["jobs", "collections", "records", "keys", "audit", "database"];

const top = document.getElementById("top");
const content = document.getElementById("content");
const foot = document.getElementById("foot");

let current = new AbortController();
let learned = false; // which routes the server has

// address is what the part of the URL behind # says: a view, what it is about, and
// its parameters.
function address() {
  const [path, params] = location.hash.replace(/^#\/?/, "").split("?");
  const [view, ...rest] = path.split("/");
  return { view: Object.hasOwn(views, view) ? view : "jobs", about: decoded(rest.join("/")), params: new URLSearchParams(params) };
}

// decoded is a part of an address, which somebody may have cut or mistyped.
function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

function header(view) {
  const active = views[view]?.under ?? view;
  show(top,
    el("a", { class: "brand", href: "#/jobs" }, el("img", { src: urlOf("/web/icon.svg"), alt: "", width: "24", height: "24" }), "appview"),
    session.key && el("nav", { "aria-label": "Main" }, menu.filter((name) => !views[name].needs || has("get", views[name].needs)).map((name) =>
      el("a", { href: "#/" + name, "aria-current": name === active ? "page" : null }, views[name].title))),
    session.key && el("button", { class: "button small", onclick: () => leave() }, "Sign out"));
}

function leave(why) {
  session.close();
  render(why);
}

whenSignedOut((err) => leave("You have been signed out: " + err.message + "."));

// render shows the view that the address names, or asks for a key.
async function render(why) {
  current.abort();
  current = new AbortController();
  const { signal } = current;
  const { view, about, params } = address();
  announce("");
  const node = el("div", { class: "view" });
  if (session.key && !learned) learned = await learnRoutes();
  if (signal.aborted) return;
  header(session.key ? view : "");
  show(content, node);
  show(foot, session.key && [
    el("a", { href: urlOf("/openapi.json") }, "HTTP API"), " · ", el("a", { href: urlOf("/health") }, "Health"), has("get", "/metrics") && [" · ", el("a", { href: urlOf("/metrics") }, "Metrics")]]);
  document.title = (session.key ? views[view].title : "Sign in") + " · appview";
  if (!session.key) {
    signIn(node, why, () => render());
    return;
  }
  try {
    await views[view].show(node, { about, params, signal });
  } catch (err) {
    if (!signal.aborted) append(node, [problem(err, signal)]);
  }
}

// problem says what went wrong, and lets one try again.
function problem(err, signal) {
  announce(err.message);
  const again = el("button", { class: "button", onclick: () => render() }, "Try again");
  if (err instanceof Unreachable) {
    const timer = setTimeout(() => render(), 5000);
    signal.addEventListener("abort", () => clearTimeout(timer));
  }
  return el("div", { class: "notice bad", role: "alert" },
    el("p", {}, sentence(err.message)),
    err.status === 403 && el("p", {}, "Sign in with a key that has it, or have one made: ", el("code", {}, "appview keys create")),
    again);
}

function sentence(text) {
  return text.charAt(0).toUpperCase() + text.slice(1) + (/[.!?…]$/.test(text) ? "" : ".");
}

// What is behind # names a view, so that this link must not.
document.querySelector(".skip").addEventListener("click", (e) => { e.preventDefault(); content.focus(); });

addEventListener("hashchange", async () => {
  scrollTo(0, 0);
  await render();
  // Unless the view has a better place for it.
  if (!content.contains(document.activeElement)) content.focus({ preventScroll: true });
});
render();
