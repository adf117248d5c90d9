// @ts-check
// Elements without innerHTML, and words for people: what comes from a workspace is text, whatever it holds.
// A bundle's page holds this file too.

/**
 * The element of an id; it is there.
 * @type {<K extends string>(id: K) => K extends keyof PageElements ? PageElements[K] : HTMLElement}
 */
export const $ = (id) => /** @type {any} */ (document.getElementById(id));

/** @typedef {Node | string | null | undefined | false} Child */

/**
 * An element: properties that begin with "on" are listeners, absent ones and absent children are left out.
 * @template {keyof HTMLElementTagNameMap} K
 * @param {K} tag
 * @param {Record<string, any>} [properties]
 * @param {...Child} children
 * @returns {HTMLElementTagNameMap[K]}
 */
export function el(tag, properties = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null || value === false) continue;
    if (name === "class") node.className = value;
    else if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name in node && typeof value !== "string") Object.assign(node, { [name]: value });
    else node.setAttribute(name, value === true ? "" : value);
  }
  for (const child of children) if (child !== null && child !== undefined && child !== false) node.append(child);
  return node;
}

/** @param {unknown} name of ours, as people read it */
export const words = (name) => String(name ?? "").replaceAll("_", " ");

/** The last of the nine reasons is a reviewer's own. @param {string | null | undefined} reason */
export const reasonText = (reason) => (reason === "reviewer" ? "other" : words(reason));

/** @param {{action: Action, reason?: string | null} | null | undefined} verdict */
export function verdictText(verdict) {
  if (!verdict) return "undecided";
  return verdict.action === "accept" ? "accepted" : `rejected: ${reasonText(verdict.reason)}`;
}

/** As the tool writes a time. @param {Date} time */
export const stamp = (time) => time.toISOString().replace("Z", "+00:00");

/** @param {number | null | undefined} value @param {number} [digits] */
export function number(value, digits = 3) {
  if (value === null || value === undefined) return "–";
  return Number(value).toLocaleString("en", { maximumSignificantDigits: digits, useGrouping: false });
}

/** @param {number} value */
export const seconds = (value) => `${Number(value).toFixed(1)} s`;
