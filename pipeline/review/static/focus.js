// One clip at a time: it plays, everything known of it stands beside it, and one key decides.

import { Curve } from "./curve.js";
import { toast } from "./dialogs.js";
import { $, el, reasonText, words } from "./dom.js";
import { drawOverlay, unpack } from "./overlay.js";
import { paintDetail, paintTitle, reviewText } from "./panel.js";
import { Player } from "./player.js";

const KEPT_ARRAYS = 12;

export class Focus {
  constructor(store) {
    this.store = store;
    this.list = [];
    this.id = null;
    this.skipped = new Set();
    this.reordered = false; // the list has another order since this clip was shown: go on from its top
    this.arrays = new Map();
    this.shown = JSON.parse(localStorage.getItem("overlays") || '{"landmarks":true,"pose":false,"box":false}');
    this.player = new Player($("screen"));
    this.curve = new Curve($("curve"), { seek: (frame) => this.player.seek(frame), step: (way) => this.player.step(way) });
    this.player.addEventListener("frame", () => this.frame());
    this.player.addEventListener("playing", () => this.paintTransport());
    this.player.addEventListener("broken", () => {
      if (!this.store.online) this.note("The server does not answer; the clip is loaded when it is back.");
      else if ($("screen-note").hidden) this.note("This clip cannot be played."); // the server may have said why
    });
    this.player.addEventListener("blocked", () => this.note("The browser does not let it play: press k."));
    new ResizeObserver(() => this.frame()).observe($("screen"));
    this.buildReasons();
    this.paintOverlays();
  }

  buildReasons() {
    const { reasons } = this.store.setup;
    $("reasons").replaceChildren(
      ...reasons.map((reason, k) =>
        el("button", { type: "button", class: "reject", "data-reason": reason, onclick: () => this.decide("reject", { reason }) }, el("kbd", {}, String(k + 1)), el("span", {}, reasonText(reason))),
      ),
    );
  }

  // ---- where in the list --------------------------------------------------------------------------------------------

  setList(ids) {
    this.list = ids;
    if (this.id && !ids.includes(this.id)) this.list = [this.id, ...ids];
    if (!this.id && ids.length) this.show(this.nextOpen(-1) ?? ids[0]);
    else if (this.id) this.paintPlace();
  }

  nextOpen(from) {
    const count = this.list.length;
    for (let k = 1; k <= count; k++) {
      const id = this.list[(from + k + count) % count];
      if (id !== this.id && this.store.isOpen(id) && !this.skipped.has(id) && this.store.row(id)) return id;
    }
    return undefined;
  }

  // What the last verdicts have taught puts other clips first.
  reorder(ids) {
    this.reordered ||= ids.some((id, place) => id !== this.list[place]);
    this.setList(ids);
    this.paint();
    this.loadNext();
  }

  following() {
    return this.nextOpen(this.reordered ? -1 : this.list.indexOf(this.id));
  }

  advance() {
    const next = this.following();
    this.reordered = false;
    if (next) return this.show(next);
    if (this.skipped.size) {
      const count = this.skipped.size;
      this.skipped.clear();
      const again = this.nextOpen(-1);
      if (again) {
        toast(`The end: ${count} skipped ${count === 1 ? "clip comes" : "clips come"} again.`);
        return this.show(again);
      }
    }
    toast("Every clip of this list is decided.", "good");
    return this.paint();
  }

  // By the queue as it stands now, not by the list.
  nextUnsure() {
    const waiting = this.list.filter((id) => id !== this.id && this.store.isOpen(id) && !this.skipped.has(id));
    const last = this.store.rank.size + 1;
    const next = waiting.sort((a, b) => (this.store.rank.get(a) ?? last) - (this.store.rank.get(b) ?? last))[0];
    if (next) this.show(next);
    else this.advance();
  }

  move(way) {
    const place = this.list.indexOf(this.id) + way;
    if (place >= 0 && place < this.list.length) this.show(this.list[place]);
  }

  // ---- showing ------------------------------------------------------------------------------------------------------

  show(id) {
    const row = this.store.row(id);
    if (!row) return;
    this.id = id;
    this.row = row;
    this.now = null;
    this.note("");
    drawOverlay($("overlay"), null, 0, 1, this.shown);
    this.player.show(row, this.trim());
    this.paint();
    this.load(id);
    this.loadNext();
    history.replaceState(null, "", `#${id}`);
  }

  trim() {
    return this.store.shown(this.id).trim?.trim ?? null;
  }

  async load(id) {
    const row = this.row;
    try {
      const [detail, arrays] = await Promise.all([this.store.detail(id), this.arraysOf(row)]);
      if (this.id !== id) return;
      this.detail = detail;
      this.now = arrays;
      paintDetail(this.store, detail, this.store.shown(id), (other) => this.show(other));
      this.curve.set(arrays, row.frames, this.trim());
      this.frame();
    } catch (error) {
      if (this.id === id && this.store.online && error.status) this.note(error.message);
    }
  }

