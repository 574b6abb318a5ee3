// Makes elements. Text becomes text nodes and nothing else: what hosts and authors
// of records wrote can never become markup. The page's policy would not let it.

const SVG = "http://www.w3.org/2000/svg";

// el makes an element with properties and children: elements, text, numbers, lists
// of these, or nothing.
export function el(tag, props, ...children) {
  return fill(document.createElement(tag), props, children);
}

// svg is el for drawings.
export function svg(tag, props, ...children) {
  return fill(document.createElementNS(SVG, tag), props, children);
}

function fill(node, props, children) {
  for (const [name, value] of Object.entries(props ?? {})) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name === "value" || name === "checked" || name === "disabled") node[name] = value;
    else node.setAttribute(name, value === true ? "" : String(value));
  }
  append(node, children);
  return node;
}

export function append(node, children) {
  for (const child of children.flat(Infinity)) {
    if (child === undefined || child === null || child === false) continue;
    node.append(child instanceof Node ? child : document.createTextNode(String(child)));
  }
  return node;
}

// show replaces everything in a node.
export function show(node, ...children) {
  node.replaceChildren();
  return append(node, children);
}

// setText changes text without touching the document when it is the same.
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

// announce tells those who listen to the page what they cannot see change.
export function announce(text) {
  setText(document.getElementById("announcer"), text);
}

// field is a labelled input.
export function field(label, input, hint) {
  const id = input.id || (input.id = "f" + Math.random().toString(36).slice(2));
  const note = hint ? el("p", { class: "hint", id: id + "-hint" }, hint) : null;
  if (note) input.setAttribute("aria-describedby", note.id);
  return el("div", { class: "field" }, el("label", { for: id }, label), input, note);
}

// choose asks what is to be done, and returns the value of what was chosen, empty if
// nothing was. The first choice has the focus: it should be the one that does nothing.
export function choose(title, text, choices) {
  return new Promise((resolve) => {
    const dialog = el("dialog", { "aria-labelledby": "ask-title" },
      el("form", { method: "dialog", onsubmit: (e) => { e.preventDefault(); dialog.close(e.submitter?.value); } },
        el("h2", { id: "ask-title" }, title),
        el("p", {}, text),
        el("div", { class: "actions" }, choices.map(([value, label, danger]) =>
          el("button", { class: danger ? "button danger" : "button", value }, label)))));
    dialog.addEventListener("close", () => { dialog.remove(); resolve(dialog.returnValue); });
    document.body.append(dialog);
    dialog.showModal();
  });
}

// confirmed asks before something is done that cannot be undone.
export async function confirmed(title, text, action) {
  return (await choose(title, text, [["", "Leave it"], ["yes", action, true]])) === "yes";
}

// once does what a button is for, unless that is under way already. The button can
// be reached all the time: one that is disabled would lose the focus.
export async function once(button, work) {
  if (button.getAttribute("aria-disabled") === "true") return;
  button.setAttribute("aria-disabled", "true");
  try {
    await work();
  } finally {
    button.removeAttribute("aria-disabled");
  }
}

// copyButton copies a text.
export function copyButton(text, what) {
  const button = el("button", { class: "button small", type: "button", "aria-label": "Copy " + what, onclick: async () => {
    try {
      await navigator.clipboard.writeText(text);
      button.textContent = "Copied";
      announce(what + " copied");
    } catch {
      button.textContent = "Select it and copy";
    }
  } }, "Copy");
  return button;
}

// scroller lets something wide scroll on its own, with the keyboard too, and shows
// that there is more to the right.
export function scroller(label, child) {
  const node = el("div", { class: "scroller", tabindex: "0", role: "region", "aria-label": label }, child);
  const look = () => node.classList.toggle("more", node.scrollLeft + node.clientWidth < node.scrollWidth - 1);
  node.addEventListener("scroll", look, { passive: true });
  new ResizeObserver(look).observe(node);
  return node;
}

// redrawn shows something anew in a node, and leaves the focus and how far it was
// scrolled as they were.
export function redrawn(node, ...children) {
  const left = node.querySelector(".scroller")?.scrollLeft ?? 0;
  const on = node.contains(document.activeElement) && [".scroller", ".button"].find((s) => document.activeElement.matches(s));
  show(node, ...children);
  const next = node.querySelector(".scroller");
  if (next) next.scrollLeft = left;
  if (on) (node.querySelector(on) ?? next)?.focus({ preventScroll: true });
}
