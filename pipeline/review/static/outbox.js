// @ts-check
// Reviews on their way: kept in the browser until the server has them on its disk, so neither a killed server nor a
// reload loses one.

/** Each tab has its own, and takes over what closed ones left; to send twice what another still sends does no harm. */
export class Outbox {
  /** @param {string} place the workspace's name among those of this server's address */
  constructor(place) {
    const tab = sessionStorage.getItem("tab") ?? crypto.getRandomValues(new Uint32Array(2)).join("-");
    sessionStorage.setItem("tab", tab);
    const prefix = `outbox-${place}-`;
    this.name = prefix + tab;
    const names = Object.keys(localStorage).filter((name) => name.startsWith(prefix));
    /** @type {OutboxEntry[]} */
    this.entries = names.flatMap((name) => JSON.parse(localStorage.getItem(name) ?? "[]"));
    for (const name of names) localStorage.removeItem(name);
    if (this.entries.length) this.save();
    this.entries.sort((a, b) => (a.body.at < b.body.at ? -1 : 1));
  }

  get length() {
    return this.entries.length;
  }

  /** @param {OutboxEntry} entry */
  add(entry) {
    this.entries.push(entry);
    this.save();
  }

  /** @param {string} id @returns {boolean} whether anything is on its way for that clip */
  holds(id) {
    return this.entries.some((entry) => entry.body.clip_id === id);
  }

  /** The server has the first one; whatever undoes it can now name it. @param {string} reviewId */
  answered(reviewId) {
    const first = this.entries.shift();
    for (const other of this.entries) {
      if (other.undoes_at !== undefined && other.undoes_at === first?.body.at) {
        other.body.undoes = reviewId;
        delete other.undoes_at;
      }
    }
    this.save();
  }

  /** The server will not take the first one the next time either: it goes, and what undoes it with it. */
  refused() {
    const first = this.entries.shift();
    this.entries = this.entries.filter((other) => other.undoes_at === undefined || other.undoes_at !== first?.body.at);
    this.save();
  }

  save() {
    localStorage.setItem(this.name, JSON.stringify(this.entries));
  }
}
