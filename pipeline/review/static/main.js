// Wire the page together: views, keys, buttons, and what is told of all of it.

import { askText, choose, showHelp, toast } from "./dialogs.js";
import { $, el, words } from "./dom.js";
import { Focus } from "./focus.js";
import { Grid } from "./grid.js";
import { Store } from "./store.js";

const ID_PATTERN = "[A-Za-z0-9][A-Za-z0-9_\\-]{0,79}";
const store = new Store();
let focus;
let grid;
let inGrid = false;
let rejecting = false;

// ---- views -----------------------------------------------------------------------------------------------------------

function view(name) {
  inGrid = name === "grid";
  $("focus").hidden = inGrid;
  $("grid").hidden = !inGrid;
  $("to-focus").setAttribute("aria-pressed", String(!inGrid));
  $("to-grid").setAttribute("aria-pressed", String(inGrid));
  if (inGrid) {
    focus.player.pause();
    grid.refill();
    grid.selectId(focus.id);
    $("tiles").focus({ preventScroll: true });
  } else {
    focus.setList(grid.ids);
    if (focus.player.paused && focus.row) focus.player.toggle();
  }
}

function openClip(id) {
  focus.id = id;
  focus.row = store.row(id);
  view("focus");
  focus.show(id);
}

// What is decided in the grid is said of the selected tile.
function onClip(act) {
  if (!inGrid) return act();
  const id = grid.ids[grid.selected];
  if (!id) return undefined;
  const { advance, show } = focus;
  Object.assign(focus, { id, row: store.row(id) });
  focus.advance = () => grid.select(grid.selected + 1);
  focus.show = (other) => grid.selectId(other);
  act();
  focus.advance = advance;
  focus.show = show;
  return undefined;
}

// ---- what is told ----------------------------------------------------------------------------------------------------

