// Elements without innerHTML: what comes from a workspace is text, whatever it holds.

export const $ = (id) => document.getElementById(id);

export function el(tag, properties = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null || value === false) continue;
    if (name === "class") node.className = value;
    else if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name in node && typeof value !== "string") node[name] = value;
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

export const words = (name) => String(name ?? "").replaceAll("_", " ");

// The last of the nine reasons is a reviewer's own.
export const reasonText = (reason) => (reason === "reviewer" ? "other" : words(reason));

export function number(value, digits = 3) {
  if (value === null || value === undefined) return "–";
  return Number(value).toLocaleString("en", { maximumSignificantDigits: digits, useGrouping: false });
}

export const seconds = (value) => `${Number(value).toFixed(1)} s`;
