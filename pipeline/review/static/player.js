// @ts-check
// The clip that plays, and the next one, loaded and waiting behind it: so that a decision shows the next at once.

const RATES = [0.25, 0.5, 0.75, 1, 1.5, 2];
const NUM_SLOTS = 3;

/** @typedef {{video: HTMLVideoElement, id: string | null, version: string, used: number, broken: boolean, following: number}} Slot */
export class Player extends EventTarget {
  /** @param {HTMLElement} screen */
  constructor(screen) {
    super();
    this.slots = Array.from({ length: NUM_SLOTS }, () => {
      const video = document.createElement("video");
      Object.assign(video, { loop: true, muted: true, playsInline: true, preload: "auto", disablePictureInPicture: true });
      video.tabIndex = -1;
      screen.prepend(video);
      /** @type {Slot} */
      const slot = { video, id: null, version: "", used: 0, broken: false, following: 0 };
      video.addEventListener("error", () => this.failed(slot));
      video.addEventListener("ended", () => this.again(slot));
      return slot;
    });
    this.clock = 0;
    /** @type {Slot | undefined} */
    this.current = undefined;
    /** @type {Row | undefined} */
    this.row = undefined;
    this.frame = 0;
    /** @type {number | null} the frame that is on its way */
    this.wanted = null;
    /** @type {number | null} */
    this.asked = null; // when the key was pressed that leads to the next clip
    this.rate = 1;
    this.sound = false; // browsers play with sound only after somebody has touched the page
    this.muted = false;
    this.paused = false;
    /** @type {Trim} */
    this.trim = null;
  }

  /** @param {Row} row */
  address(row) {
    return `/media/${row.id}/${row.v}`;
  }

  /** @param {Row} row */
  slotOf(row) {
    let slot = this.slots.find((other) => other.id === row.id && other.version === row.v && !other.broken);
    if (!slot) {
      slot = this.slots.filter((other) => other !== this.current).sort((a, b) => a.used - b.used)[0];
      Object.assign(slot, { id: row.id, version: row.v, broken: false });
      slot.video.src = this.address(row);
    }
    slot.used = ++this.clock;
    return slot;
  }

  /** @param {Row} row @param {Trim} trim */
  preload(row, trim) {
    const { video } = this.slotOf(row);
    video.pause();
    this.rewind(video, row, trim);
  }

  /** To where it begins; no seek where it stands there already, since that costs as much as a frame. @param {HTMLVideoElement} video @param {Row} row @param {Trim} trim */
  rewind(video, row, trim) {
    const start = trim ? (trim[0] + 0.5) / row.fps : 0;
    if (Math.abs(video.currentTime - start) > 0.5 / row.fps) video.currentTime = start;
  }

  /** @param {Row} row @param {Trim} trim */
  show(row, trim) {
    const begun = this.asked ?? performance.now();
    this.asked = null;
    const slot = this.slotOf(row);
    const before = this.current;
    Object.assign(this, { current: slot, row, trim, frame: 0, wanted: null });
    if (before && before !== slot) {
      before.video.pause();
      before.video.classList.remove("shown");
    }
    const { video } = slot;
    video.classList.add("shown");
    this.rewind(video, row, trim);
    this.tune();
    this.paused = false;
    this.start(slot);
    this.time(slot, row, begun);
  }

  /** How long it takes from a key to the next clip's picture, and until that moves; kept where a browser keeps timings. @param {Slot} slot @param {Row} row @param {number} begun */
  time(slot, row, begun) {
    /** @param {string} name */
    const measure = (name) => performance.measure(name, { start: begun, end: performance.now() });
    // Where it was loaded before, its first frame is in the very next picture of the page.
    const waiting = slot.video.readyState >= 2 && !slot.video.seeking;
    if (waiting) requestAnimationFrame(() => requestAnimationFrame(() => measure("next clip painted")));
    this.follow(slot, row, () => {
      if (!waiting) measure("next clip painted");
      measure("next clip plays");
    });
  }

  /** @param {Slot} slot */
  start({ video }) {
    video.play().catch((error) => {
      if (error.name !== "NotAllowedError" || video.muted) return; // a new source interrupts the old one's start
      this.sound = false;
      this.tune();
      video.play().catch(() => this.dispatchEvent(new Event("blocked")));
    });
  }

  /** Called with every frame that is painted, and only then: overlays never run ahead of the picture. @param {Slot} slot @param {Row} row @param {() => void} painted called once */
  follow(slot, row, painted) {
    let first = true;
    /** @type {VideoFrameRequestCallback} */
    const next = (_, metadata) => {
      if (this.current !== slot) return;
      if (first) painted();
      first = false;
      const frame = Math.min(row.frames - 1, Math.floor(metadata.mediaTime * row.fps + 0.5));
      if (this.wanted === null || this.wanted === frame) {
        this.frame = frame;
        this.wanted = null;
      }
      if (this.trim && !this.paused && (this.frame >= this.trim[1] || this.frame < this.trim[0] - 1)) {
        slot.video.currentTime = this.timeOf(this.trim[0], row);
      }
      if (this.frame === frame) this.dispatchEvent(new Event("frame"));
      slot.following = slot.video.requestVideoFrameCallback(next);
    };
    if (slot.following) slot.video.cancelVideoFrameCallback(slot.following);
    slot.following = slot.video.requestVideoFrameCallback(next);
  }

  /** @param {Slot} slot */
  again(slot) {
    if (slot === this.current && !this.paused) this.start(slot);
  }

  /** @param {Slot} slot */
  failed(slot) {
    slot.broken = true;
    if (slot === this.current) this.dispatchEvent(new Event("broken"));
  }

  // The server is back: what could not be loaded is tried again.
  retry() {
    const row = this.row;
    for (const slot of this.slots) if (slot.video.error) slot.broken = true;
    if (row && this.current?.broken) {
      this.current.id = null;
      this.show(row, this.trim);
    }
  }

  /** @param {number} frame @param {Row} row */
  timeOf(frame, row) {
    return (frame + 0.5) / row.fps;
  }

  /** @param {number} frame */
  seek(frame) {
    const { current, row } = this;
    if (!current || !row) return;
    this.wanted = null;
    current.video.currentTime = this.timeOf(Math.min(row.frames - 1, Math.max(0, frame)), row);
  }

  /** @param {number} way */
  step(way) {
    if (!this.row) return;
    this.pause();
    this.frame = Math.min(this.row.frames - 1, Math.max(0, this.frame + way));
    this.seek(this.frame);
    this.wanted = this.frame; // a frame on the way there, painted late, must not be counted from
  }

  pause() {
    this.paused = true;
    this.current?.video.pause();
    this.dispatchEvent(new Event("playing"));
  }

  toggle() {
    if (!this.paused || !this.current) {
      this.pause();
      return;
    }
    this.paused = false;
    this.wanted = null;
    this.start(this.current);
    this.dispatchEvent(new Event("playing"));
  }

  /** @param {number} way */
  faster(way) {
    const position = RATES.indexOf(this.rate) + way;
    this.rate = RATES[Math.min(RATES.length - 1, Math.max(0, position))];
    this.tune();
    return this.rate;
  }

  // Sound is allowed from the first key or tap on.
  touched() {
    if (this.sound) return;
    this.sound = true;
    this.tune();
  }

  tune() {
    if (!this.current) return;
    this.current.video.playbackRate = this.rate;
    this.current.video.muted = this.muted || !this.sound;
    this.dispatchEvent(new Event("playing"));
  }
}
