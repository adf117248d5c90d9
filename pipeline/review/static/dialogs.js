// @ts-check
// Questions and help, each in the one dialog element: Escape closes it, and the keyboard stays inside.

import { $, el, reasonText, words } from "./dom.js";

/** @type {[string[], string, string][]} Keys, what stands between them, and what they do. */
export const KEYS = [
  [["a"], "", "accept"],
  [["1", "9"], "…", "reject, with that reason"],
  [["r", "1", "9"], "…", "the same, in two steps"],
  [["u"], "", "undo, as often as you like"],
  [["s", "space"], "or", "skip"],
  [["n"], "", "the next unsure clip"],
  [["←", "→"], "", "the clip before, the next one"],
  [["d"], "", "another domain"],
  [["i"], "", "set the identity"],
  [["[", "]"], "", "begin, end at this frame"],
  [[",", "."], "", "a frame back, a frame on"],
  [["-", "+"], "", "slower, faster"],
  [["k"], "", "pause, play"],
  [["m"], "", "sound off, on"],
  [["l", "p", "b"], "", "landmarks, pose axes, face box"],
  [["c"], "", "confirm what was said of an earlier version"],
  [["g"], "", "grid, and back"],
  [["/"], "", "search, in the grid"],
  [["Enter"], "", "open the tile, in the grid"],
  [["?"], "", "this help"],
];

const dialog = () => $("dialog");

/** @param {string} title @param {...import("./dom.js").Child} content */
function open(title, ...content) {
  const node = dialog();
  node.onkeydown = null;
  node.replaceChildren(
    el("div", { class: "dialog-head" }, el("h2", { id: "dialog-title" }, title), el("button", { type: "button", "aria-label": "Close", onclick: () => node.close() }, "✕")),
  );
  for (const child of content) if (child) node.append(child);
  if (!node.open) node.showModal();
}

/** @param {string[]} reasons */
export function showHelp(reasons) {
  open(
    "Keys",
    el("div", { class: "help" },
      el("table", {}, el("tbody", {}, ...KEYS.map(([keys, between, text]) => el("tr", {}, el("th", { scope: "row" }, ...keysOf(keys, between)), el("td", {}, text))))),
      el("div", {},
        el("h3", {}, "Reasons"),
        el("ol", {}, ...reasons.map((reason) => el("li", {}, reasonText(reason)))),
        el("p", { class: "faint" }, "Browsers play with sound only after a key or a tap, so the first clip is muted until then."),
        el("p", { class: "faint" }, "Every decision is on the server’s disk before it counts, and every one can be undone."),
      )),
  );
}

/** @param {string[]} keys @param {string} between */
const keysOf = (keys, between) => keys.flatMap((key, k) => [k ? (k === keys.length - 1 ? ` ${between} ` : " ") : "", el("kbd", {}, key)]);

/** @param {string} title @param {string[]} options @param {string} chosen @param {(value: string) => void} pick */
export function choose(title, options, chosen, pick) {
  /** @param {string} value */
  const take = (value) => {
    dialog().close();
    pick(value);
  };
  open(
    title,
    el("div", { class: "choices" }, ...options.map((value, k) => el("button", { type: "button", "aria-current": value === chosen ? "true" : null, onclick: () => take(value) }, el("kbd", {}, String(k + 1)), words(value)))),
  );
  dialog().onkeydown = (event) => {
    const value = options[Number(event.key) - 1];
    if (!value) return;
    event.preventDefault();
    event.stopPropagation(); // else it would also decide, behind the closed dialog
    take(value);
  };
}

/** @param {string} title @param {{label: string, value: string, options?: string[], pattern?: string, hint?: string}} field @param {(value: string) => void} pick */
export function askText(title, { label, value, options = [], pattern, hint }, pick) {
  const input = el("input", { type: "text", name: "value", required: true, maxlength: "80", list: "known", autocomplete: "off", "aria-label": label });
  input.value = value;
  if (pattern) input.pattern = pattern;
  open(
    title,
    el("form", { class: "ask", onsubmit: (/** @type {Event} */ event) => {
      event.preventDefault();
      dialog().close();
      pick(input.value.trim());
    } },
    input,
    el("datalist", { id: "known" }, ...options.map((name) => el("option", { value: name }))),
    hint ? el("p", { class: "faint" }, hint) : null,
    el("div", { class: "dialog-foot" }, el("button", { type: "button", onclick: () => dialog().close() }, "Cancel"), el("button", { type: "submit", class: "accept" }, "Set"))),
  );
  input.select();
}

/** @type {ReturnType<typeof setTimeout> | undefined} */
let fading;
/** @param {string} text @param {"" | "good" | "bad"} [kind] */
export function toast(text, kind = "") {
  const node = $("toast");
  node.textContent = text;
  node.className = `toast ${text && "shown"} ${kind}`;
  clearTimeout(fading);
  fading = setTimeout(() => node.classList.remove("shown"), 3500);
}