function paintProgress() {
  const { domains, accepted, decided, total, worked } = store.progress();
  const hours = accepted / 3600;
  const pace = accepted > 0 && worked > 0 ? ` · ${(worked / 60 / hours).toFixed(0)} min per accepted hour` : "";
  const kept = hours >= 1 ? `${hours.toFixed(1)} h` : `${(accepted / 60).toFixed(1)} min`;
  $("totals").textContent = `${decided} of ${total} decided · ${kept} accepted${pace}`;
  $("domains").replaceChildren(
    ...[...domains].sort().map(([name, mine]) => {
      const bar = el("span", { class: "bar" }, el("span", {}));
      bar.firstChild.style.width = `${(100 * mine.decided) / mine.total}%`;
      return el("span", { class: "domain", role: "listitem", title: `${words(name)}: ${mine.decided} of ${mine.total} decided, ${mine.total - mine.decided} left` }, `${words(name)} `, el("b", {}, `${mine.decided}/${mine.total}`), bar);
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

function banner(text) {
  if ($("banner").textContent === text) return; // said aloud once, however often it is found
  $("banner").textContent = text;
  $("banner").hidden = !text;
}

function connection({ back, error }) {
  if (back) {
    banner("");
    toast("The server is back, and everything you said is stored.", "good");
    focus.player.retry();
    focus.load(focus.id);
    return;
  }
  if (error?.status === 401) return banner("The server does not know this page any more: open the address that “anitalk review” printed. Nothing you said is lost.");
  const count = store.box.length;
  const waiting = count ? `${count === 1 ? "1 decision waits" : `${count} decisions wait`} here and will be sent` : "Go on; what you say is kept here and sent";
  const why = error?.status ? ` (${error.message})` : "";
  banner(`The server does not answer${why}. ${waiting} when it is back: nothing is lost.`);
}

// ---- keys ------------------------------------------------------------------------------------------------------------

function relabel() {
  const now = store.shown(focus.id).domain?.domain ?? focus.row.domain;
  choose("Domain", store.setup.domains, now, (domain) => focus.say("domain", { domain }, `Domain: ${words(domain)}`));
}

function rename() {
  const now = store.shown(focus.id).identity?.identity_id ?? focus.row.who;
  const known = [...new Set(store.rows.filter((row) => row.source === focus.row.source).map((row) => store.shown(row.id).identity?.identity_id ?? row.who))];
  askText("Identity", { label: "Identity", value: now, options: known.sort(), pattern: ID_PATTERN, hint: "Letters, digits, - and _; clips of one identity never part between train and test." }, (identity_id) => focus.say("identity", { identity_id }, `Identity: ${identity_id}`));
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

function armReject(on) {
  rejecting = on;
  $("focus").classList.toggle("rejecting", on);
  toast(on ? "Reject: why? Press 1 to 9, or Escape." : "");
}

const ACTIONS = {
  a: () => onClip(() => focus.decide("accept")),
  r: () => armReject(!rejecting),
  u: () => onClip(() => focus.undo()),
  s: () => onClip(() => focus.skip()),
  " ": () => onClip(() => focus.skip()),
  c: () => onClip(() => focus.confirm()),
  d: () => onClip(relabel),
  i: () => onClip(rename),
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

function pressed(event) {
  focus.player.touched();
  if (event.ctrlKey || event.metaKey || (event.altKey && !"[]".includes(event.key)) || $("dialog").open) return;
  const typing = event.target.matches("input, select, textarea");
  if (event.key === "Escape") {
    if (rejecting) armReject(false);
    else if (typing) event.target.blur();
    else if (!inGrid) view("grid");
    return;
  }
  if (typing) return;
  if (event.target.matches("button") && (event.key === " " || event.key === "Enter")) return; // it is pressed by them
  if (inGrid && grid.key(event)) return event.preventDefault();
  if (event.key === "/") {
    event.preventDefault();
    if (!inGrid) view("grid");
    return $("filters").elements.text.focus();
  }
  const reason = store.setup.reasons[Number(event.key) - 1];
  if (event.key !== " " && reason) {
    event.preventDefault();
    if (rejecting) armReject(false);
    focus.player.asked = event.timeStamp;
    onClip(() => focus.decide("reject", { reason }));
    focus.player.asked = null;
    return undefined;
  }
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  const action = ACTIONS[key];
  if (!action || (inGrid && FOCUS_ONLY.has(key)) || (!focus.row && !inGrid && key !== "?")) return;
  event.preventDefault();
  if (rejecting && key !== "r") armReject(false);
  focus.player.asked = event.timeStamp;
  action();
  focus.player.asked = null;
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
  document.addEventListener("pointerup", () => setTimeout(() => document.activeElement?.matches("button") && document.activeElement.blur()));
  store.addEventListener("states", ({ detail }) => {
    focus.changed(detail);
    if (inGrid) grid.update(detail);
    soonProgress();
  });
  store.addEventListener("rows", () => {
    grid.refill();
    focus.setList(grid.ids);
    if (focus.row && store.row(focus.id)?.v !== focus.row.v) focus.show(store.row(focus.id) ? focus.id : grid.ids[0]);
    soonProgress();
  });
  store.addEventListener("queue", () => {
    if (inGrid) return; // tiles do not move under somebody's eyes
    grid.refill();
    focus.reorder(grid.ids);
  });
  store.addEventListener("online", ({ detail }) => connection(detail));
  store.addEventListener("refused", ({ detail }) => toast(`Not taken: ${detail.error.message}`, "bad"));
}

async function begin() {
  const chosen = localStorage.getItem("theme");
  if (chosen) document.documentElement.dataset.theme = chosen;
  try {
    await store.open();
  } catch (error) {
    banner(error.status ? error.message : "The server does not answer: start it again, then load this page anew.");
    return;
  }
  focus = new Focus(store);
  grid = new Grid(store, { open: openClip, filtered: () => {} });
  grid.buildFilters();
  wire();
  grid.refill();
  $("reviewer").textContent = store.name;
  const wanted = location.hash.slice(1);
  if (store.row(wanted)) focus.id = wanted;
  focus.setList(grid.ids);
  if (focus.id) focus.show(focus.id);
  paintProgress();
  if (!store.setup.num_clips) banner("There are no finished clips in this workspace yet.");
  performance.mark("ready");
}

begin();