  arraysOf(row) {
    const key = row.v;
    if (!this.arrays.has(key)) {
      const found = fetch(`/arrays/${row.id}/${row.v}`).then(async (answer) => {
        if (!answer.ok) throw Object.assign(new Error((await answer.json()).error), { status: answer.status });
        return unpack(await answer.arrayBuffer());
      });
      this.arrays.set(key, found);
      found.catch(() => this.arrays.delete(key));
      if (this.arrays.size > KEPT_ARRAYS) this.arrays.delete(this.arrays.keys().next().value);
    }
    return this.arrays.get(key);
  }

  loadNext() {
    const next = this.following();
    if (!next) return;
    const row = this.store.row(next);
    this.player.preload(row, this.store.shown(next).trim?.trim);
    this.arraysOf(row).catch(() => {}); // it is asked for again, and complained of, when it is shown
    this.store.detail(next).catch(() => {});
  }

  paint() {
    if (!this.row) return;
    const state = this.store.shown(this.id);
    paintTitle(this.store, this.row, state);
    this.paintPlace();
    $("confirm").disabled = !state.stale;
    for (const button of $("reasons").children) button.setAttribute("aria-pressed", String(state.verdict?.reason === button.dataset.reason));
    $("accept").setAttribute("aria-pressed", String(state.verdict?.action === "accept"));
    this.player.trim = this.trim();
    if (this.now) this.curve.set(this.now, this.row.frames, this.trim());
  }

  paintPlace() {
    const node = document.querySelector("#title .place");
    if (node) node.textContent = `${this.list.indexOf(this.id) + 1} of ${this.list.length}`;
  }

  // Somebody, here or elsewhere, said something of clips.
  changed(ids) {
    if (!ids.includes(this.id)) return;
    this.paint();
    this.load(this.id);
  }

  frame() {
    if (!this.row) return;
    const frame = this.player.frame ?? 0;
    $("time").textContent = `${frame} / ${this.row.frames}`;
    drawOverlay($("overlay"), this.now, frame, this.detail?.size_px ?? 512, this.shown);
    if (this.now) this.curve.play(frame);
  }

  note(text) {
    const node = $("screen-note");
    node.textContent = text;
    node.hidden = !text;
  }

  paintTransport() {
    const { player } = this;
    $("play").textContent = player.paused ? "▶" : "❚❚";
    $("rate").textContent = `${player.rate}×`;
    $("sound").hidden = player.sound || player.muted;
    $("mute").setAttribute("aria-pressed", String(!player.muted && player.sound));
  }

  paintOverlays() {
    for (const name of ["landmarks", "pose", "box"]) $(`show-${name}`).setAttribute("aria-pressed", String(this.shown[name]));
  }

  toggle(name) {
    this.shown[name] = !this.shown[name];
    localStorage.setItem("overlays", JSON.stringify(this.shown));
    this.paintOverlays();
    this.frame();
  }

  // ---- saying -------------------------------------------------------------------------------------------------------

  decide(action, more = {}) {
    if (!this.row) return;
    const body = this.store.say(this.row, action, more);
    toast(`${action === "accept" ? "Accepted" : `Rejected: ${reasonText(body.reason)}`}. u undoes it.`, action === "accept" ? "good" : "bad");
    this.advance();
  }

  say(action, more, text) {
    this.store.say(this.row, action, more);
    toast(`${text}. u undoes it.`);
    this.paint();
  }

  cut(side) {
    const [start, stop] = this.trim() ?? [0, this.row.frames];
    const { frame } = this.player;
    const wanted = side === "in" ? [frame, stop] : [start, frame + 1];
    if (wanted[0] >= wanted[1]) return toast("It would end before it begins.", "bad");
    return this.say("trim", { trim: { start: wanted[0], stop: wanted[1] } }, `Cut to frames ${wanted[0]} to ${wanted[1]}`);
  }

  skip() {
    this.skipped.add(this.id);
    this.advance();
  }

  undo() {
    const undone = this.store.undo();
    if (!undone) return toast("There is nothing of yours to undo.");
    toast(`Undone: ${words(undone.action)}.`);
    this.skipped.delete(undone.clip_id);
    return this.show(undone.clip_id);
  }

  confirm() {
    const { stale } = this.store.shown(this.id);
    if (!stale) return toast("Nothing here was said of an earlier version.");
    const kept = stale.filter((review) => review.action !== "trim");
    const cut = kept.length === stale.length ? "" : "The cut named frames of another version: make it anew with [ and ].";
    if (!kept.length) return toast(cut, "bad");
    for (const { action, reason, domain, identity_id } of kept) {
      const more = Object.fromEntries(Object.entries({ reason, domain, identity_id }).filter(([, value]) => value));
      this.store.say(this.row, action, more);
    }
    toast(`Confirmed: ${kept.map(reviewText).join(", ")}. u undoes it. ${cut}`, cut ? "" : "good");
    return cut ? this.paint() : this.advance();
  }
}
