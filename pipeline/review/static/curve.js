// @ts-check
// The mouth's opening against the loudness of speech, with the place that is playing and the part that stays.

const MARGIN = 4;

export class Curve {
  /** @param {HTMLCanvasElement} canvas @param {{seek: (frame: number) => void, step: (way: number) => void}} player */
  constructor(canvas, { seek, step }) {
    this.canvas = canvas;
    this.seek = seek;
    /** @type {Arrays | null} */
    this.arrays = null;
    this.frames = 0;
    this.frame = 0;
    /** @type {Trim} */
    this.trim = null;
    /** @type {OffscreenCanvas | null} everything but the playhead */
    this.still = null;
    this.scale = 1;
    /** @type {Record<string, string>} */
    this.colors = {};
    canvas.addEventListener("pointerdown", (event) => this.drag(event));
    canvas.addEventListener("keydown", (event) => {
      const way = event.key === "ArrowLeft" ? -1 : event.key === "ArrowRight" ? 1 : 0;
      if (!way) return;
      event.preventDefault();
      event.stopPropagation();
      step(way);
    });
    new ResizeObserver(() => this.paint()).observe(canvas);
  }

  /** @param {Arrays} arrays @param {number} frames @param {Trim} trim */
  set(arrays, frames, trim) {
    Object.assign(this, { arrays, frames, trim });
    this.frame = Math.min(this.frame, frames - 1);
    this.canvas.setAttribute("aria-valuemax", String(frames - 1));
    this.paint();
  }

  /** @param {number} frame */
  play(frame) {
    if (frame === this.frame) return;
    this.frame = frame;
    this.canvas.setAttribute("aria-valuenow", String(frame));
    this.show();
  }

  /** @param {PointerEvent} event */
  drag(event) {
    if (!this.frames) return;
    /** @param {PointerEvent} moved */
    const go = (moved) => {
      const box = this.canvas.getBoundingClientRect();
      const share = (moved.clientX - box.left - MARGIN) / (box.width - 2 * MARGIN);
      this.seek(Math.min(this.frames - 1, Math.max(0, Math.floor(share * this.frames))));
    };
    go(event);
    this.canvas.setPointerCapture(event.pointerId);
    this.canvas.addEventListener("pointermove", go);
    this.canvas.addEventListener("pointerup", () => this.canvas.removeEventListener("pointermove", go), { once: true });
  }

  // Everything but the playhead is drawn once a clip; a frame costs one copy and one line.
  paint() {
    const scale = window.devicePixelRatio || 1;
    const [width, height] = [this.canvas.clientWidth, this.canvas.clientHeight].map((side) => Math.round(side * scale));
    if (!width || !height) return;
    Object.assign(this.canvas, { width, height });
    this.still = new OffscreenCanvas(width, height);
    this.scale = scale;
    const pen = /** @type {OffscreenCanvasRenderingContext2D} */ (this.still.getContext("2d"));
    this.colors = Object.fromEntries(
      ["ink", "faint", "mouth", "sound", "invalid", "cut"].map((name) => [
        name,
        getComputedStyle(this.canvas).getPropertyValue(`--${name}`).trim(),
      ]),
    );
    if (this.arrays) this.paintArrays(pen, this.arrays, width, height);
    this.show();
  }

  /** @param {number} frame */
  x(frame) {
    const margin = MARGIN * this.scale;
    return margin + (frame / this.frames) * (this.canvas.width - 2 * margin);
  }

  /** @param {OffscreenCanvasRenderingContext2D} pen @param {Arrays} arrays @param {number} width @param {number} height */
  paintArrays(pen, { envelope, motion, valid }, width, height) {
    const low = height - 3 * this.scale;
    /** @param {number} value */
    const y = (value) => low - Math.min(1, Math.max(0, value)) * (height - 8 * this.scale);
    pen.fillStyle = this.colors.invalid;
    for (let k = 0; k < this.frames; k++) {
      if (!valid.data[k]) pen.fillRect(this.x(k), 0, this.x(k + 1) - this.x(k) + 1, height);
    }
    if (envelope) {
      pen.fillStyle = this.colors.sound;
      pen.beginPath();
      pen.moveTo(this.x(0), low);
      for (let k = 0; k < this.frames; k++) pen.lineTo(this.x(k + 0.5), y(envelope.data[k]));
      pen.lineTo(this.x(this.frames), low);
      pen.fill();
    }
    pen.strokeStyle = this.colors.mouth;
    pen.lineWidth = 1.75 * this.scale;
    pen.lineJoin = "round";
    pen.beginPath();
    const channels = motion.shape[1];
    for (let k = 0; k < this.frames; k++) pen.lineTo(this.x(k + 0.5), y(motion.data[k * channels]));
    pen.stroke();
    if (this.trim) {
      pen.fillStyle = this.colors.cut;
      pen.fillRect(0, 0, this.x(this.trim[0]), height);
      pen.fillRect(this.x(this.trim[1]), 0, width, height);
    }
  }

  show() {
    if (!this.still) return;
    const pen = /** @type {CanvasRenderingContext2D} */ (this.canvas.getContext("2d"));
    pen.clearRect(0, 0, this.canvas.width, this.canvas.height);
    pen.drawImage(this.still, 0, 0);
    if (!this.arrays) return;
    pen.fillStyle = this.colors.ink;
    pen.fillRect(Math.round(this.x(this.frame + 0.5) - this.scale), 0, 2 * this.scale, this.canvas.height);
  }
}
