// @ts-check
// Wire the page together: views, keys, buttons, and what is told of all of it.

import { Decisions } from "./decisions.js";
import { askText, choose, showHelp, toast } from "./dialogs.js";
import { $, el, words } from "./dom.js";
import { Focus } from "./focus.js";
import { Grid } from "./grid.js";
import { progressOf } from "./statistics.js";
import { Store } from "./store.js";
import { Refused } from "./transport.js";

const ID_PATTERN = "[A-Za-z0-9][A-Za-z0-9_\\-]{0,79}";
/** @type {Store} */
let store;
/** @type {Decisions} */
let decisions;
/** @type {Focus} */
let focus;
/** @type {Grid} */
let grid;
let inGrid = false;
let rejecting = false;

// ---- views -----------------------------------------------------------------------------------------------------------

/** @param {"focus" | "grid"} name */
function view(name) {
  inGrid = name === "grid";
  $("focus").hidden = inGrid;
  $("grid").hidden = !inGrid;
  $("to-focus").setAttribute("aria-pressed", String(!inGrid));
  $("to-grid").setAttribute("aria-pressed", String(inGrid));
  if (inGrid) {
    focus.player.pause();
    grid.refill();
    if (focus.id) grid.show(focus.id);
    $("tiles").focus({ preventScroll: true });
  } else {
    focus.setList(grid.ids);
    if (focus.player.paused && focus.row) focus.player.toggle();
  }
}

/** @param {string} id */
function openClip(id) {
  focus.id = id;
  focus.row = store.clips.row(id);
  view("focus");
  focus.show(id);
}

/** Where the clip is seen that keys and buttons act on: in the grid, the selected tile. @returns {ClipView} */
const current = () => (inGrid ? grid : focus);

// ---- what is told ----------------------------------------------------------------------------------------------------

function paintProgress() {
  const { domains, accepted, decided, total } = progressOf(store.clips);
  const { worked } = store;
  const hours = accepted / 3600;
  const pace = accepted > 0 && worked > 0 ? ` · ${(worked / 60 / hours).toFixed(0)} min per accepted hour` : "";
  const kept = hours >= 1 ? `${hours.toFixed(1)} h` : `${(accepted / 60).toFixed(1)} min`;
  $("totals").textContent = `${decided} of ${total} decided · ${kept} accepted${pace}`;
  $("domains").replaceChildren(
    ...[...domains].sort().map(([name, domain]) => {
      const filled = el("span", {});
      filled.style.width = `${(100 * domain.decided) / domain.total}%`;
      const title = `${words(name)}: ${domain.decided} of ${domain.total} decided, ${domain.total - domain.decided} left`;
      return el("span", { class: "domain", role: "listitem", title }, `${words(name)} `, el("b", {}, `${domain.decided}/${domain.total}`), el("span", { class: "bar" }, filled));
    }),
  );
  document.title = `${decided}/${total} · Screening`;
}

let painting = false;
function soonProgress() {
  if (painting) return;
  painting = true;
  requestAnimationFrame(() => setTimeout(() => {
    painting = false;
    paintProgress();
    grid.fillNames();
  }));
}

/** @param {string} text */
function banner(text) {
  if ($("banner").textContent === text) return; // said aloud once, however often it is found
  $("banner").textContent = text;
  $("banner").hidden = !text;
}

/** @param {{back: boolean, error?: unknown}} told */
function connection({ back, error }) {
  if (back) {
    banner("");
    toast("The server is back, and everything you said is stored.", "good");
    focus.retry();
    return;
  }
  const refused = error instanceof Refused ? error : null;
  if (refused?.status === 401) {
    banner("The server does not know this page any more: open the address that “anitalk review” printed. Nothing you said is lost.");
    return;
  }
  const count = store.outbox.length;
  const waiting = count ? `${count === 1 ? "1 decision waits" : `${count} decisions wait`} here and will be sent` : "Go on; what you say is kept here and sent";
  const why = refused ? ` (${refused.message})` : "";
  banner(`The server does not answer${why}. ${waiting} when it is back: nothing is lost.`);
}

