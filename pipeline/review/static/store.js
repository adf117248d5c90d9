// @ts-check
// What the page knows, kept equal to what the server knows: it reads what is new, and sends what is said here.

import { Clips } from "./clips.js";
import { Outbox } from "./outbox.js";
import { Refused, ask } from "./transport.js";

const POLL_MS = 2000;
const RETRY_MS = 1000;
const QUEUE_AFTER = 10; // own decisions, then the order is asked for again
const KEPT_DETAILS = 64;

export class Store extends EventTarget {
  /** @param {Setup} setup @param {string} name of the reviewer */
  constructor(setup, name) {
    super();
    this.setup = setup;
    this.name = name;
    this.clips = new Clips();
    this.outbox = new Outbox(setup.place);
    /** @type {Map<string, Promise<Detail>>} */
    this.details = new Map();
    this.sequence = 0;
    this.edition = "";
    this.online = true;
    this.sending = false;
    this.worked = 0; // seconds that people have spent
    this.skew = 0; // server's clock minus this one
    this.lastAt = 0;
    /** @type {OwnReview[]} own reviews that can be undone, the newest last */
    this.done = [];
    this.sinceQueue = 0;
  }

  static async open() {
    const setup = await ask("/api/start");
    const name = sessionStorage.getItem("reviewer") || localStorage.getItem("reviewer") || setup.reviewer;
    const store = new Store(setup, name);
    await store.load(setup);
    await Promise.all([store.readQueue(), store.readMine()]);
    store.send();
    store.poll();
    return store;
  }

  /** @param {string} type @param {any} [detail] */
  emit(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }

  /** @param {string} type @param {(detail: any) => void} listener called with what is told of it */
  on(type, listener) {
    this.addEventListener(type, (event) => listener(/** @type {CustomEvent} */ (event).detail));
  }

  // ---- reading ------------------------------------------------------------------------------------------------------

  /** The first rows are enough to begin; the others follow while somebody already looks. @param {Setup} [setup] as just read */
  async load(setup) {
    this.setup = setup ?? (await ask("/api/start"));
    this.edition = this.setup.edition;
    this.clock(this.setup.now);
    this.details.clear();
    const { rows } = await ask("/api/clips?start=0");
    this.sequence = 0;
    this.clips.states.clear();
    this.clips.take(rows);
    await this.readChanges();
    for (const { body } of this.outbox.entries) this.clips.apply(body);
    this.loadMore(rows);
  }

  /** @param {Row[]} rows that are there; more are added */
  async loadMore(rows) {
    const edition = this.edition;
    while (rows.length < this.setup.num_clips) {
      const part = await ask(`/api/clips?start=${rows.length}`);
      if (part.edition !== edition || !part.rows.length) return;
      rows.push(...part.rows);
    }
    if (rows.length !== this.clips.rows.length && this.edition === edition) {
      this.clips.take(rows);
      this.emit("rows");
    }
  }

  async readQueue() {
    this.sinceQueue = 0;
    this.clips.takeQueue(await ask(`/api/queue?reviewer=${encodeURIComponent(this.name)}`));
    this.emit("queue");
  }

  async readMine() {
    const { reviews } = await ask(`/api/reviews?reviewer=${encodeURIComponent(this.name)}`);
    this.done = reviews.map((/** @type {Review} */ { clip_id, review_id, action }) => ({ clip_id, review_id, action }));
    for (const { body } of this.outbox.entries) {
      if (body.action !== "undo") this.done.push({ clip_id: body.clip_id, action: body.action, at: body.at });
    }
  }

  async readChanges() {
    const changes = await ask(`/api/changes?after=${this.sequence}`);
    if (changes.edition !== this.edition || changes.sequence < this.sequence) {
      await this.load(); // the server was started again, or has read the clips again
      this.emit("rows");
      return;
    }
    this.sequence = changes.sequence;
    this.worked = changes.worked_s;
    this.clock(changes.now);
    const ids = Object.keys(changes.states);
    for (const id of ids) this.put(id, changes.states[id]);
    for (const { body } of this.outbox.entries) if (ids.includes(body.clip_id)) this.apply(body);
    if (ids.length) this.emit("states", ids);
  }

