// @ts-check
// What a key or a button says of a clip, wherever that clip is seen.

import { toast } from "./dialogs.js";
import { reasonText, words } from "./dom.js";
import { reviewText } from "./panel.js";

/** @typedef {import("./store.js").Store} Store */

export class Decisions {
  /** @param {Store} store */
  constructor(store) {
    this.store = store;
    /** @type {Set<string>} ids of clips that are to come again when all others are decided */
    this.skipped = new Set();
  }

  /** @param {ClipView} view @param {"accept" | "reject"} action @param {Words} [more] */
  decide(view, action, more = {}) {
    if (!view.row) return;
    const body = this.store.say(view.row, action, more);
    toast(`${action === "accept" ? "Accepted" : `Rejected: ${reasonText(body.reason)}`}. u undoes it.`, action === "accept" ? "good" : "bad");
    view.advance();
  }

  /** @param {ClipView} view @param {Row} row that it shows, or showed when this was asked @param {Action} action @param {Words} more @param {string} text */
  say(view, row, action, more, text) {
    this.store.say(row, action, more);
    toast(`${text}. u undoes it.`);
    view.paint();
  }

  /** @param {ClipView} view */
  skip(view) {
    if (!view.row) return;
    this.skipped.add(view.row.id);
    view.advance();
  }

  /** @param {ClipView} view */
  undo(view) {
    const undone = this.store.undo();
    if (!undone) {
      toast("There is nothing of yours to undo.");
      return;
    }
    toast(`Undone: ${words(undone.action)}.`);
    this.skipped.delete(undone.clip_id);
    view.show(undone.clip_id);
  }

  /** What was said of an earlier version is said of this one too. @param {ClipView} view */
  confirm(view) {
    const { row } = view;
    if (!row) return;
    const { stale } = this.store.clips.shown(row.id);
    if (!stale) {
      toast("Nothing here was said of an earlier version.");
      return;
    }
    const kept = stale.filter((review) => review.action !== "trim");
    const cut = kept.length === stale.length ? "" : "The cut named frames of another version: make it anew with [ and ].";
    if (!kept.length) {
      toast(cut, "bad");
      return;
    }
    for (const { action, reason, domain, identity_id } of kept) {
      const more = Object.fromEntries(Object.entries({ reason, domain, identity_id }).filter(([, value]) => value));
      this.store.say(row, action, more);
    }
    toast(`Confirmed: ${kept.map(reviewText).join(", ")}. u undoes it. ${cut}`, cut ? "" : "good");
    if (cut) view.paint();
    else view.advance();
  }
}
