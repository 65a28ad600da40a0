// What a model's answer says, or what went wrong, from a recorded document or stream.

import { parsed } from './exchange.js';
import { flat, list, string } from './messages.js';

/** The JSON data of a stream's events; others are left out. */
function events(text) {
  return text.split(/\r\n\r\n|\n\n|\r\r/).map((event) =>
    event.split(/\r\n|\n|\r/).filter((line) => line.startsWith('data:')).map((line) => line.slice(5).replace(/^ /, '')).join('\n'))
    .map(parsed).filter((data) => data && typeof data === 'object');
}

/**
 * A model's answer as `{ text, reasoning, tools: [{ name, input }], stop }`, from a document or a stream of OpenAI's chat
 * completions or responses, of Anthropic's messages, or of Gemini's contents; null for anything else.
 */
export function assembled(text) {
  const answer = { text: '', reasoning: '', tools: [], stop: null };
  // Of a list that has not ended, the elements that have.
  const document = parsed(text) ?? parsed(`${text}]`) ?? parsed(`${text.slice(0, Math.max(0, text.lastIndexOf(',\r\n')))}]`);
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

function whole(document, answer) {
  // Gemini streams a list unless it is asked for events.
  const contents = [document].flat().filter(Boolean);
  if (contents[0]?.candidates) return contents.map(collector(answer)).some(Boolean);
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

function takePart(answer, part) {
  answer[part?.thought ? 'reasoning' : 'text'] += string(part?.text);
  const call = part?.functionCall;
  if (call) answer.tools.push({ name: string(call.name), input: JSON.stringify(call.args ?? {}) });
}

/** Returns a function that adds one event of a stream to the answer, and returns whether its kind is known. */
function collector(answer) {
  const blocks = new Map();
  const tool = (index) => (answer.tools[Math.min(index ?? 0, 255)] ??= { name: '', input: '' });
  return (event) => {
    if (Array.isArray(event?.candidates)) {
      const [candidate] = event.candidates;
      for (const part of list(candidate?.content?.parts)) takePart(answer, part);
      answer.stop = candidate?.finishReason ?? answer.stop;
      return true;
    }
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
