// @ts-check
// All clips as tiles. Only the tiles in sight exist, so ten thousand clips scroll like fifty.

import { $, el, reasonText, seconds, words } from "./dom.js";
import { KINDS, listed } from "./filters.js";
import { stateText } from "./panel.js";

/** @typedef {import("./store.js").Store} Store */

const GAP = 10;
const LABEL_PX = 46;
const WANTED_PX = 168;
const SPARE_ROWS = 2;
const RESTING_MS = 70;
/** @type {Record<string, string>} */
const BADGES = { accept: "✓", reject: "✕", blind: "?" };

/** @param {HTMLElement} tile */
function loadPicture(tile) {
  const picture = tile.querySelector("img");
  if (picture && !picture.hasAttribute("src")) picture.src = picture.dataset.src ?? "";
}

/** A picture that is still on its way would hold up the next clip. @param {HTMLElement} tile */
function drop(tile) {
  tile.querySelector("img")?.removeAttribute("src");
  tile.remove();
}

/** @param {HTMLElement} label of a select @param {string[]} names to be chosen from, beside those that are there */
function addOptions(label, names) {
  const select = label.querySelector("select");
  if (!select) return;
  const known = new Set([...select.options].map((option) => option.value));
  for (const name of [...new Set(names)].sort()) if (!known.has(name)) select.append(el("option", { value: name }, words(name)));
}

/** @implements {ClipView} */
export class Grid {
  /** @param {Store} store @param {(id: string) => void} open called with the clip that is to be shown alone */
  constructor(store, open) {
    this.store = store;
    this.open = open;
    /** @type {Filters} */
    this.filters = { sort: "unsure" };
    /** @type {string[]} */
    this.ids = [];
    this.selected = 0;
    /** @type {Map<number, HTMLElement>} */
    this.tiles = new Map();
    this.columns = 1;
    this.side = WANTED_PX;
    this.step = WANTED_PX + LABEL_PX + GAP;
    /** @type {ReturnType<typeof setTimeout> | undefined} */
    this.resting = undefined;
    this.form = $("filters");
    /** @type {HTMLElement} */
    this.whoSelect = this.form;
    /** @type {HTMLElement} */
    this.flagSelect = this.form;
    this.box = $("tiles");
    this.inner = $("tiles-inner");
    this.box.addEventListener("scroll", () => this.paint(), { passive: true });
    new ResizeObserver(() => this.paint(true)).observe(this.box);
    this.inner.addEventListener("click", (event) => {
      const tile = /** @type {Element} */ (event.target).closest(".tile");
      if (!(tile instanceof HTMLElement)) return;
      this.select(Number(tile.dataset.place));
      this.open(this.ids[this.selected]);
    });
  }

  // ---- filters ------------------------------------------------------------------------------------------------------

  buildFilters() {
    const { setup } = this.store;
    /** @param {string} name @returns {[string, string]} */
    const pair = (name) => [name, words(name)];
    /** @param {string} name @param {string} label @param {[string, string][]} options */
    const choice = (name, label, options) =>
      el("label", {}, el("span", { class: "hidden" }, label), el("select", { name, onchange: () => this.readFilters() }, ...options.map(([value, text]) => el("option", { value }, text))));
    this.whoSelect = choice("who", "Reviewer", [["", "Any reviewer"]]);
    this.flagSelect = choice("flag", "Flag", [["", "Any flag"]]);
    const reasons = [...new Set([...setup.reasons, ...this.store.clips.rows.flatMap((row) => row.missed ?? [])])];
    this.form.replaceChildren(
      choice("domain", "Domain", [["", "All domains"], ...setup.domains.map(pair)]),
      choice("verdict", "Verdict", [["", "Any verdict"], ["open", "undecided"], ["accept", "accepted"], ["reject", "rejected"], ["kept", "within limits"], ["missed", "outside limits"]]),
      choice("reason", "Reason", [["", "Any reason"], ...reasons.map((name) => /** @type {[string, string]} */ ([name, reasonText(name)]))]),
      this.whoSelect,
      this.flagSelect,
      choice("sort", "Order", [["unsure", "Unsure first"], ["source", "By source"]]),
      el("label", { class: "tick" }, el("input", { type: "checkbox", name: "stale", onchange: () => this.readFilters() }), "earlier version"),
      el("label", { class: "search" }, el("span", { class: "hidden" }, "Search"), el("input", { type: "search", name: "text", placeholder: "Search  /", oninput: () => this.readFilters() })),
      el("button", { type: "button", class: "plain", onclick: () => this.clear() }, "Clear"),
      el("output", { class: "count", id: "count" }),
    );
    this.form.addEventListener("submit", (event) => event.preventDefault());
    this.fillNames();
  }

  fillNames() {
    const { rows, states } = this.store.clips;
    addOptions(this.whoSelect, [...states.values()].flatMap((state) => KINDS.flatMap((kind) => state[kind]?.who ?? [])));
    addOptions(this.flagSelect, rows.flatMap((row) => row.flags ?? []));
  }

  readFilters() {
    const given = new FormData(this.form);
    this.filters = { ...Object.fromEntries(given), stale: given.has("stale") };
    this.box.scrollTop = 0;
    this.selected = 0;
    this.refill();
  }

  clear() {
    this.form.reset();
    this.readFilters();
  }

  refill() {
    const kept = this.ids[this.selected];
    this.ids = listed(this.store.clips, this.store.setup.sources, this.filters);
    const place = this.ids.indexOf(kept);
    this.selected = place >= 0 ? place : Math.min(this.selected, Math.max(0, this.ids.length - 1));
    const count = $("count");
    if (count) count.textContent = `${this.ids.length} of ${this.store.clips.rows.length}`;
    this.paint(true);
  }