// ---- keys ------------------------------------------------------------------------------------------------------------

/** @param {ClipView} clipView */
function relabel(clipView) {
  const { row } = clipView;
  if (!row) return;
  const now = store.clips.shown(row.id).domain?.domain ?? row.domain;
  choose("Domain", store.setup.domains, now, (domain) => decisions.say(clipView, row, "domain", { domain }, `Domain: ${words(domain)}`));
}

/** @param {ClipView} clipView */
function rename(clipView) {
  const { row } = clipView;
  if (!row) return;
  const { clips } = store;
  /** @param {Row} other */
  const identityOf = (other) => clips.shown(other.id).identity?.identity_id ?? other.who;
  const known = [...new Set(clips.rows.filter((other) => other.source === row.source).map(identityOf))];
  const hint = "Letters, digits, - and _; clips of one identity never part between train and test.";
  const field = { label: "Identity", value: identityOf(row), options: known.sort(), pattern: ID_PATTERN, hint };
  askText("Identity", field, (identity_id) => decisions.say(clipView, row, "identity", { identity_id }, `Identity: ${identity_id}`));
}

function sign() {
  askText("Your name", { label: "Your name", value: store.name, hint: "It stands on everything that you decide." }, (name) => {
    if (!name) return;
    store.name = name;
    sessionStorage.setItem("reviewer", name);
    localStorage.setItem("reviewer", name);
    $("reviewer").textContent = name;
    Promise.all([store.readMine(), store.readQueue()]).catch((error) => store.lost(error));
  });
}

function theme() {
  const dark = getComputedStyle(document.documentElement).colorScheme.includes("dark");
  document.documentElement.dataset.theme = dark ? "light" : "dark";
  localStorage.setItem("theme", document.documentElement.dataset.theme);
  focus.curve.paint();
}

/** @param {boolean} on whether the next number is a reason */
function armReject(on) {
  rejecting = on;
  $("focus").classList.toggle("rejecting", on);
  toast(on ? "Reject: why? Press 1 to 9, or Escape." : "");
}

/** @type {Record<string, () => void>} */
const ACTIONS = {
  a: () => decisions.decide(current(), "accept"),
  r: () => armReject(!rejecting),
  u: () => decisions.undo(current()),
  s: () => decisions.skip(current()),
  " ": () => decisions.skip(current()),
  c: () => decisions.confirm(current()),
  d: () => relabel(current()),
  i: () => rename(current()),
  g: () => view(inGrid ? "focus" : "grid"),
  n: () => {
    if (inGrid) view("focus");
    focus.nextUnsure();
  },
  "?": () => showHelp(store.setup.reasons),
  "[": () => focus.cut("in"),
  "]": () => focus.cut("out"),
  ",": () => focus.player.step(-1),
  ".": () => focus.player.step(1),
  "-": () => focus.player.faster(-1),
  "+": () => focus.player.faster(1),
  "=": () => focus.player.faster(1),
  k: () => focus.player.toggle(),
  m: () => {
    focus.player.muted = !focus.player.muted;
    focus.player.tune();
  },
  l: () => focus.toggle("landmarks"),
  p: () => focus.toggle("pose"),
  b: () => focus.toggle("box"),
  ArrowLeft: () => focus.move(-1),
  ArrowRight: () => focus.move(1),
};
const FOCUS_ONLY = new Set(["[", "]", ",", ".", "-", "+", "=", "k", "m", "l", "p", "b", "ArrowLeft", "ArrowRight"]);

/** @param {KeyboardEvent} event @param {() => void} act */
function acted(event, act) {
  event.preventDefault();
  focus.player.asked = event.timeStamp;
  act();
  focus.player.asked = null;
}

/** @param {HTMLElement} target @param {boolean} typing */
function escaped(target, typing) {
  if (rejecting) armReject(false);
  else if (typing) target.blur();
  else if (!inGrid) view("grid");
}

