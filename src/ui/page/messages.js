// The messages of a recorded request: as texts, for comparison, and what is new in its conversation.

export const string = (value) => (typeof value === 'string' ? value : '');
export const list = (value) => (Array.isArray(value) ? value : []);

/** The text of a content that is a string or a list of parts. */
export function flat(content) {
  if (typeof content === 'string') return content;
  return list(content).map((part) => {
    if (typeof part === 'string') return part;
    switch (part?.type) {
      case 'tool_use': return `[calls ${part.name} ${JSON.stringify(part.input)}]`;
      case 'tool_result': return `[result] ${flat(part.content)}`;
      case 'image': case 'image_url': case 'input_image': return '[image]';
      default: return string(part?.text ?? part?.refusal ?? part?.thinking);
    }
  }).filter(Boolean).join('\n');
}

/** The messages of a request in any of the three APIs; null if it has none. */
export function messages(request) {
  const said = request?.messages ?? request?.input;
  if (said === undefined || said === null) return null;
  const system = request.system ?? request.instructions;
  const all = typeof said === 'string' ? [{ role: 'user', content: said }] : list(said);
  return system === undefined || system === null ? all : [{ role: 'system', content: system }, ...all];
}

/** A message for comparison, without cache marks, which move from message to message. */
export function essence(message) {
  return JSON.stringify(message, (key, value) => {
    if (key === 'cache_control') return undefined;
    return key === 'content' && typeof value === 'string' ? [{ type: 'text', text: value }] : value;
  });
}

/** A message as text. */
export function spoken(message) {
  const calls = list(message?.tool_calls).map(({ function: call }) => `[calls ${call?.name} ${call?.arguments}]`);
  const item = message?.type === 'function_call' ? `[calls ${message.name} ${message.arguments}]`
    : message?.type === 'function_call_output' ? `[result] ${flat(message.output)}` : '';
  return { role: string(message?.role ?? message?.type) || '?', text: [flat(message?.content), ...calls, item].filter(Boolean).join('\n') };
}

/**
 * What is new in a request since the previous one of its conversation: the one of `earlier` (the latest first) that shares the
 * most initial messages. `{ previous, common, added, dropped, changed }`, or null.
 */
export function difference(request, earlier) {
  const said = messages(request);
  if (!said?.length) return null;
  const own = said.map(essence);
  const isSpoken = (message) => !/^(system|developer)$/.test(message?.role);
  let best = null;
  for (const { exchange, body } of earlier) {
    const theirs = messages(body);
    if (!theirs) continue;
    let common = 0;
    while (common < own.length && common < theirs.length && own[common] === essence(theirs[common])) common++;
    // Equal instructions alone do not make a conversation.
    if (said.slice(0, common).some(isSpoken) && common > (best?.common ?? 0)) best = { exchange, body, common, theirs };
  }
  if (!best) return null;
  const rest = ({ messages: _, input: _i, system: _s, instructions: _n, ...others }) => others;
  const [before, after] = [rest(best.body), rest(request)];
  const keys = [...new Set([...Object.keys(before), ...Object.keys(after)])];
  return {
    previous: best.exchange, common: best.common,
    added: said.slice(best.common).map(spoken), dropped: best.theirs.slice(best.common).map(spoken),
    changed: keys.filter((key) => JSON.stringify(before[key]) !== JSON.stringify(after[key])).map((key) => ({ key, before: before[key], after: after[key] })),
  };
}
