// @ts-check
// How the page asks its server.

const ANSWER_MS = 15000;

/** The server answered, and said no. */
export class Refused extends Error {
  /** @param {string} sentence @param {number} status */
  constructor(sentence, status) {
    super(sentence);
    this.status = status;
  }
}

/**
 * What the server answers, as JSON; a body makes it a POST.
 * @param {string} path
 * @param {object} [body]
 * @returns {Promise<any>}
 */
export async function ask(path, body) {
  /** @type {RequestInit} */
  const options = { signal: AbortSignal.timeout(ANSWER_MS), cache: "no-store" };
  if (body !== undefined) {
    options.method = "POST";
    options.headers = { "Content-Type": "application/json" };
    options.body = JSON.stringify(body);
  }
  const answer = await fetch(path, options);
  if (answer.ok) return answer.json();
  const content = await answer.json().catch(() => ({}));
  throw new Refused(content.error || `the server answered ${answer.status}`, answer.status);
}
