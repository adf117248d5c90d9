// @ts-check
// Which clips the grid lists, and in which order.

/** @type {Kind[]} */
export const KINDS = ["verdict", "domain", "identity", "trim"];

/**
 * Ids of the clips that fit, in the order that is asked for.
 * @param {import("./clips.js").Clips} clips
 * @param {Setup["sources"]} sources
 * @param {Filters} filters
 */
export function listed(clips, sources, filters) {
  const text = (filters.text || "").toLowerCase();
  const rows = clips.rows.filter((row) => fits(row, clips.shown(row.id), filters) && (!text || textOf(row, sources).includes(text)));
  if (filters.sort !== "source") {
    const last = clips.rank.size + 1;
    rows.sort((a, b) => (clips.rank.get(a.id) ?? last) - (clips.rank.get(b.id) ?? last));
  }
  return rows.map((row) => row.id);
}

/** @param {Row} row @param {Setup["sources"]} sources */
const textOf = (row, sources) => `${row.id} ${row.who} ${sources[row.source].title}`.toLowerCase();

/** @param {Row} row @param {ClipState} state @param {Filters} filters */
function fits(row, state, filters) {
  const { verdict } = state;
  if (filters.domain && (state.domain?.domain ?? row.domain) !== filters.domain) return false;
  if (filters.verdict === "open" && verdict) return false;
  if ((filters.verdict === "accept" || filters.verdict === "reject") && verdict?.action !== filters.verdict) return false;
  if (filters.verdict === "kept" && row.missed) return false;
  if (filters.verdict === "missed" && !row.missed) return false;
  if (filters.reason && verdict?.reason !== filters.reason && row.missed !== filters.reason) return false;
  if (filters.who && !KINDS.some((kind) => state[kind]?.who === filters.who)) return false;
  if (filters.flag && !row.flags?.includes(filters.flag)) return false;
  return !filters.stale || Boolean(state.stale);
}
