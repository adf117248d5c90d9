// @ts-check
// One clip at a time: it plays, everything known of it stands beside it, and one key decides.

import { Curve } from "./curve.js";
import { toast } from "./dialogs.js";
import { $, el, reasonText } from "./dom.js";
import { drawOverlay, unpack } from "./overlay.js";
import { paintDetail, paintTitle } from "./panel.js";
import { Player } from "./player.js";
import { Refused } from "./transport.js";

/** @typedef {import("./store.js").Store} Store */
/** @typedef {import("./decisions.js").Decisions} Decisions */

const KEPT_ARRAYS = 12;
/** @type {(keyof Overlays)[]} */
const OVERLAYS = ["landmarks", "pose", "box"];

/** @implements {ClipView} */
export class Focus {
  /** @param {Store} store @param {Decisions} decisions */
  constructor(store, decisions) {
    this.store = store;
    this.decisions = decisions;
    /** @type {string[]} */
    this.list = [];
    /** @type {string | null} */
    this.id = null;
    /** @type {Row | undefined} */
    this.row = undefined;
    /** @type {Detail | null} */
    this.detail = null;
    /** @type {Arrays | null} of the clip that is shown */
    this.now = null;
    this.reordered = false; // the list has another order since this clip was shown: go on from its top
    /** @type {Map<string, Promise<Arrays>>} */
    this.arrays = new Map();
    /** @type {Overlays} */
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
        el(
          "button",
          { type: "button", class: "reject", "data-reason": reason, onclick: () => this.decisions.decide(this, "reject", { reason }) },
          el("kbd", {}, String(k + 1)),
          el("span", {}, reasonText(reason)),
        ),
      ),
    );
  }

  // ---- where in the list --------------------------------------------------------------------------------------------

  /** @param {string[]} ids */
  setList(ids) {
    this.list = ids;
    if (this.id && !ids.includes(this.id)) this.list = [this.id, ...ids];
    if (!this.id && ids.length) this.show(this.nextOpen(-1) ?? ids[0]);
    else if (this.id) this.paintPosition();
  }

  /** @param {string} id */
  waits(id) {
    return id !== this.id && this.store.clips.isOpen(id) && !this.decisions.skipped.has(id);
  }

  /** @param {number} from a place in the list */
  nextOpen(from) {
    const count = this.list.length;
    for (let k = 1; k <= count; k++) {
      const id = this.list[(from + k + count) % count];
      if (this.waits(id) && this.store.clips.row(id)) return id;
    }
    return undefined;
  }

  /** What the last verdicts have taught puts other clips first. @param {string[]} ids */
  reorder(ids) {
    this.reordered ||= ids.some((id, position) => id !== this.list[position]);
    this.setList(ids);
    this.paint();
    this.loadNext();
  }

  following() {
    return this.nextOpen(this.reordered || !this.id ? -1 : this.list.indexOf(this.id));
  }

  advance() {
    const next = this.following();
    this.reordered = false;
    if (next) {
      this.show(next);
      return;
    }
    const { skipped } = this.decisions;
    if (skipped.size) {
      const count = skipped.size;
      skipped.clear();
      const again = this.nextOpen(-1);
      if (again) {
        toast(`The end: ${count} skipped ${count === 1 ? "clip comes" : "clips come"} again.`);
        this.show(again);
        return;
      }
    }
    toast("Every clip of this list is decided.", "good");
    this.paint();
  }

  /** By the queue as it stands now, not by the list. */
  nextUnsure() {
    const { rank } = this.store.clips;
    const last = rank.size + 1;
    const waiting = this.list.filter((id) => this.waits(id));
    const next = waiting.sort((a, b) => (rank.get(a) ?? last) - (rank.get(b) ?? last))[0];
    if (next) this.show(next);
    else this.advance();
  }

  /** @param {number} way */
  move(way) {
    const position = this.id ? this.list.indexOf(this.id) + way : -1;
    if (position >= 0 && position < this.list.length) this.show(this.list[position]);
  }

  // ---- showing ------------------------------------------------------------------------------------------------------

  /** @param {string} id */
  show(id) {
    const row = this.store.clips.row(id);
    if (!row) return;
    this.id = id;
    this.row = row;
    this.now = null;
    this.note("");
    drawOverlay($("overlay"), null, 0, 1, this.shown);
    this.player.show(row, this.trim());
    this.paint();
    this.load(row);
    this.loadNext();
    history.replaceState(null, "", `#${id}`);
  }

  trim() {
    return this.store.clips.shown(this.id).trim?.trim ?? null;
  }

  /** @param {Row} row */
  async load(row) {
    const { id } = row;
    try {
      const [detail, arrays] = await Promise.all([this.store.detail(id), this.arraysOf(row)]);
      if (this.id !== id) return;
      this.detail = detail;
      this.now = arrays;
      paintDetail(this.store, detail, this.store.clips.shown(id), (other) => this.show(other));
      this.curve.set(arrays, row.frames, this.trim());
      this.frame();
    } catch (error) {
      if (this.id === id && this.store.online && error instanceof Refused) this.note(error.message);
    }
  }

  /** @param {Row} row @returns {Promise<Arrays>} */
  arraysOf(row) {
    let arrays = this.arrays.get(row.v);
    if (!arrays) {
      arrays = fetch(`/arrays/${row.id}/${row.v}`).then(async (answer) => {
        if (!answer.ok) throw new Refused((await answer.json()).error, answer.status);
        return unpack(await answer.arrayBuffer());
      });
      this.arrays.set(row.v, arrays);
      arrays.catch(() => this.arrays.delete(row.v));
      const [oldest] = this.arrays.keys();
      if (this.arrays.size > KEPT_ARRAYS) this.arrays.delete(oldest);
    }
    return arrays;
  }

  loadNext() {
    const next = this.following();
    const row = this.store.clips.row(next);
    if (!next || !row) return;
    this.player.preload(row, this.store.clips.shown(next).trim?.trim ?? null);
    this.arraysOf(row).catch(() => {}); // it is asked for again, and complained of, when it is shown
    this.store.detail(next).catch(() => {});
  }

  paint() {
    if (!this.row) return;
    const state = this.store.clips.shown(this.row.id);
    paintTitle(this.store, this.row, state);
    this.paintPosition();
    $("confirm").disabled = !state.stale;
    for (const button of $("reasons").querySelectorAll("button")) button.setAttribute("aria-pressed", String(state.verdict?.reason === button.dataset.reason));
    $("accept").setAttribute("aria-pressed", String(state.verdict?.action === "accept"));
    this.player.trim = this.trim();
    if (this.now) this.curve.set(this.now, this.row.frames, this.trim());
  }

  paintPosition() {
    const node = document.querySelector("#title .place");
    if (node && this.id) node.textContent = `${this.list.indexOf(this.id) + 1} of ${this.list.length}`;
  }

  /** Somebody, here or elsewhere, said something of clips. @param {string[]} ids */
  changed(ids) {
    if (!this.row || !ids.includes(this.row.id)) return;
    this.paint();
    this.load(this.row);
  }

  /** What could not be loaded is tried again. */
  retry() {
    this.player.retry();
    if (this.row) this.load(this.row);
  }

  frame() {
    if (!this.row) return;
    const frame = this.player.frame ?? 0;
    $("time").textContent = `${frame} / ${this.row.frames}`;
    drawOverlay($("overlay"), this.now, frame, this.detail?.size_px ?? 512, this.shown);
    if (this.now) this.curve.play(frame);
  }

  /** @param {string} text over the picture */
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
    for (const name of OVERLAYS) $(`show-${name}`).setAttribute("aria-pressed", String(this.shown[name]));
  }

  /** @param {keyof Overlays} name */
  toggle(name) {
    this.shown[name] = !this.shown[name];
    localStorage.setItem("overlays", JSON.stringify(this.shown));
    this.paintOverlays();
    this.frame();
  }

  /** The clip is to begin, or to end, at the frame that is shown. @param {"in" | "out"} side */
  cut(side) {
    if (!this.row) return;
    const [start, stop] = this.trim() ?? [0, this.row.frames];
    const { frame } = this.player;
    const wanted = side === "in" ? [frame, stop] : [start, frame + 1];
    if (wanted[0] >= wanted[1]) toast("It would end before it begins.", "bad");
    else this.decisions.say(this, this.row, "trim", { trim: { start: wanted[0], stop: wanted[1] } }, `Cut to frames ${wanted[0]} to ${wanted[1]}`);
  }
}
