// The messages of a recorded request: as texts, for comparison, and what is new in its conversation.

import { images } from './images.js';

export const string = (value) => (typeof value === 'string' ? value : '');
export const list = (value) => (Array.isArray(value) ? value : []);

/** The text of a content that is a string or a list of parts. */
export function flat(content) {
  if (typeof content === 'string') return content;
  return list(content?.parts ?? content).map((part) => {
    if (typeof part === 'string') return part;
    const [call, result, media] = [part?.functionCall, part?.functionResponse, part?.inlineData ?? part?.inline_data];
    if (call) return `[calls ${call.name} ${JSON.stringify(call.args)}]`;
    if (result) return `[result] ${JSON.stringify(result.response)}`;
    if (media) return /^image\//.test(media.mimeType ?? media.mime_type) ? '[image]' : `[${media.mimeType ?? media.mime_type}]`;
    switch (part?.type) {
      case 'tool_use': return `[calls ${part.name} ${JSON.stringify(part.input)}]`;
      case 'tool_result': return `[result] ${flat(part.content)}`;
      case 'image': case 'image_url': case 'input_image': return '[image]';
      default: return string(part?.text ?? part?.refusal ?? part?.thinking);
    }
  }).filter(Boolean).join('\n');
}

/** The messages of a request in any of the four APIs; null if it has none. */
export function messages(request) {
  const contents = request?.contents && [request.contents].flat().map((content) => ({ role: content?.role ?? 'user', content: content?.parts }));
  const said = request?.messages ?? request?.input ?? contents;
  if (said === undefined || said === null) return null;
  const system = request.system ?? request.instructions ?? request.systemInstruction ?? request.system_instruction;
  const all = typeof said === 'string' ? [{ role: 'user', content: said }] : list(said);
  return system === undefined || system === null ? all : [{ role: 'system', content: system }, ...all];
}

/** Whether the input of requests to a path was said in a conversation: that of some others is a text to work on. */
export function isConversation(path) {
  return !/embed|moderations|audio\//i.test(path);
}

/** A message for comparison, without cache marks, which move from message to message. */
export function essence(message) {
  return JSON.stringify(message, (key, value) => {
    if (key === 'cache_control') return undefined;
    return key === 'content' && typeof value === 'string' ? [{ type: 'text', text: value }] : value;
  });
}

/** A message as text, and its images. */
export function spoken(message) {
  const calls = list(message?.tool_calls).map(({ function: call }) => `[calls ${call?.name} ${call?.arguments}]`);
  const item = message?.type === 'function_call' ? `[calls ${message.name} ${message.arguments}]`
    : message?.type === 'function_call_output' ? `[result] ${flat(message.output)}` : '';
  return { role: string(message?.role ?? message?.type) || '?', text: [flat(message?.content), ...calls, item].filter(Boolean).join('\n'), images: images(JSON.stringify(message) ?? '') };
}

/**
 * What is new in a request since the previous one of its conversation: of `earlier` (the latest first) one whose messages are all the
 * beginning of its own, then the one that shares the most of them, then the latest. `{ previous, common, added, dropped, changed }`, or null.
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
    const isWhole = common === theirs.length;
    // Equal instructions alone do not make a conversation.
    if (said.slice(0, common).some(isSpoken) && (!best || (isWhole - best.isWhole || common - best.common) > 0)) best = { exchange, body, common, theirs, isWhole };
  }
  if (!best) return null;
  const rest = (body) => Object.fromEntries(Object.entries(body).filter(([key]) => !SAID.includes(key)));
  const [before, after] = [rest(best.body), rest(request)];
  const keys = [...new Set([...Object.keys(before), ...Object.keys(after)])];
  return {
    previous: best.exchange, common: best.common,
    added: said.slice(best.common).map(spoken), dropped: best.theirs.slice(best.common).map(spoken),
    changed: keys.filter((key) => JSON.stringify(before[key]) !== JSON.stringify(after[key])).map((key) => ({ key, before: before[key], after: after[key] })),
  };
}

/** The members of a request that hold its messages. */
const SAID = ['messages', 'input', 'contents', 'system', 'instructions', 'systemInstruction', 'system_instruction'];
