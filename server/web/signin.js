// Asks for a key.
import { Refused, get, session } from "./api.js";
import { el, field, once, show } from "./dom.js";

export function signIn(node, why, done) {
  const key = el("input", { type: "password", name: "key", autocomplete: "current-password", spellcheck: "false", required: true, placeholder: "hv_…" });
  const error = el("p", { class: "notice bad", role: "alert", hidden: true });
  const button = el("button", { class: "button primary wide" }, "Sign in");
  const form = el("form", { onsubmit: (e) => { e.preventDefault(); once(button, enter); } }, field("API key", key), error, button);
  async function enter() {
    error.hidden = true;
    try {
      await check(key.value.trim());
      session.open(key.value.trim());
      done();
    } catch (err) {
      error.hidden = false;
      show(error, err.message);
      key.focus();
    }
  }
  show(node, el("section", { class: "card signin" },
    el("h1", {}, "Sign in"),
    why && el("p", { class: "notice", role: "status" }, why),
    form,
    el("details", {}, el("summary", {}, "Where do I find a key?"),
      el("p", {}, "The first start of the server wrote one with every permission into its data directory:"),
      el("pre", {}, "cat appview-data/admin.key"),
      el("p", {}, "More keys, with fewer permissions, are made under Keys, or by ", el("code", {}, "appview keys create"), "."),
      el("p", {}, "The key stays in this tab, and is forgotten when the tab is closed."))));
  key.focus();
}

// check tells whether a key is known. One that may not list jobs is still a key.
async function check(key) {
  try {
    await get("/admin/backfill/status?limit=1", { key });
  } catch (err) {
    if (!(err instanceof Refused) || err.status !== 403) throw err;
  }
}
