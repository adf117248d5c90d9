"use strict";
// Titles and names come from strangers' files: everything is set as text, nothing as markup.
// What was decided is only ever added to, as in the workspace that it goes back to; an undo names what it takes back.

const bundle = JSON.parse(document.getElementById("bundle").textContent);
const place = `anitalk-review-${bundle.id}`;
const at = (id) => document.getElementById(id);
const clips = new Map(bundle.clips.map((clip) => [clip.id, clip]));
let state = { who: "", log: [], saved: 0 };
let shown = bundle.clips;
let current = 0;
let keeps = true; // whether this browser stores anything for a page from a disk

function make(name, text, className) {
  const element = document.createElement(name);
  if (text !== undefined) element.textContent = text;
  if (className) element.className = className;
  return element;
}

function say(text, loud = false) {
  at("status").textContent = text;
  at("status").className = loud ? "loud" : "";
}

// ---- what was decided ------------------------------------------------------------------------------------------

function recall() {
  try {
    const found = localStorage.getItem(place);
    if (found) state = JSON.parse(found);
  } catch (error) {
    keeps = false;
    say(`This browser keeps nothing for this page (${error.name}): save your decisions before you close it.`, true);
  }
}

function keep() {
  if (!keeps) return;
  try {
    localStorage.setItem(place, JSON.stringify(state));
  } catch (error) {
    keeps = false;
    say(`This browser keeps no more (${error.name}): save your decisions before you close it.`, true);
  }
}

function inForce() {
  const undone = new Set(state.log.map((entry) => entry.undoes).filter((number) => number !== undefined));
  return state.log.map((entry, number) => ({ ...entry, number }))
    .filter((entry) => entry.action !== "undo" && !undone.has(entry.number));
}

function verdicts() {
  const found = new Map();
  for (const clip of bundle.clips) if (clip.verdict) found.set(clip.id, clip.verdict);
  for (const entry of inForce()) found.set(entry.clip_id, entry);
  return found;
}

function now() {
  return new Date().toISOString().replace("Z", "+00:00"); // as the tool writes it
}

function add(clip, fields) {
  if (keeps) recall(); // another window may have decided meanwhile
  const entry = { clip_id: clip.id, version: clip.version, who: state.who, at: now(), ...fields };
  state.log.push(entry);
  keep();
}

function decide(action, reason) {
  const clip = shown[current];
  if (!clip) return;
  if (!state.who.trim()) {
    at("who").focus();
    say("Write your name first: every decision bears it.", true);
    return;
  }
  const note = at("note").value;
  at("note").value = "";
  const fields = reason ? { action, reason } : { action };
  add(clip, note ? { ...fields, note } : fields);
  say(`${clip.id}: ${word({ action, reason })}`);
  const atEnd = current + 1 >= shown.length;
  refresh();
  if (!atEnd) go(current + 1);
  else say(`${clip.id}: ${word({ action, reason })}. That was the last one: save your decisions with S.`);
}

function undo() {
  const latest = inForce().at(-1);
  if (!latest) {
    say("There is nothing to undo.");
    return;
  }
  add(clips.get(latest.clip_id), { action: "undo", undoes: latest.number });
  say(`${latest.clip_id}: no longer ${word(latest)}`);
  refresh();
  const where = shown.findIndex((clip) => clip.id === latest.clip_id);
  if (where >= 0) go(where);
}

function word(entry) {
  if (!entry) return "not judged";
  return entry.action === "accept" ? "accepted" : `rejected: ${label(entry.reason)}`;
}

function label(reason) {
  return reason === "reviewer" ? "another reason" : String(reason).replaceAll("_", " ");
}

// ---- the file that goes back -----------------------------------------------------------------------------------

async function sha256(text) {
  const digest = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(text));
  return [...new Uint8Array(digest)].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

