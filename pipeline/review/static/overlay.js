// @ts-check
// Landmarks, pose axes and face box of one frame, drawn over the video. The same colours as on contact sheets.

/** @type {[number, number, boolean][]} */
const OUTLINES = [
  [0, 16, false], [17, 21, false], [22, 26, false], [27, 30, false], [31, 35, false],
  [36, 41, true], [42, 47, true], [48, 59, true], [60, 67, true],
];
const BONES = OUTLINES.flatMap(([first, last, closed]) => {
  const joined = Array.from({ length: last - first }, (_, k) => [first + k, first + k + 1]);
  return closed ? [...joined, [last, first]] : joined;
});
const UNSURE = [255, 106, 61];
const SURE = [64, 240, 200];
/** @type {[string, string, number][]} */
const AXES = [["right", "#eb3c3c", 0.19], ["up", "#46c850", 0.19], ["nose", "#4678ff", 0.3]];

/** Four bytes of length, a JSON header of shapes in the order of the data, then float32. @param {ArrayBuffer} buffer */
export function unpack(buffer) {
  const length = new DataView(buffer).getUint32(0, true);
  /** @type {Record<string, number[]>} */
  const shapes = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, length)));
  /** @type {Arrays} */
  const arrays = {};
  let offset = 4 + length;
  for (const [name, shape] of Object.entries(shapes)) {
    const count = shape.reduce((all, axis) => all * axis, 1);
    arrays[name] = { shape, data: new Float32Array(buffer, offset, count) };
    offset += 4 * count;
  }
  return arrays;
}

/** @param {HTMLCanvasElement} canvas @param {Arrays | null} arrays @param {number} frame @param {number} sizePx of the arrays' picture @param {Overlays} shown */
export function drawOverlay(canvas, arrays, frame, sizePx, shown) {
  const scale = window.devicePixelRatio || 1;
  const side = Math.round(canvas.clientWidth * scale);
  if (canvas.width !== side) canvas.width = canvas.height = side;
  const pen = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
  pen.clearRect(0, 0, side, side);
  if (!arrays || frame >= arrays.valid.shape[0]) return;
  const ratio = side / sizePx;
  pen.lineJoin = pen.lineCap = "round";
  if (shown.box) drawBox(pen, arrays.box.data.subarray(frame * 4, frame * 4 + 4), ratio, scale);
  if (shown.landmarks) drawPoints(pen, pointsOf(arrays.landmarks, frame), ratio, scale);
  if (shown.pose) drawAxes(pen, arrays.pose.data.subarray(frame * 7, frame * 7 + 7), side, scale);
}

/** @param {Arrays[string]} landmarks @param {number} frame */
function pointsOf({ shape, data }, frame) {
  const [, count, width] = shape;
  return Array.from({ length: count }, (_, k) => {
    const at = (frame * count + k) * width;
    return [data[at], data[at + 1], data[at + 2]];
  });
}

/** @param {CanvasRenderingContext2D} pen @param {Float32Array} box @param {number} ratio @param {number} scale */
function drawBox(pen, [x0, y0, x1, y1], ratio, scale) {
  for (const [color, width] of /** @type {[string, number][]} */ ([["rgba(0,0,0,.55)", 4], ["#ffd34d", 2]])) {
    pen.strokeStyle = color;
    pen.lineWidth = width * scale;
    pen.strokeRect(x0 * ratio, y0 * ratio, (x1 - x0) * ratio, (y1 - y0) * ratio);
  }
}

/** @param {number} sure */
function mixed(sure) {
  const share = Math.min(1, Math.max(0, sure));
  return `rgb(${UNSURE.map((low, k) => Math.round(low + (SURE[k] - low) * share)).join(",")})`;
}

/** @param {CanvasRenderingContext2D} pen @param {number[][]} points @param {number} ratio @param {number} scale */
function drawPoints(pen, points, ratio, scale) {
  pen.lineWidth = 1.25 * scale;
  for (const [a, b] of points.length === 68 ? BONES : []) {
    const [from, to] = [points[a], points[b]];
    if (from[2] <= 0 || to[2] <= 0) continue;
    pen.strokeStyle = mixed(Math.min(from[2], to[2]));
    pen.beginPath();
    pen.moveTo(from[0] * ratio, from[1] * ratio);
    pen.lineTo(to[0] * ratio, to[1] * ratio);
    pen.stroke();
  }
  for (const [x, y, sure] of points) {
    if (sure <= 0) continue;
    pen.fillStyle = mixed(sure);
    pen.beginPath();
    pen.arc(x * ratio, y * ratio, 2 * scale, 0, 2 * Math.PI);
    pen.fill();
  }
}

// R = Rz(roll) Ry(yaw) Rx(-pitch); the head's right of the image, crown and nose in axes x right, y down, z away.
/** @param {ArrayLike<number> & Iterable<number>} pose */
export function headAxes([yawDeg, pitchDeg, rollDeg]) {
  const [yaw, pitch, roll] = [yawDeg, pitchDeg, rollDeg].map((degrees) => (degrees * Math.PI) / 180);
  const [cy, sy, cp, sp, cr, sr] = [yaw, pitch, roll].flatMap((angle) => [Math.cos(angle), Math.sin(angle)]);
  const x = [cy, -sy * sp, sy * cp];
  const y = [0, cp, sp];
  /** @param {number} k */
  const column = (k) => [cr * x[k] - sr * y[k], sr * x[k] + cr * y[k]];
  /** @param {number} k */
  const turned = (k) => column(k).map((value) => -value);
  return [column(0), turned(1), turned(2)];
}

/** @param {CanvasRenderingContext2D} pen @param {Float32Array} pose @param {number} side @param {number} scale */
function drawAxes(pen, pose, side, scale) {
  if (pose[6] <= 0) return;
  const [cx, cy] = [pose[3] * side, pose[4] * side];
  headAxes(pose).forEach(([dx, dy], k) => {
    const [, color, length] = AXES[k];
    const [x, y] = [cx + dx * side * length, cy + dy * side * length];
    for (const [stroke, width] of /** @type {[string, number][]} */ ([["rgba(0,0,0,.6)", 5], [color, 3]])) {
      pen.strokeStyle = stroke;
      pen.lineWidth = width * scale;
      pen.beginPath();
      pen.moveTo(cx, cy);
      pen.lineTo(x, y);
      pen.stroke();
    }
  });
}
