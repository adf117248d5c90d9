// @ts-check
// What stands beside the clip: what it is, its scores against their limits, where it is from, and who else is like it.

import { $, el, number, reasonText, seconds, verdictText, words } from "./dom.js";

/** @typedef {import("./store.js").Store} Store */

/** @type {Record<string, string>} */
const NAMES = {
  native_crop_px: "Native crop, px",
  padding: "Outside picture",
  clip_s: "Length, s",
  neighbours: "Other faces",
  face_ratio: "Face there",
  internal_cut: "Inner cut",
  abs_yaw_deg: "Turned, °",
  speech_ratio: "Speech",
  sync_z: "Lip sync, z",
  motion: "Motion",
  sharpness: "Sharpness",
  exposure: "Exposure",
  stability: "Steadiness",
  overlay: "Burnt in, strokes",
  speaker_z: "Speaker, z",
  fitted_sync_z: "Lip sync, fitted",
  landmark_confidence: "Landmarks sure",
  yaw_range_deg: "Turn range, °",
  track_purity: "Track purity",
  duplicate_frame_ratio: "Repeated frames",
  audio_rms: "Loudness",
  face_px: "Face, px",
};

/** @param {string} at */
const clock = (at) => new Date(at).toLocaleString([], { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit" });

/** @param {ClipState} state */
export function stateText(state) {
  return state.blind ? "second look: what was said before is not shown" : verdictText(state.verdict);
}

/** @param {Store} store @param {Row} row @param {ClipState} state */
function chance(store, row, state) {
  const known = store.clips.chances.get(row.id);
  if (known == null || state.blind || state.verdict) return null;
  return el("span", { class: "chip", title: "by the verdicts so far" }, `${Math.round(100 * known)} % likely accepted`);
}

/** @param {Row} row @param {string} flag */
function flagChip(row, flag) {
  if (flag !== "domain_doubtful") return el("span", { class: flag.includes("doubtful") ? "chip warn" : "chip" }, words(flag));
  const seen = row.proposed === "unsure" ? "unsure which" : `looks ${words(row.proposed)}`;
  return el("span", { class: "chip warn", title: "by what its frames show; d sets the domain" }, `${words(flag)}: ${seen}`);
}

/** @param {Store} store @param {Row} row @param {ClipState} state */
export function paintTitle(store, row, state) {
  const source = store.setup.sources[row.source];
  const verdict = state.verdict;
  const kind = state.blind ? "blind" : (verdict?.action ?? "open");
  const domain = state.domain?.domain ?? row.domain;
  const who = state.identity?.identity_id ?? row.who;
  $("title").replaceChildren(
    el(
      "div",
      { class: "title-line" },
      el("h2", { title: row.id }, source.title),
      el("span", { class: "place" }),
    ),
    el(
      "p",
      { class: "chips" },
      el("strong", { class: `verdict ${kind}`, id: "verdict" }, stateText(state)),
      verdict ? el("span", { class: "chip" }, `${verdict.who}, ${clock(verdict.at)}`) : null,
      el("span", { class: state.domain ? "chip changed" : "chip" }, words(domain)),
      el("span", { class: state.identity ? "chip changed" : "chip", title: "identity" }, who),
      el("span", { class: "chip" }, seconds(row.frames / row.fps)),
      state.trim ? el("span", { class: "chip changed" }, `cut to ${state.trim.trim?.join("–")}`) : null,
      ...(row.flags ?? []).map((flag) => flagChip(row, flag)),
      chance(store, row, state),
      row.missed ? el("span", { class: "chip bad" }, `limits: ${words(row.missed)}`) : null,
    ),
    state.stale ? staleLine(state.stale) : "",
  );
}

/** @param {Review[]} stale */
function staleLine(stale) {
  const said = stale.map((review) => `${review.who} said “${reviewText(review)}”`).join("; ");
  const cuts = stale.filter((review) => review.action === "trim").length;
  return el(
    "p",
    { class: "stale", role: "status" },
    `Made anew since: ${said}. `,
    ...(cuts < stale.length ? [el("kbd", {}, "c"), " says it of this version too. "] : []),
    ...(cuts ? ["A cut names frames of its version: make it anew with ", el("kbd", {}, "["), " ", el("kbd", {}, "]"), "."] : []),
  );
}

/** @param {Review} review */
export function reviewText(review) {
  const { action } = review;
  if (action === "reject") return `reject: ${reasonText(review.reason)}`;
  if (action === "domain") return `domain ${words(review.domain)}`;
  if (action === "identity") return `identity ${review.identity_id}`;
  if (action === "trim") return `cut to ${review.trim?.join("–")}`;
  return action;
}

/** @param {Store} store @param {Detail} detail @param {ClipState} state @param {(id: string) => void} open */
export function paintDetail(store, detail, state, open) {
  $("scores").replaceChildren(
    el(
      "table",
      {},
      el("caption", {}, "Scores and limits"),
      el("tbody", {}, ...merged(detail.scores).map(scoreRow), routerRow(detail.router)),
    ),
  );
  const { source } = detail;
  $("context").replaceChildren(
    part(
      "Source",
      el("p", { class: "licence" }, source.license, source.commercial === null ? null : el("span", { class: "faint" }, source.commercial ? " · commercial use" : " · no commercial use")),
      source.credit ? el("p", { class: "faint" }, source.credit) : null,
      el("p", { class: "faint mono", title: source.uri }, `${source.uri}`),
      el("p", { class: "faint" }, `${detail.span[0]} to ${detail.span[1]} s`),
    ),
    part(`Same identity, ${detail.neighbours.length}`, strip(store, detail.neighbours, open, "no other clip")),
    part(
      "Near-duplicates",
      detail.compared
        ? strip(store, detail.copies.map((copy) => copy.id), open, "none")
        : el("p", { class: "faint" }, "not compared yet: a release compares all clips"),
      ...detail.copies.map((copy) => el("p", { class: "faint" }, `by ${copy.kind}: ${number(copy.distance)} ≤ ${number(copy.limit)}`)),
    ),
    state.blind ? "" : history(detail.said),
  );
}

/** @param {string} title @param {...import("./dom.js").Child} content */
function part(title, ...content) {
  return el("div", { class: "part" }, el("h3", {}, title), ...content);
}

/** @param {Review[]} reviews */
function history(reviews) {
  if (!reviews.length) return "";
  const lines = reviews.slice(-8).reverse();
  return part(
    "What was said",
    el("ul", { class: "history" }, ...lines.map((review) => el("li", { class: review.holds ? "" : "undone" }, `${reviewText(review)} `, el("span", { class: "faint" }, `${review.who}, ${clock(review.at)}`)))),
  );
}

/** @param {Store} store @param {string[]} ids @param {(id: string) => void} open @param {string} nobody */
function strip(store, ids, open, nobody) {
  if (!ids.length) return el("p", { class: "faint" }, nobody);
  const known = ids.flatMap((id) => store.clips.row(id) ?? []);
  return el(
    "div",
    { class: "strip" },
    ...known.map((row) =>
      el(
        "button",
        { type: "button", class: store.clips.shown(row.id).verdict?.action ?? "", title: `${row.id}: ${stateText(store.clips.shown(row.id))}`, "aria-label": `open ${row.id}`, onclick: () => open(row.id) },
        el("img", { src: `/thumbs/${row.id}/${row.v}`, alt: "", loading: "lazy", width: "48", height: "48" }),
      ),
    ),
  );
}

/** Exposure has a limit on either side: one line with both. @param {Score[]} scores */
function merged(scores) {
  /** @type {Score[]} */
  const lines = [];
  for (const score of scores) {
    const same = lines.find((line) => line.name === score.name && line.limit !== null);
    if (same) Object.assign(same, { high: score.limit, missed: same.missed || score.missed, reason: same.reason ?? score.reason });
    else lines.push({ ...score });
  }
  return lines;
}

/** @param {Score} score */
function limitText({ limit, high, bound }) {
  if (limit === null || (bound === "min" && limit === 0)) return "";
  if (high !== undefined) return `${number(limit)}–${number(high)}`;
  return `${bound === "min" ? "≥" : "≤"} ${number(limit)}`;
}

/** A name and how likely it is; the claim is the domain that the manifest says. @param {Router | null} router */
function routerRow(router) {
  if (!router) return null;
  const claim = router.claim === null ? "" : `the claimed one: ${router.claim}`;
  return el("tr", { class: "free", title: claim }, el("th", { scope: "row" }, "Looks like"), el("td", { class: "value", colspan: "3" }, `${words(router.proposed)}, ${number(router.probability)}`));
}

/** @param {Score} score */
function scoreRow(score) {
  const name = NAMES[score.name] ?? words(score.name);
  return el(
    "tr",
    { class: score.missed ? "missed" : !limitText(score) ? "free" : "", title: score.why || (score.missed ? words(score.reason) : null) },
    el("th", { scope: "row" }, name),
    el("td", { class: "value" }, score.value === null ? "unknown" : number(score.value)),
    el("td", { class: "limit" }, limitText(score)),
    el("td", { class: "why" }, score.missed ? "✕" : limitText(score) && score.value !== null ? "✓" : "", score.missed ? el("span", { class: "long" }, ` ${words(score.reason)}`) : null),
  );
}
