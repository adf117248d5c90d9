// @ts-check
// How far screening has come.

/**
 * Decided clips in all and by domain, and the accepted seconds.
 * @param {import("./clips.js").Clips} clips
 */
export function progressOf({ rows, states }) {
  /** @type {Map<string, {decided: number, total: number}>} */
  const domains = new Map();
  let accepted = 0;
  let decided = 0;
  for (const row of rows) {
    const state = states.get(row.id);
    const name = state?.domain?.domain ?? row.domain;
    const domain = domains.get(name) ?? { decided: 0, total: 0 };
    domain.total += 1;
    if (state?.verdict) {
      domain.decided += 1;
      decided += 1;
      const [start, stop] = state.trim?.trim ?? [0, row.frames];
      if (state.verdict.action === "accept") accepted += (stop - start) / row.fps;
    }
    domains.set(name, domain);
  }
  return { domains, accepted, decided, total: rows.length };
}
