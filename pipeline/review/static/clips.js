// @ts-check
// The clips that the page knows, what holds for each, and in which order they are asked about.

/** @param {{action: Action}} review @returns {Kind | "undo"} */
const kindOf = ({ action }) => (action === "accept" || action === "reject" ? "verdict" : action);

export class Clips {
  constructor() {
    /** @type {Row[]} */
    this.rows = [];
    /** @type {Map<string, number>} place in rows */
    this.index = new Map();
    /** @type {Map<string, ClipState>} what holds, as the server says */
    this.states = new Map();
    /** @type {Map<string, number>} place in the queue */
    this.rank = new Map();
    /** @type {Set<string>} clips of which a second look is wanted */
    this.blind = new Set();
    /** @type {Map<string, number | null>} how likely each clip of the queue is to be accepted; null before verdicts have taught it */
    this.chances = new Map();
  }

  /** @param {Row[]} rows */
  take(rows) {
    this.rows = rows.slice();
    this.index = new Map(rows.map((row, position) => [row.id, position]));
  }

  /** @param {{ids: string[], blind: string[], chances: (number | null)[]}} queue */
  takeQueue(queue) {
    this.rank = new Map(queue.ids.map((id, position) => [id, position]));
    this.blind = new Set(queue.blind);
    this.chances = new Map(queue.ids.map((id, position) => [id, queue.chances[position]]));
  }

  /** @param {string | null | undefined} id @returns {Row | undefined} */
  row(id) {
    const position = id ? this.index.get(id) : undefined;
    return position === undefined ? undefined : this.rows[position];
  }

  /** @param {string} id @param {ClipState | null} state */
  put(id, state) {
    if (state) this.states.set(id, state);
    else this.states.delete(id);
  }

  /** Show at once what the server will say: the latest word of each kind. @param {ReviewBody} body */
  apply(body) {
    const kind = kindOf(body);
    if (kind === "undo") return;
    const { version: _, trim, ...fields } = body;
    const state = { ...(this.states.get(body.clip_id) ?? {}) };
    state[kind] = trim ? { ...fields, trim: [trim.start, trim.stop] } : fields;
    if (state.stale) {
      state.stale = state.stale.filter((review) => kindOf(review) !== kind);
      if (!state.stale.length) delete state.stale;
    }
    this.put(body.clip_id, state);
  }

  /** @param {string} id */
  isOpen(id) {
    return this.blind.has(id) || !this.states.get(id)?.verdict;
  }

  /** What may be shown of a clip: of a second look, not what was said at the first. @param {string | null} id @returns {ClipState} */
  shown(id) {
    if (id === null) return {};
    return this.blind.has(id) ? { blind: true } : (this.states.get(id) ?? {});
  }
}