// The id of a review is computed from its words, so that a file that is saved twice says nothing twice.
async function records() {
  const found = [];
  for (const entry of state.log) {
    const record = { ...bundle.blank, ...entry };
    if (entry.undoes !== undefined) record.undoes = found[entry.undoes].review_id;
    const words = JSON.stringify(Object.fromEntries(Object.keys(record).sort().map((name) => [name, record[name]])));
    const stamp = record.at.replace(/\D/g, "").slice(0, 17);
    found.push({ review_id: `${stamp}-${(await sha256(words)).slice(0, 16)}`, ...record });
  }
  return found;
}

async function save() {
  if (!state.log.length) {
    say("There is nothing to save yet.");
    return;
  }
  if (!globalThis.crypto?.subtle) {
    say("This browser cannot make the file from here: open the page in Chromium, Edge or Firefox.", true);
    return;
  }
  const lines = (await records()).map((record) =>
    JSON.stringify(Object.fromEntries(Object.entries(record).filter(([, value]) => value !== null))));
  const link = make("a");
  link.href = URL.createObjectURL(new Blob([lines.join("\n") + "\n"], { type: "application/jsonl" }));
  link.download = `decisions-${state.who.replace(/[^\p{L}\p{N}_-]+/gu, "-")}.jsonl`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
  state.saved = state.log.length;
  keep();
  say(`${link.download} holds ${lines.length} decisions: send it back, 'anitalk review import' reads it.`);
}

// ---- what is seen ----------------------------------------------------------------------------------------------

function refresh() {
  const found = verdicts();
  at("progress").textContent = `${found.size} of ${bundle.clips.length} judged`;
  for (const card of at("grid").children) {
    const entry = found.get(card.dataset.id);
    card.className = `card ${entry ? entry.action : ""}`;
    card.lastChild.textContent = word(entry);
    card.lastChild.className = `word ${entry ? entry.action : ""}`;
  }
  showVerdict(found);
}

function showVerdict(found) {
  const clip = shown[current];
  if (!clip) return;
  const entry = found.get(clip.id);
  at("verdict").textContent = word(entry) + (entry?.note ? ` – ${entry.note}` : "");
  at("verdict").className = entry ? entry.action : "";
}

function showGrid() {
  const wanted = at("filter").value;
  const found = verdicts();
  shown = bundle.clips.filter((clip) => {
    const entry = found.get(clip.id);
    return wanted === "all" || (wanted === "todo" ? !entry : entry?.action === wanted);
  });
  current = 0;
  at("grid").replaceChildren(...shown.map((clip, number) => {
    const card = make("button");
    card.dataset.id = clip.id;
    card.setAttribute("role", "listitem");
    const picture = make("img");
    picture.src = `media/${clip.id}.jpg`;
    picture.loading = "lazy";
    picture.alt = "";
    card.append(picture, make("span", clip.title), make("span", "", "word"));
    card.addEventListener("click", () => { go(number); open(); });
    card.addEventListener("focus", () => { current = number; });
    return card;
  }));
  if (!shown.length) say("No clip is like that.");
  refresh();
}

function isOpen() {
  return !at("focus").hidden;
}

function go(number) {
  if (!shown.length) return;
  const moved = number !== current;
  current = Math.max(0, Math.min(number, shown.length - 1));
  if (isOpen()) {
    if (moved) at("note").value = "";
    show();
  } else {
    at("grid").children[current].focus();
  }
}

function open() {
  if (!shown.length) return;
  at("grid").hidden = true;
  at("focus").hidden = false;
  scrollTo(0, 0);
  show();
}

function close() {
  at("video").pause();
  at("focus").hidden = true;
  at("grid").hidden = false;
  refresh();
  go(current);
}

