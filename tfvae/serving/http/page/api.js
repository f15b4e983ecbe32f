/** Ids become text, as the service compares them; a number beyond 2^53 keeps its digits where the browser tells them. */
function idsAsText(key, value, context) {
  return key === "item" && typeof value === "number" ? (context?.source ?? String(value)) : value;
}

/**
 * Asks the service.
 *
 * @param {string} path Relative to the page, so that the service may lie behind any prefix of a proxy.
 * @param {{query?: Object, body?: Object, signal?: AbortSignal}} request With a body it is a POST.
 * @returns {Promise<Object>} The answer.
 * @throws {Error} With one line for the person who looks at the page.
 */
export async function ask(path, { query, body, signal } = {}) {
  const address = query ? `${path}?${new URLSearchParams(query)}` : path;
  const post = { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) };
  let response;
  let text;
  try {
    response = await fetch(address, { ...(body && post), signal });
    text = await response.text();
  } catch (problem) {
    if (signal?.aborted) throw problem;
    throw new Error("The service does not answer; it may have been stopped.");
  }
  let answer;
  try {
    answer = JSON.parse(text, idsAsText);
  } catch {
    throw new Error(`Expected JSON from the service, found something else, with status ${response.status}.`);
  }
  if (!response.ok) throw new Error(answer.error?.message ?? `The service answered with status ${response.status}.`);
  return answer;
}
