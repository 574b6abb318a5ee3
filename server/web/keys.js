// API keys: who may do what.
import { command, get } from "./api.js";
import { announce, append, confirmed, copyButton, el, field, once, scroller, show } from "./dom.js";
import { ago, time } from "./format.js";
import { badge } from "./jobs.js";

const permissions = [
  ["*", "everything"],
  ["backfill:read", "see jobs"], ["backfill:create", "create, stop and carry on jobs"],
  ["records:read", "read and export records"], ["records:delete", "delete records"],
  ["stats:read", "see counts and sizes"], ["collections:manage", "track collections"], ["denylist:manage", "deny accounts and hosts"],
  ["keys:manage", "make and revoke keys"], ["audit:read", "read the audit log"], ["backup", "download the database"],
];

export async function keys(node, { signal }) {
  const made = el("div", {}), list = el("section", { class: "card", "aria-labelledby": "keys" });
  append(node, [el("div", { class: "title" }, el("h1", {}, "Keys")), made, list, form()]);

  async function draw() {
    const { keys: all, environment_key: configured } = await get("/admin/api-keys", { signal });
    show(list, el("h2", { id: "keys" }, "Keys there are"),
      configured && el("p", { class: "hint" }, "Beside these, the key in APPVIEW_ADMIN_KEY has every permission."),
      all.length === 0 ? el("p", { class: "hint" }, "None is stored.") : scroller("Keys", el("table", {},
        el("thead", {}, el("tr", {}, ["Name", "Begins with", "May", "State", "Last used", ""].map((t) => el("th", { scope: "col" }, t || el("span", { class: "unseen" }, "Do"))))),
        el("tbody", {}, all.map((k) => el("tr", {},
          el("th", { scope: "row" }, k.name),
          el("td", {}, el("code", {}, k.prefix + "…")),
          el("td", {}, k.permissions.includes("*") ? "everything" : k.permissions.join(", ")),
          el("td", {}, badge(k.state), k.expires_at && el("span", { class: "hint" }, " until " + time(k.expires_at))),
          el("td", {}, k.last_used_at ? ago(k.last_used_at) : "never"),
          el("td", {}, k.state === "usable" && el("button", { class: "button small danger", "aria-label": "Revoke " + k.name, onclick: () => revoke(k) }, "Revoke"))))))));
  }

  async function revoke(k) {
    if (!(await confirmed("Revoke " + k.name + "?", "Whoever uses it is locked out at once. It cannot be brought back.", "Revoke the key"))) return;
    try {
      await command("DELETE", "/admin/api-keys/" + k.id, undefined, { signal });
      announce("Key revoked");
      await draw();
    } catch (err) {
      if (!signal.aborted) show(made, el("p", { class: "notice bad", role: "alert" }, err.message));
    }
  }

  function form() {
    const name = el("input", { type: "text", name: "name", required: true, maxlength: "100", autocomplete: "off", placeholder: "what it is for" });
    const expires = el("input", { type: "datetime-local", name: "expires" });
    const boxes = permissions.map(([p, what]) => el("input", { type: "checkbox", name: "permission", value: p, checked: p === "backfill:read" }));
    const make = el("button", { class: "button primary" }, "Make the key");
    return el("form", { class: "card", onsubmit: (e) => { e.preventDefault(); once(make, create); } },
      el("h2", {}, "Make a key"),
      field("Name", name),
      el("fieldset", {}, el("legend", {}, "It may"), permissions.map(([p, what], i) =>
        el("label", { class: "choice" }, boxes[i], el("span", {}, what, " ", el("code", {}, p))))),
      field("Until", expires, "Left empty: for ever, or until it is revoked."),
      el("div", { class: "actions" }, make));

    async function create() {
      const body = { name: name.value.trim(), permissions: boxes.filter((b) => b.checked).map((b) => b.value) };
      if (expires.value) body.expires_at = new Date(expires.value).toISOString().replace(/\.\d+Z$/, "Z");
      try {
        if (body.permissions.length === 0) throw new Error("Choose what the key may do.");
        const k = await command("POST", "/admin/api-keys", body, { signal });
        name.value = "";
        show(made, el("div", { class: "notice good", role: "status" },
          el("p", {}, el("strong", {}, "This is the key. "), "It is shown now and never again: put it where it is needed."),
          el("p", {}, el("code", { class: "secret" }, k.key), " ", copyButton(k.key, "the key"))));
        made.scrollIntoView({ block: "nearest" });
        await draw();
      } catch (err) {
        if (!signal.aborted) show(made, el("p", { class: "notice bad", role: "alert" }, err.message));
      }
    }
  }

  await draw();
}
