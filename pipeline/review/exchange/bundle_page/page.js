// @ts-check
// The page of a bundle. Titles and names come from strangers' files: everything is set as text, nothing as markup.

import { $, el, reasonText, verdictText, words } from "../../static/dom.js";
import { DecisionLog } from "./log.js";

/** @type {{id: string, blank: object, reasons: string[], clips: BundleClip[]}} */
const bundle = JSON.parse($("bundle").textContent ?? "");
const clips = new Map(bundle.clips.map((clip) => [clip.id, clip]));
const decisions = new DecisionLog(`anitalk-review-${bundle.id}`, (sentence) => say(sentence, true));
let shown = bundle.clips;
let current = 0;

/** @param {string} text @param {boolean} [loud] */
function say(text, loud = false) {
  $("status").textContent = text;
  $("status").className = loud ? "loud" : "";
}

// ---- deciding --------------------------------------------------------------------------------------------------

/** @param {Action} action @param {string} [reason] */
function decide(action, reason) {
  const clip = shown[current];
  if (!clip) return;
  if (!decisions.state.who.trim()) {
    $("who").focus();
    say("Write your name first: every decision bears it.", true);
    return;
  }
  const note = $("note").value;
  $("note").value = "";
  decisions.add(clip, { action, ...(reason ? { reason } : {}), ...(note ? { note } : {}) });
  const said = `${clip.id}: ${verdictText({ action, reason })}`;
  say(said);
  const atEnd = current + 1 >= shown.length;
  refresh();
  if (!atEnd) go(current + 1);
  else say(`${said}. That was the last one: save your decisions with S.`);
}

function undo() {
  const latest = decisions.inForce().at(-1);
  const clip = latest && clips.get(latest.clip_id);
  if (!clip) {
    say("There is nothing to undo.");
    return;
  }
  decisions.add(clip, { action: "undo", undoes: latest.number });
  say(`${latest.clip_id}: no longer ${verdictText(latest)}`);
  refresh();
  const position = shown.indexOf(clip);
  if (position >= 0) go(position);
}

// ---- the file that goes back -----------------------------------------------------------------------------------

async function save() {
  if (!decisions.length) {
    say("There is nothing to save yet.");
    return;
  }
  if (!globalThis.crypto?.subtle) {
    say("This browser cannot make the file from here: open the page in Chromium, Edge or Firefox.", true);
    return;
  }
  const lines = (await decisions.records(bundle.blank)).map((record) =>
    JSON.stringify(Object.fromEntries(Object.entries(record).filter(([, value]) => value !== null))));
  const link = el("a");
  link.href = URL.createObjectURL(new Blob([lines.join("\n") + "\n"], { type: "application/jsonl" }));
  link.download = `decisions-${decisions.state.who.replace(/[^\p{L}\p{N}_-]+/gu, "-")}.jsonl`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
  decisions.saved();
  say(`${link.download} holds ${lines.length} decisions: send it back, 'anitalk review import' reads it.`);
}

// ---- what is seen ----------------------------------------------------------------------------------------------

/** @returns {HTMLElement[]} */
const cards = () => [...$("grid").querySelectorAll("button")];

function refresh() {
  const verdicts = decisions.verdicts(bundle.clips);
  $("progress").textContent = `${verdicts.size} of ${bundle.clips.length} judged`;
  for (const card of cards()) {
    const verdict = verdicts.get(card.dataset.id ?? "");
    card.className = `card ${verdict?.action ?? ""}`;
    card.lastElementChild?.replaceWith(el("span", { class: `word ${verdict?.action ?? ""}` }, verdictText(verdict)));
  }
  showVerdict();
}

function showVerdict() {
  const clip = shown[current];
  if (!clip) return;
  const verdict = decisions.verdicts(bundle.clips).get(clip.id);
  $("verdict").textContent = verdictText(verdict) + (verdict?.note ? ` – ${verdict.note}` : "");
  $("verdict").className = verdict?.action ?? "";
}

function showGrid() {
  const wanted = $("filter").value;
  const verdicts = decisions.verdicts(bundle.clips);
  shown = bundle.clips.filter((clip) => {
    const verdict = verdicts.get(clip.id);
    return wanted === "all" || (wanted === "todo" ? !verdict : verdict?.action === wanted);
  });
  current = 0;
  $("grid").replaceChildren(...shown.map(cardOf));
  if (!shown.length) say("No clip is like that.");
  refresh();
}

/** @param {BundleClip} clip @param {number} position */
function cardOf(clip, position) {
  const onclick = () => {
    go(position);
    open();
  };
  const onfocus = () => {
    current = position;
  };
  const picture = el("img", { src: `media/${clip.id}.jpg`, loading: "lazy", alt: "" });
  return el("button", { "data-id": clip.id, role: "listitem", onclick, onfocus }, picture, el("span", {}, clip.title), el("span", { class: "word" }));
}