function show() {
  const clip = shown[current];
  const video = at("video");
  const address = `media/${clip.id}.mp4`;
  if (video.getAttribute("src") !== address) video.src = address;
  video.play().catch((error) => {
    if (error.name !== "NotAllowedError") return; // it was changed before it began
    video.muted = true; // sound needs a key or a click first
    video.play().catch(() => say("This browser does not play the clip.", true));
  });
  at("name").textContent = `${current + 1} / ${shown.length}: ${clip.title}`;
  const facts = [["clip", clip.id], ["domain", clip.domain], ["licence", clip.license], ["credit", clip.credit],
    ["source", clip.address], ["length", `${clip.duration_s.toFixed(2)} s, ${clip.num_frames} frames`],
    ["filters", clip.filter]];
  at("facts").replaceChildren(...facts.filter(([, value]) => value)
    .flatMap(([name, value]) => [make("dt", name), make("dd", value)]));
  at("scores").tBodies[0].replaceChildren(...clip.scores.map((score) => {
    const row = make("tr", undefined, score.missed ? "missed" : "");
    row.append(make("td", label(score.name)), make("td", score.measured), make("td", score.limit));
    return row;
  }));
  showVerdict(verdicts());
}

// ---- keys and buttons ------------------------------------------------------------------------------------------

function columns() {
  return Math.max(1, getComputedStyle(at("grid")).gridTemplateColumns.split(" ").length);
}

const keys = {
  ArrowRight: () => go(current + 1),
  ArrowLeft: () => go(current - 1),
  ArrowDown: () => { if (!isOpen()) go(current + columns()); },
  ArrowUp: () => { if (!isOpen()) go(current - columns()); },
  Enter: () => { if (!isOpen()) open(); },
  Escape: () => { if (isOpen()) close(); },
  g: () => { if (isOpen()) close(); },
  a: () => decide("accept"),
  u: undo,
  n: () => { open(); at("note").focus(); },
  s: save,
  m: () => { at("video").muted = !at("video").muted; },
  " ": () => { if (isOpen()) at("video").paused ? at("video").play() : at("video").pause(); },
  "?": help,
};
bundle.reasons.forEach((reason, number) => { keys[String(number + 1)] = () => decide("reject", reason); });

function help() {
  at("help").hidden = !at("help").hidden;
  at("help-button").setAttribute("aria-expanded", String(!at("help").hidden));
}

addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.matches("input, textarea, select")) {
    if (event.key === "Escape") event.target.blur();
    return;
  }
  const onButton = event.target.matches("button:not(.card)") && (event.key === "Enter" || event.key === " ");
  const act = keys[event.key.length === 1 ? event.key.toLowerCase() : event.key];
  if (!act || onButton) return;
  event.preventDefault();
  act();
});

at("note").addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey) return;
  event.preventDefault();
  const entry = verdicts().get(shown[current].id);
  at("note").blur();
  if (entry && at("note").value) {
    const number = current;
    decide(entry.action, entry.reason);
    go(number);
  }
});

at("who").addEventListener("input", () => {
  if (keeps) recall();
  state.who = at("who").value;
  keep();
});
at("who").addEventListener("keydown", (event) => {
  if (event.key === "Enter") go(current);
});
at("filter").addEventListener("change", () => {
  if (isOpen()) close();
  showGrid();
  at("filter").blur();
});
addEventListener("beforeunload", (event) => {
  if (state.log.length > state.saved && !keeps) event.preventDefault();
});

const choices = [["accept", undefined, "a"], ...bundle.reasons.map((reason, number) => ["reject", reason, number + 1])];
at("choices").replaceChildren(...choices.map(([action, reason, key]) => {
  const button = make("button");
  button.append(make("kbd", String(key).toUpperCase()), ` ${action === "accept" ? "Accept" : label(reason)}`);
  button.addEventListener("click", () => decide(action, reason));
  return button;
}));
for (const [id, act] of [["save", save], ["undo", undo], ["back", close], ["help-button", help],
  ["next", () => go(current + 1)], ["before", () => go(current - 1)]]) {
  at(id).addEventListener("click", act);
}

recall();
at("who").value = state.who;
showGrid();
