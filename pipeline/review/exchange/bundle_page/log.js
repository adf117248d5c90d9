// @ts-check
// What was decided in a bundle's page. It is only ever added to, as in the workspace that it goes back to; an undo names
// what it takes back.

import { stamp } from "../../static/dom.js";

export class DecisionLog {
  /**
   * @param {string} name under which this browser keeps it
   * @param {(sentence: string) => void} complain where it keeps nothing
   */
  constructor(name, complain) {
    this.name = name;
    this.complain = complain;
    /** @type {{who: string, log: LogEntry[], saved: number}} */
    this.state = { who: "", log: [], saved: 0 };
    this.keeps = true; // whether this browser stores anything for a page from a disk
    this.recall();
  }

  get length() {
    return this.state.log.length;
  }

  /** Another window may have decided meanwhile. */
  recall() {
    if (!this.keeps) return;
    try {
      const kept = localStorage.getItem(this.name);
      if (kept) this.state = JSON.parse(kept);
    } catch (error) {
      this.keepsNothing("nothing for this page", error);
    }
  }

  keep() {
    if (!this.keeps) return;
    try {
      localStorage.setItem(this.name, JSON.stringify(this.state));
    } catch (error) {
      this.keepsNothing("no more", error);
    }
  }

  /** @param {string} what @param {unknown} error */
  keepsNothing(what, error) {
    this.keeps = false;
    const name = error instanceof Error || error instanceof DOMException ? error.name : String(error);
    this.complain(`This browser keeps ${what} (${name}): save your decisions before you close it.`);
  }

  /** @param {string} who decides from now on */
  sign(who) {
    this.recall();
    this.state.who = who;
    this.keep();
  }

  /** @param {BundleClip} clip @param {Pick<LogEntry, "action" | "reason" | "note" | "undoes">} content */
  add(clip, content) {
    this.recall();
    this.state.log.push({ clip_id: clip.id, version: clip.version, who: this.state.who, at: stamp(new Date()), ...content });
    this.keep();
  }

  /** The decisions that nobody undid, each with its number in the log. */
  inForce() {
    const undone = new Set(this.state.log.map((entry) => entry.undoes).filter((number) => number !== undefined));
    return this.state.log
      .map((entry, number) => ({ ...entry, number }))
      .filter((entry) => entry.action !== "undo" && !undone.has(entry.number));
  }

  /** By clip: the latest verdict, of this page or of the workspace. @param {BundleClip[]} clips */
  verdicts(clips) {
    /** @type {Map<string, {action: Action, reason?: string | null, note?: string}>} */
    const verdicts = new Map();
    for (const clip of clips) if (clip.verdict) verdicts.set(clip.id, clip.verdict);
    for (const entry of this.inForce()) verdicts.set(entry.clip_id, entry);
    return verdicts;
  }

  /** Everything as reviews, whose ids are computed from their words: a file that is saved twice says nothing twice. @param {object} blank a review without words */
  async records(blank) {
    /** @type {Record<string, any>[]} */
    const records = [];
    for (const entry of this.state.log) {
      /** @type {Record<string, any>} */
      const record = { ...blank, ...entry };
      if (entry.undoes !== undefined) record.undoes = records[entry.undoes].review_id;
      const sorted = JSON.stringify(Object.fromEntries(Object.keys(record).sort().map((name) => [name, record[name]])));
      const digits = record.at.replace(/\D/g, "").slice(0, 17);
      records.push({ review_id: `${digits}-${(await sha256(sorted)).slice(0, 16)}`, ...record });
    }
    return records;
  }

  saved() {
    this.state.saved = this.state.log.length;
    this.keep();
  }

  get unsaved() {
    return this.state.log.length > this.state.saved;
  }
}

/** @param {string} text */
async function sha256(text) {
  const digest = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(text));
  return [...new Uint8Array(digest)].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}