function isOpen() {
  return !$("focus").hidden;
}

/** @param {number} position */
function go(position) {
  if (!shown.length) return;
  const moved = position !== current;
  current = Math.max(0, Math.min(position, shown.length - 1));
  if (isOpen()) {
    if (moved) $("note").value = "";
    show();
  } else {
    cards()[current].focus();
  }
}

function open() {
  if (!shown.length) return;
  $("grid").hidden = true;
  $("focus").hidden = false;
  scrollTo(0, 0);
  show();
}

function close() {
  $("video").pause();
  $("focus").hidden = true;
  $("grid").hidden = false;
  refresh();
  go(current);
}

/** @param {string} address */
function play(address) {
  const video = $("video");
  if (video.getAttribute("src") !== address) video.src = address;
  video.play().catch((error) => {
    if (error.name !== "NotAllowedError") return; // it was changed before it began
    video.muted = true; // sound needs a key or a click first
    video.play().catch(() => say("This browser does not play the clip.", true));
  });
}

function show() {
  const clip = shown[current];
  play(`media/${clip.id}.mp4`);
  $("name").textContent = `${current + 1} / ${shown.length}: ${clip.title}`;
  const facts = [["clip", clip.id], ["domain", clip.domain], ["licence", clip.license], ["credit", clip.credit],
    ["source", clip.address], ["length", `${clip.duration_s.toFixed(2)} s, ${clip.num_frames} frames`],
    ["filters", clip.filter]];
  $("facts").replaceChildren(...facts.filter(([, value]) => value)
    .flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, value)]));
  const rows = clip.scores.map((score) =>
    el("tr", { class: score.missed ? "missed" : "" }, el("td", {}, words(score.name)), el("td", {}, score.measured), el("td", {}, score.limit)));
  document.querySelector("#scores tbody")?.replaceChildren(...rows);
  showVerdict();
}

// ---- keys and buttons ------------------------------------------------------------------------------------------

function columns() {
  return Math.max(1, getComputedStyle($("grid")).gridTemplateColumns.split(" ").length);
}

function help() {
  $("help").hidden = !$("help").hidden;
  $("help-button").setAttribute("aria-expanded", String(!$("help").hidden));
}

function pause() {
  const video = $("video");
  if (!isOpen()) return;
  if (video.paused) video.play();
  else video.pause();
}

/** @type {Record<string, () => void>} */
const keys = {
  ArrowRight: () => go(current + 1),
  ArrowLeft: () => go(current - 1),
  ArrowDown: () => !isOpen() && go(current + columns()),
  ArrowUp: () => !isOpen() && go(current - columns()),
  Enter: () => !isOpen() && open(),
  Escape: () => isOpen() && close(),
  g: () => isOpen() && close(),
  a: () => decide("accept"),
  u: undo,
  n: () => {
    open();
    $("note").focus();
  },
  s: save,
  m: () => {
    $("video").muted = !$("video").muted;
  },
  " ": pause,
  "?": help,
};
bundle.reasons.forEach((reason, index) => {
  keys[String(index + 1)] = () => decide("reject", reason);
});

addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const target = /** @type {HTMLElement} */ (event.target);
  if (target.matches("input, textarea, select")) {
    if (event.key === "Escape") target.blur();
    return;
  }
  const onButton = target.matches("button:not(.card)") && (event.key === "Enter" || event.key === " ");
  const act = keys[event.key.length === 1 ? event.key.toLowerCase() : event.key];
  if (!act || onButton) return;
  event.preventDefault();
  act();
});

$("note").addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey) return;
  event.preventDefault();
  const verdict = decisions.verdicts(bundle.clips).get(shown[current].id);
  $("note").blur();
  if (verdict && $("note").value) {
    const position = current;
    decide(verdict.action, verdict.reason ?? undefined);
    go(position);
  }
});

$("who").addEventListener("input", () => decisions.sign($("who").value));
$("who").addEventListener("keydown", (event) => {
  if (event.key === "Enter") go(current);
});
$("filter").addEventListener("change", () => {
  if (isOpen()) close();
  showGrid();
  $("filter").blur();
});
addEventListener("beforeunload", (event) => {
  if (decisions.unsaved && !decisions.keeps) event.preventDefault();
});

$("choices").replaceChildren(
  el("button", { onclick: () => decide("accept") }, el("kbd", {}, "A"), " Accept"),
  ...bundle.reasons.map((reason, index) =>
    el("button", { onclick: () => decide("reject", reason) }, el("kbd", {}, String(index + 1)), ` ${reasonText(reason)}`)),
);
/** @type {[string, () => void][]} */
const buttons = [
  ["save", save], ["undo", undo], ["back", close], ["help-button", help],
  ["next", () => go(current + 1)], ["before", () => go(current - 1)],
];
for (const [id, act] of buttons) $(id).addEventListener("click", act);

$("who").value = decisions.state.who;
showGrid();
