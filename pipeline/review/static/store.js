// What the page knows: all clips, what was said of them, and what still has to be sent.
// A review is kept in the browser until the server has it on its disk, so neither a killed server nor a reload loses it.

const POLL_MS = 2000;
const RETRY_MS = 1000;
const ANSWER_MS = 15000;
const QUEUE_AFTER = 10; // own decisions, then the order is asked for again

export class Refused extends Error {
  constructor(sentence, status) {
    super(sentence);
    this.status = status;
  }
}

async function ask(path, body) {
  const options = { signal: AbortSignal.timeout(ANSWER_MS), cache: "no-store" };
  if (body !== undefined) {
    options.method = "POST";
    options.headers = { "Content-Type": "application/json" };
    options.body = JSON.stringify(body);
  }
  const answer = await fetch(path, options);
  if (answer.ok) return answer.json();
  const told = await answer.json().catch(() => ({}));
  throw new Refused(told.error || `the server answered ${answer.status}`, answer.status);
}

export class Store extends EventTarget {
  constructor() {
    super();
    this.rows = [];
    this.index = new Map(); // clip id -> place in rows
    this.states = new Map(); // clip id -> what holds, as the server says
    this.rank = new Map(); // clip id -> place in the queue
    this.blind = new Set(); // clips of which a second look is wanted
    this.chances = new Map(); // how likely each clip of the queue is to be accepted, null before verdicts have taught it
    this.details = new Map();
    this.sequence = 0;
    this.edition = "";
    this.online = true;
    this.worked = 0;
    this.skew = 0; // server's clock minus this one
    this.lastAt = 0;
    this.done = []; // own reviews that can be undone, the newest last
    this.sinceQueue = 0;
  }

  emit(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }

  // ---- reading ------------------------------------------------------------------------------------------------------

  async open() {
    await this.load();
    this.name = sessionStorage.getItem("reviewer") || localStorage.getItem("reviewer") || this.setup.reviewer;
    this.box = this.waiting();
    for (const waiting of this.box) this.apply(waiting.body);
    await Promise.all([this.readQueue(), this.readMine()]);
    this.send();
    this.poll();
  }

  // Each tab keeps its own, and takes over what closed ones left; to send twice what another still sends does no harm.
  waiting() {
    const tab = sessionStorage.getItem("tab") ?? crypto.getRandomValues(new Uint32Array(2)).join("-");
    sessionStorage.setItem("tab", tab);
    const prefix = `outbox-${this.setup.place}-`;
    this.boxName = prefix + tab;
    const names = Object.keys(localStorage).filter((name) => name.startsWith(prefix));
    const entries = names.flatMap((name) => JSON.parse(localStorage.getItem(name)));
    for (const name of names) localStorage.removeItem(name);
    if (entries.length) localStorage.setItem(this.boxName, JSON.stringify(entries));
    return entries.sort((a, b) => (a.body.at < b.body.at ? -1 : 1));
  }

  // The first rows are enough to begin; the others follow while somebody already looks.
  async load() {
    this.setup = await ask("/api/start");
    this.edition = this.setup.edition;
    this.clock(this.setup.now);
    this.details.clear();
    const rows = [];
    const first = await ask("/api/clips?start=0");
    rows.push(...first.rows);
    this.sequence = 0;
    this.states.clear();
    this.take(rows);
    await this.readChanges();
    this.more = this.loadMore(rows);
  }

  async loadMore(rows) {
    const edition = this.edition;
    while (rows.length < this.setup.num_clips) {
      const part = await ask(`/api/clips?start=${rows.length}`);
      if (part.edition !== edition || !part.rows.length) return;
      rows.push(...part.rows);
    }
    if (rows.length !== this.rows.length && this.edition === edition) {
      this.take(rows);
      this.emit("rows");
    }
  }

  take(rows) {
    this.rows = rows.slice();
    this.index = new Map(rows.map((row, place) => [row.id, place]));
  }

  async readQueue() {
    this.sinceQueue = 0;
    const queue = await ask(`/api/queue?reviewer=${encodeURIComponent(this.name)}`);
    this.rank = new Map(queue.ids.map((id, place) => [id, place]));
    this.blind = new Set(queue.blind);
    this.chances = new Map(queue.ids.map((id, place) => [id, queue.chances[place]]));
    this.emit("queue");
  }

