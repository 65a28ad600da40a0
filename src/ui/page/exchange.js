// Pure functions of a recorded request: its curl command, the text of its answer, and what is new in its conversation.

const KEYS = /^(authorization|proxy-authorization|x-api-key|api-key|x-goog-api-key)$/i;

/** Fields that curl adds itself, or that concern one connection only. */
const LEFT_OUT = /^(host|content-length|transfer-encoding|connection|keep-alive|te|trailer|upgrade|expect|proxy-connection|accept-encoding|cookie|http2-settings)$/i;

/** Quotes an argument for a POSIX shell. An argument cannot contain NUL. */
export function quoted(given) {
  const text = given.replaceAll('\0', '');
  return /^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`;
}

/** The request as a curl command. The page does not have the keys, so the shell variable API_KEY replaces them. */
export function curl(exchange, port, body) {
  // The feed replaces query values by a character that is not allowed in a target.
  const path = (exchange.path ?? '/').replace(/\p{Surrogate}/gu, '\ufffd').replace(/[^\x21-\x7e]/gu, encodeURIComponent);
  const url = `http://localhost:${port}${path}`;
  const parts = ['curl'];
  // Without it curl expands brackets and braces.
  if (/[[\]{}]/.test(url)) parts.push('--globoff');
  if (exchange.method === 'HEAD') parts.push('--head');
  else if (exchange.method !== (body === undefined ? 'GET' : 'POST')) parts.push(`-X ${quoted(exchange.method ?? 'GET')}`);
  parts.push(quoted(url));
  for (const [name, value] of exchange.requestFields ?? []) {
    if (/^accept-encoding$/i.test(name)) parts.push('--compressed');
    if (LEFT_OUT.test(name)) continue;
    if (KEYS.test(name)) {
      const scheme = /^(bearer|basic)\s/i.exec(value)?.[0] ?? (/authorization$/i.test(name) ? 'Bearer ' : '');
      parts.push(`-H "${name}: ${scheme}$API_KEY"`);
    } else {
      // For curl, `Name:` removes the field, and `Name;` sends it empty.
      parts.push(`-H ${quoted(value === '' ? `${name};` : `${name}: ${value}`)}`);
    }
  }
  if (body !== undefined) parts.push(`--data-raw ${quoted(body)}`);
  return parts.join(' \\\n  ');
}

export function field(fields, name) {
  return fields?.find(([key]) => key.toLowerCase() === name)?.[1];
}

/** A recorded body as text, or a note that says why there is none. */
export function bodyText({ encoding, data }, fields) {
  if (encoding === 'omitted') return { note: `not kept: it is compressed with ${field(fields, 'content-encoding')}, so keys in it would not be found` };
  if (encoding !== 'base64') return { text: data };
  const raw = Uint8Array.from(atob(data), (character) => character.charCodeAt(0));
  try {
    return { text: new TextDecoder('utf-8', { fatal: true }).decode(raw) };
  } catch {
    return { note: `${raw.length} bytes that are not text` };
  }
}

export function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** The JSON data of a stream's events; others are left out. */
function events(text) {
  return text.split(/\r\n\r\n|\n\n|\r\r/).map((event) =>
    event.split(/\r\n|\n|\r/).filter((line) => line.startsWith('data:')).map((line) => line.slice(5).replace(/^ /, '')).join('\n'))
    .map(parsed).filter((data) => data && typeof data === 'object');
}

/**
 * A model's answer as `{ text, reasoning, tools: [{ name, input }], stop }`, from a document or a stream of OpenAI's chat
 * completions or responses, or of Anthropic's messages; null for anything else.
 */
export function assembled(text) {
  const answer = { text: '', reasoning: '', tools: [], stop: null };
  const document = parsed(text);
  const seen = document && typeof document === 'object' ? whole(document, answer) : events(text).map(collector(answer)).some(Boolean);
  if (!seen) return null;
  answer.tools = answer.tools.filter(Boolean);
  return answer;
}

/**
 * What an error document, or an event of a stream, says went wrong: OpenAI, Anthropic and Gemini have `error.message`, other servers a
 * text as `error`, `message` or `detail`. Null for anything else.
 */