  // ---- tiles --------------------------------------------------------------------------------------------------------

  measure() {
    const width = this.box.clientWidth - 2 * GAP;
    this.columns = Math.max(1, Math.floor((width + GAP) / (WANTED_PX + GAP)));
    this.side = Math.floor((width - GAP * (this.columns - 1)) / this.columns);
    this.step = this.side + LABEL_PX + GAP;
  }

  /** @param {boolean} [all] the tiles in sight too, not only those that came into it */
  paint(all = false) {
    if (!this.box.clientWidth) return;
    if (all) {
      this.measure();
      for (const tile of this.tiles.values()) drop(tile);
      this.tiles.clear();
      this.inner.style.height = `${Math.ceil(this.ids.length / this.columns) * this.step + GAP}px`;
      this.inner.classList.toggle("empty", !this.ids.length);
    }
    const first = Math.max(0, Math.floor(this.box.scrollTop / this.step) - SPARE_ROWS) * this.columns;
    const rows = Math.ceil(this.box.clientHeight / this.step) + 2 * SPARE_ROWS;
    const last = Math.min(this.ids.length, first + rows * this.columns);
    for (const [place, tile] of this.tiles) {
      if (place >= first && place < last) continue;
      drop(tile);
      this.tiles.delete(place);
    }
    for (let place = first; place < last; place++) {
      if (this.tiles.has(place)) continue;
      const tile = this.tile(place);
      this.tiles.set(place, tile);
      this.inner.append(tile);
    }
    this.mark();
    // Tiles that fly past are not worth a picture.
    clearTimeout(this.resting);
    this.resting = setTimeout(() => this.tiles.forEach(loadPicture), RESTING_MS);
  }

  /** @param {number} place */
  tile(place) {
    const id = this.ids[place];
    const row = /** @type {Row} */ (this.store.clips.row(id));
    const state = this.store.clips.shown(id);
    const kind = state.blind ? "blind" : (state.verdict?.action ?? "open");
    const badge = BADGES[kind] ?? "";
    const title = this.store.setup.sources[row.source].title;
    const tile = el(
      "div",
      { class: `tile ${kind}`, role: "option", id: `tile-${place}`, "data-place": String(place), "aria-setsize": String(this.ids.length), "aria-posinset": String(place + 1), "aria-label": `${title}, ${seconds(row.frames / row.fps)}, ${stateText(state)}` },
      el(
        "div",
        { class: "picture" },
        el("img", { "data-src": `/thumbs/${row.id}/${row.v}`, alt: "", draggable: "false" }),
        badge ? el("span", { class: "badge" }, badge) : null,
        state.stale ? el("span", { class: "badge anew", title: "said of an earlier version" }, "↻") : null,
        el("span", { class: "length" }, seconds(row.frames / row.fps)),
      ),
      el("p", { class: "name" }, title),
      el("p", { class: "sub" }, el("span", {}, words(state.domain?.domain ?? row.domain)), this.remark(row, state)),
    );
    const [column, line] = [place % this.columns, Math.floor(place / this.columns)];
    tile.style.transform = `translate(${GAP + column * (this.side + GAP)}px, ${GAP + line * this.step}px)`;
    tile.style.width = `${this.side}px`;
    return tile;
  }

  /** @param {Row} row @param {ClipState} state */
  remark(row, state) {
    if (state.verdict?.action === "reject") return el("span", { class: "bad" }, reasonText(state.verdict.reason));
    if (state.verdict || !row.missed) return "";
    return el("span", { class: "warn" }, words(row.missed));
  }

  /** @param {string[]} ids */
  update(ids) {
    for (const id of ids) {
      for (const [place, tile] of this.tiles) {
        if (this.ids[place] !== id) continue;
        const fresh = this.tile(place);
        loadPicture(fresh);
        tile.replaceWith(fresh);
        this.tiles.set(place, fresh);
      }
    }
    this.mark();
  }

  mark() {
    for (const [place, tile] of this.tiles) tile.setAttribute("aria-selected", String(place === this.selected));
    this.box.setAttribute("aria-activedescendant", this.ids.length ? `tile-${this.selected}` : "");
  }

  get row() {
    return this.store.clips.row(this.ids[this.selected]);
  }

  advance() {
    this.select(this.selected + 1);
  }

  /** @param {number} place */
  select(place) {
    this.selected = Math.min(this.ids.length - 1, Math.max(0, place));
    const top = Math.floor(this.selected / this.columns) * this.step;
    if (top < this.box.scrollTop) this.box.scrollTop = top;
    if (top + this.step + GAP > this.box.scrollTop + this.box.clientHeight) this.box.scrollTop = top + this.step + GAP - this.box.clientHeight;
    this.paint();
  }

  /** @param {string} id */
  show(id) {
    const place = this.ids.indexOf(id);
    if (place >= 0) this.select(place);
  }

  /** @param {KeyboardEvent} event */
  key(event) {
    const page = Math.max(1, Math.floor(this.box.clientHeight / this.step)) * this.columns;
    /** @type {Record<string, number>} */
    const ways = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -this.columns, ArrowDown: this.columns, PageUp: -page, PageDown: page };
    if (event.key in ways) this.select(this.selected + ways[event.key]);
    else if (event.key === "Home") this.select(0);
    else if (event.key === "End") this.select(this.ids.length - 1);
    else if (event.key === "Enter" && this.ids.length) this.open(this.ids[this.selected]);
    else return false;
    return true;
  }
}