  async readMine() {
    const mine = await ask(`/api/reviews?reviewer=${encodeURIComponent(this.name)}`);
    this.done = mine.reviews.map((review) => ({ clip_id: review.clip_id, review_id: review.review_id, action: review.action }));
    for (const { body } of this.box) {
      if (body.action !== "undo") this.done.push({ clip_id: body.clip_id, action: body.action, at: body.at });
    }
  }

  async readChanges() {
    const found = await ask(`/api/changes?after=${this.sequence}`);
    if (found.edition !== this.edition || found.sequence < this.sequence) {
      await this.load(); // the server was started again, or has read the clips again
      this.emit("rows");
      return;
    }
    this.sequence = found.sequence;
    this.worked = found.worked_s;
    this.clock(found.now);
    const ids = Object.keys(found.states);
    for (const id of ids) this.put(id, found.states[id]);
    for (const waiting of this.box || []) if (ids.includes(waiting.body.clip_id)) this.apply(waiting.body);
    if (ids.length) this.emit("states", ids);
  }

  put(id, state) {
    if (state) this.states.set(id, state);
    else this.states.delete(id);
    this.details.delete(id);
  }

  async poll() {
    for (;;) {
      await new Promise((done) => setTimeout(done, this.online ? POLL_MS : RETRY_MS));
      if (document.hidden && this.online && !this.box.length) continue;
      try {
        await this.readChanges();
        this.reached();
        if (this.box.length) this.send();
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

  lost(error) {
    this.online = false;
    this.emit("online", { back: false, error });
  }

  clock(now) {
    this.skew = Date.parse(now) - Date.now();
  }

  detail(id) {
    if (!this.details.has(id)) {
      const found = ask(`/api/clips/${id}`);
      this.details.set(id, found);
      found.catch(() => this.details.delete(id));
      if (this.details.size > 64) this.details.delete(this.details.keys().next().value);
    }
    return this.details.get(id);
  }

  row(id) {
    return this.rows[this.index.get(id)];
  }

  async refresh() {
    await ask("/api/refresh", {});
    await this.readChanges();
    await this.readQueue();
  }

  // ---- saying -------------------------------------------------------------------------------------------------------

  now() {
    // Later than anything said before here, so that the order of one person's words is never in doubt.
    this.lastAt = Math.max(Date.now() + this.skew, this.lastAt + 1);
    return new Date(this.lastAt).toISOString().replace("Z", "+00:00");
  }

  say(row, action, more = {}) {
    const body = { clip_id: row.id, version: row.v, who: this.name, at: this.now(), action, ...more };
    if (this.blind.has(row.id) && (action === "accept" || action === "reject")) {
      body.blind = true;
      this.blind.delete(row.id);
    }
    const entry = { body };
    this.done.push({ clip_id: row.id, action, at: body.at });
    this.keep(entry);
    this.sinceQueue += 1;
    return body;
  }

  // Undoing is a review of its own; the one it undoes may still be waiting, and then has no id yet.
  undo() {
    const last = this.done.pop();
    if (!last) return null;
    const row = this.row(last.clip_id);
    const body = { clip_id: last.clip_id, version: row?.v ?? "gone", who: this.name, at: this.now(), action: "undo" };
    if (last.review_id) body.undoes = last.review_id;
    this.keep({ body, undoes_at: last.review_id ? undefined : last.at });
    return last;
  }

  keep(entry) {
    this.box.push(entry);
    this.saveBox();
    this.apply(entry.body);
    queueMicrotask(() => this.emit("states", [entry.body.clip_id])); // the next clip is shown first
    this.send();
  }

  saveBox() {
    localStorage.setItem(this.boxName, JSON.stringify(this.box));
  }

  // Show at once what the server will say: the latest word of each kind.
  apply(body) {
    const kind = { accept: "verdict", reject: "verdict" }[body.action] ?? body.action;
    if (kind === "undo") return;
    const { version: _, trim, ...told } = body;
    const state = { ...(this.states.get(body.clip_id) ?? {}) };
    state[kind] = trim ? { ...told, trim: [trim.start, trim.stop] } : told;
    if (state.stale) {
      const kindOf = (review) => (review.action === "accept" || review.action === "reject" ? "verdict" : review.action);
      state.stale = state.stale.filter((review) => kindOf(review) !== kind);
      if (!state.stale.length) delete state.stale;
    }
    this.put(body.clip_id, state);
  }

  async send() {
    if (this.sending) return;
    this.sending = true;
    try {
      while (this.box.length) await this.sendFirst();
      this.reached();
      if (this.sinceQueue >= QUEUE_AFTER) this.readQueue().catch((error) => this.lost(error)); // it knows all of them now
    } catch (error) {
      this.lost(error);
    } finally {
      this.sending = false;
    }
  }

  async sendFirst() {
    const entry = this.box[0];
    try {
      const answer = await ask("/api/reviews", entry.body);
      this.box.shift();
      const mine = this.done.find((one) => one.at === entry.body.at);
      if (mine) mine.review_id = answer.review_id;
      for (const other of this.box) {
        if (other.undoes_at === entry.body.at) {
          other.body.undoes = answer.review_id;
          delete other.undoes_at;
        }
      }
      this.saveBox();
      if (!this.box.some((other) => other.body.clip_id === answer.clip_id)) {
        this.put(answer.clip_id, answer.state);
        this.emit("states", [answer.clip_id]);
      }
    } catch (error) {
      if (!(error instanceof Refused) || ![413, 422].includes(error.status)) throw error;
      this.box.shift(); // it will not be taken the next time either
      this.box = this.box.filter((other) => other.undoes_at !== entry.body.at);
      this.done = this.done.filter((one) => one.at !== entry.body.at);
      this.saveBox();
      this.emit("refused", { body: entry.body, error });
      this.sequence = 0;
      this.states.clear();
      await this.readChanges();
    }
  }

  // ---- choosing -----------------------------------------------------------------------------------------------------

  isOpen(id) {
    return this.blind.has(id) || !this.states.get(id)?.verdict;
  }

  // What may be shown of a clip: of a second look, not what was said at the first.
  shown(id) {
    return this.blind.has(id) ? { blind: true } : (this.states.get(id) ?? {});
  }

  list(filters) {
    const text = (filters.text || "").toLowerCase();
    const found = this.rows.filter((row) => this.fits(row, filters, text));
    if (filters.sort !== "source") {
      const last = this.rank.size + 1;
      found.sort((a, b) => (this.rank.get(a.id) ?? last) - (this.rank.get(b.id) ?? last));
    }
    return found.map((row) => row.id);
  }

  fits(row, filters, text) {
    const state = this.shown(row.id);
    const verdict = state.verdict;
    if (filters.domain && (state.domain?.domain ?? row.domain) !== filters.domain) return false;
    if (filters.verdict === "open" && verdict) return false;
    if ((filters.verdict === "accept" || filters.verdict === "reject") && verdict?.action !== filters.verdict) return false;
    if (filters.verdict === "kept" && row.missed) return false;
    if (filters.verdict === "missed" && !row.missed) return false;
    if (filters.reason && verdict?.reason !== filters.reason && row.missed !== filters.reason) return false;
    if (filters.who && !["verdict", "domain", "identity", "trim"].some((kind) => state[kind]?.who === filters.who)) return false;
    if (filters.flag && !row.flags?.includes(filters.flag)) return false;
    if (filters.stale && !state.stale) return false;
    if (!text) return true;
    return `${row.id} ${row.who} ${this.setup.sources[row.source].title}`.toLowerCase().includes(text);
  }

  progress() {
    const domains = new Map();
    let accepted = 0;
    let decided = 0;
    for (const row of this.rows) {
      const state = this.states.get(row.id);
      const name = state?.domain?.domain ?? row.domain;
      const mine = domains.get(name) ?? { decided: 0, total: 0 };
      mine.total += 1;
      if (state?.verdict) {
        mine.decided += 1;
        decided += 1;
        const [start, stop] = state.trim?.trim ?? [0, row.frames];
        if (state.verdict.action === "accept") accepted += (stop - start) / row.fps;
      }
      domains.set(name, mine);
    }
    return { domains, accepted, decided, total: this.rows.length, worked: this.worked };
  }
}

export { ask };