/** @param {KeyboardEvent} event */
function pressed(event) {
  focus.player.touched();
  const target = /** @type {HTMLElement} */ (event.target);
  if (event.ctrlKey || event.metaKey || (event.altKey && !"[]".includes(event.key)) || $("dialog").open) return;
  const typing = target.matches("input, select, textarea");
  if (event.key === "Escape") escaped(target, typing);
  if (typing || event.key === "Escape") return;
  if (target.matches("button") && (event.key === " " || event.key === "Enter")) return; // it is pressed by them
  if (inGrid && grid.key(event)) event.preventDefault();
  else if (event.key === "/") search(event);
  else decided(event);
}

/** @param {KeyboardEvent} event */
function search(event) {
  event.preventDefault();
  if (!inGrid) view("grid");
  /** @type {HTMLInputElement} */ ($("filters").elements.namedItem("text")).focus();
}

/** @param {KeyboardEvent} event */
function decided(event) {
  const reason = store.setup.reasons[Number(event.key) - 1];
  if (event.key !== " " && reason) {
    if (rejecting) armReject(false);
    acted(event, () => decisions.decide(current(), "reject", { reason }));
    return;
  }
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  const action = ACTIONS[key];
  if (!action || (inGrid && FOCUS_ONLY.has(key)) || (!focus.row && !inGrid && key !== "?")) return;
  if (rejecting && key !== "r") armReject(false);
  acted(event, action);
}

const BUTTONS = {
  accept: "a", skip: "s", undo: "u", next: "n", domain: "d", identity: "i", confirm: "c", play: "k", "step-back": ",", "step-on": ".",
  "trim-in": "[", "trim-out": "]", slower: "-", faster: "+", "show-landmarks": "l", "show-pose": "p", "show-box": "b", mute: "m", help: "?",
};

function wire() {
  for (const [id, key] of Object.entries(BUTTONS)) $(id).addEventListener("click", () => ACTIONS[key]());
  $("to-grid").addEventListener("click", () => view("grid"));
  $("to-focus").addEventListener("click", () => view("focus"));
  $("reviewer").addEventListener("click", sign);
  $("theme").addEventListener("click", theme);
  document.addEventListener("keydown", pressed);
  document.addEventListener("pointerdown", () => focus.player.touched());
  // A button that was clicked must not take the next space for itself.
  document.addEventListener("pointerup", () => setTimeout(() => document.activeElement instanceof HTMLButtonElement && document.activeElement.blur()));
}

function listen() {
  store.on("states", (ids) => {
    focus.changed(ids);
    if (inGrid) grid.update(ids);
    soonProgress();
  });
  store.on("rows", () => {
    grid.refill();
    focus.setList(grid.ids);
    if (focus.row && store.clips.row(focus.id)?.v !== focus.row.v) focus.show(store.clips.row(focus.id)?.id ?? grid.ids[0]);
    soonProgress();
  });
  store.on("queue", () => {
    if (inGrid) return; // tiles do not move under somebody's eyes
    grid.refill();
    focus.reorder(grid.ids);
  });
  store.on("online", connection);
  store.on("refused", ({ error }) => toast(`Not taken: ${error.message}`, "bad"));
}

async function begin() {
  const chosen = localStorage.getItem("theme");
  if (chosen) document.documentElement.dataset.theme = chosen;
  try {
    store = await Store.open();
  } catch (error) {
    banner(error instanceof Refused ? error.message : "The server does not answer: start it again, then load this page anew.");
    return;
  }
  decisions = new Decisions(store);
  focus = new Focus(store, decisions);
  grid = new Grid(store, openClip);
  grid.buildFilters();
  wire();
  listen();
  grid.refill();
  $("reviewer").textContent = store.name;
  const wanted = location.hash.slice(1);
  if (store.clips.row(wanted)) focus.id = wanted;
  focus.setList(grid.ids);
  if (focus.id) focus.show(focus.id);
  paintProgress();
  if (!store.setup.num_clips) banner("There are no finished clips in this workspace yet.");
  performance.mark("ready");
}

begin();
