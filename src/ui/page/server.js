// Requests to the server of the page.

/** Where the tab keeps the token. */
export const TOKEN = 'ic-token';

/** Sends a request, which is a change if it has a `question`. */
export function request(name, question, signal) {
  const change = question !== undefined;
  return fetch(`/api/${name}`, {
    method: change ? 'POST' : 'GET',
    headers: { 'X-Ic-Token': sessionStorage.getItem(TOKEN) ?? '', ...(change && { 'Content-Type': 'application/json' }) },
    body: change ? JSON.stringify(question) : undefined,
    signal,
  });
}

/** Sends a request and returns its answer, which has an `error` if the request failed. */
export async function ask(name, question) {
  try {
    const response = await request(name, question);
    if (question === undefined && response.ok) return { blob: await response.blob() };
    const answer = await response.json();
    return response.ok || answer.error ? answer : { error: `the server answered ${response.status}` };
  } catch {
    return { error: '`ic ui` does not answer; is it still running?' };
  }
}

/** Calls `receive` with each document of a response until it ends. A line can arrive in several pieces. */
export async function readLines(response, receive) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = '';
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const lines = (rest + value).split('\n');
    rest = lines.pop();
    for (const line of lines) {
      try {
        receive(JSON.parse(line));
      } catch (error) {
        // An unexpected line does not end the stream.
        console.error(error);
      }
    }
  }
}

/** Calls `receive` with what has come so far of a request's response, until it is complete or the returned function is called. */
export function watchResponse({ pid, id }, receive) {
  const stop = new AbortController();
  request('watch', { pid, id }, stop.signal)
    .then((response) => response.ok && readLines(response, (line) => line.event === 'body' && receive(line)))
    // It was stopped, or `ic ui` has ended, which the page shows.
    .catch(() => {});
  return () => stop.abort();
}