export function failure(text) {
  const document = parsed(text);
  const found = document && typeof document === 'object' ? messageIn(list(document)[0] ?? document) : events(text).map(failureIn).find(Boolean);
  return found || null;
}

function messageIn(document) {
  const { error } = document;
  if (error) return string(error.message ?? error);
  // A response or a chat completion may have a member of that name too.
  return document.choices || document.output ? '' : string(document.message) || string(document.detail);
}

function failureIn(event) {
  return string(event.error?.message ?? event.response?.error?.message ?? (event.type === 'error' ? event.message : ''));
}

const string = (value) => (typeof value === 'string' ? value : '');
const list = (value) => (Array.isArray(value) ? value : []);

function whole(document, answer) {
  const message = list(document.choices)[0]?.message;
  if (message) {
    answer.text = flat(message.content);
    answer.reasoning = string(message.reasoning_content ?? message.reasoning);
    answer.stop = document.choices[0].finish_reason ?? null;
    answer.tools = list(message.tool_calls).map(({ function: call }) => ({ name: string(call?.name), input: string(call?.arguments) }));
    return true;
  }
  if (Array.isArray(document.output)) {
    for (const item of document.output) takeItem(answer, item);
    answer.stop = document.incomplete_details?.reason ?? document.status ?? null;
    return true;
  }
  if (document.type === 'message' && Array.isArray(document.content)) {
    for (const block of document.content) {
      if (block?.type === 'text') answer.text += string(block.text);
      if (block?.type === 'thinking') answer.reasoning += string(block.thinking);
      if (/tool_use$/.test(block?.type)) answer.tools.push({ name: string(block.name), input: JSON.stringify(block.input) });
    }
    answer.stop = document.stop_reason ?? null;
    return true;
  }
  return false;
}

function takeItem(answer, item) {
  if (item?.type === 'message') answer.text += flat(item.content);
  if (item?.type === 'reasoning') answer.reasoning += flat(item.summary);
  if (item?.type === 'function_call') answer.tools.push({ name: string(item.name), input: string(item.arguments) });
}

/** Returns a function that adds one event of a stream to the answer, and returns whether its kind is known. */
function collector(answer) {
  const blocks = new Map();
  const tool = (index) => (answer.tools[Math.min(index ?? 0, 255)] ??= { name: '', input: '' });
  return (event) => {
    if (Array.isArray(event.choices)) {
      const [choice] = event.choices;
      const delta = choice?.delta ?? {};
      answer.text += flat(delta.content ?? choice?.text);
      answer.reasoning += string(delta.reasoning_content ?? delta.reasoning);
      for (const call of list(delta.tool_calls)) {
        const known = tool(call?.index);
        known.name += string(call?.function?.name);
        known.input += string(call?.function?.arguments);
      }
      answer.stop = choice?.finish_reason ?? answer.stop;
      return true;
    }
    switch (event.type) {
      case 'content_block_start':
        blocks.set(event.index, event.content_block?.type);
        if (/tool_use$/.test(event.content_block?.type)) tool(event.index).name = string(event.content_block.name);
        answer.text += string(event.content_block?.text);
        break;
      case 'content_block_delta':
        answer.text += string(event.delta?.text);
        answer.reasoning += string(event.delta?.thinking);
        if (typeof event.delta?.partial_json === 'string') tool(event.index).input += event.delta.partial_json;
        break;
      case 'message_delta':
        answer.stop = event.delta?.stop_reason ?? answer.stop;
        break;
      case 'response.output_text.delta':
        answer.text += string(event.delta);
        break;
      case 'response.reasoning_summary_text.delta':
      case 'response.reasoning_text.delta':
        answer.reasoning += string(event.delta);
        break;
      case 'response.output_item.added':
        if (event.item?.type === 'function_call') tool(event.output_index).name = string(event.item.name);
        break;
      case 'response.function_call_arguments.delta':
        tool(event.output_index).input += string(event.delta);
        break;
      case 'response.completed':
      case 'response.incomplete':
      case 'response.failed':
        answer.stop = event.response?.incomplete_details?.reason ?? event.response?.status ?? answer.stop;
        break;
      default:
        return /^(message_|content_block_|response\.)/.test(event.type);
    }
    return true;
  };
}

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