  /** @param {string} id @param {ClipState | null} state */
  put(id, state) {
    this.clips.put(id, state);
    this.details.delete(id);
  }

  /** @param {ReviewBody} body */
  apply(body) {
    this.clips.apply(body);
    this.details.delete(body.clip_id);
  }

  async poll() {
    for (;;) {
      await new Promise((done) => setTimeout(done, this.online ? POLL_MS : RETRY_MS));
      if (document.hidden && this.online && !this.outbox.length) continue;
      try {
        await this.readChanges();
        this.reached();
        if (this.outbox.length) this.send();
      } catch (error) {
        this.lost(error);
      }
    }
  }

  reached() {
    if (this.online) return;
    this.online = true;
    this.emit("online", { back: true });
  }

  /** @param {unknown} error */
  lost(error) {
    this.online = false;
    this.emit("online", { back: false, error });
  }

  /** @param {string} now the server's time */
  clock(now) {
    this.skew = Date.parse(now) - Date.now();
  }

  /** @param {string} id @returns {Promise<Detail>} */
  detail(id) {
    let detail = this.details.get(id);
    if (!detail) {
      detail = /** @type {Promise<Detail>} */ (ask(`/api/clips/${id}`));
      this.details.set(id, detail);
      detail.catch(() => this.details.delete(id));
      const [oldest] = this.details.keys();
      if (this.details.size > KEPT_DETAILS) this.details.delete(oldest);
    }
    return detail;
  }

  // ---- saying -------------------------------------------------------------------------------------------------------

  /** Later than anything said before here, so that the order of one person's words is never in doubt. */
  now() {
    this.lastAt = Math.max(Date.now() + this.skew, this.lastAt + 1);
    return new Date(this.lastAt).toISOString().replace("Z", "+00:00");
  }

  /** @param {Row} row @param {Action} action @param {Words} [words] @returns {ReviewBody} */
  say(row, action, words = {}) {
    /** @type {ReviewBody} */
    const body = { clip_id: row.id, version: row.v, who: this.name, at: this.now(), action, ...words };
    if (this.clips.blind.has(row.id) && (action === "accept" || action === "reject")) {
      body.blind = true;
      this.clips.blind.delete(row.id);
    }
    this.done.push({ clip_id: row.id, action, at: body.at });
    this.keep({ body });
    this.sinceQueue += 1;
    return body;
  }

  /** Undoing is a review of its own; the one it undoes may still be waiting, and then has no id yet. */
  undo() {
    const last = this.done.pop();
    if (!last) return null;
    const version = this.clips.row(last.clip_id)?.v ?? "gone";
    /** @type {ReviewBody} */
    const body = { clip_id: last.clip_id, version, who: this.name, at: this.now(), action: "undo" };
    if (last.review_id) body.undoes = last.review_id;
    this.keep({ body, undoes_at: last.review_id ? undefined : last.at });
    return last;
  }

  /** @param {OutboxEntry} entry */
  keep(entry) {
    this.outbox.add(entry);
    this.apply(entry.body);
    queueMicrotask(() => this.emit("states", [entry.body.clip_id])); // the next clip is shown first
    this.send();
  }

  async send() {
    if (this.sending) return;
    this.sending = true;
    try {
      while (this.outbox.length) await this.sendFirst();
      this.reached();
      if (this.sinceQueue >= QUEUE_AFTER) this.readQueue().catch((error) => this.lost(error)); // it knows all of them now
    } catch (error) {
      this.lost(error);
    } finally {
      this.sending = false;
    }
  }

  async sendFirst() {
    const { body } = this.outbox.entries[0];
    try {
      const answer = await ask("/api/reviews", body);
      const own = this.done.find((review) => review.at === body.at);
      if (own) own.review_id = answer.review_id;
      this.outbox.answered(answer.review_id);
      if (!this.outbox.holds(answer.clip_id)) {
        this.put(answer.clip_id, answer.state);
        this.emit("states", [answer.clip_id]);
      }
    } catch (error) {
      if (!(error instanceof Refused) || ![413, 422].includes(error.status)) throw error;
      this.outbox.refused();
      this.done = this.done.filter((review) => review.at !== body.at);
      this.emit("refused", { body, error });
      this.sequence = 0;
      this.clips.states.clear();
      await this.readChanges();
    }
  }
}
