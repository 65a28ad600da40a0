// Which requests belong to one conversation: a request continues the one whose messages are the beginning of its own.

import { bodyText, parsed } from './exchange.js';
import { sum } from './format.js';
import { essence, flat, isConversation, messages } from './messages.js';

export class Conversations {
  constructor() {
    /** By the messages so far, as a hash: the conversation that they belong to. */
    this.byMessages = new Map();
    this.ids = new WeakMap();
  }

  /** Groups requests (the newest first) by conversation: each of several requests becomes `{ turns, … }` at the place of its newest. */
  group(requests) {
    for (const one of requests.toReversed()) this.learn(one);
    const groups = Map.groupBy(requests, (one) => this.ids.get(one) ?? one.key);
    return [...groups].map(([id, turns]) => {
      const [latest] = turns;
      if (turns.length === 1) return latest;
      const { order, bodies } = latest;
      return { ...latest, ...sum(turns), key: `conversation-${id}`, order, bodies, members: turns };
    });
  }

  learn(one) {
    if (this.ids.has(one) || !one.bodies.request || !isConversation(one.path)) return;
    const said = messagesOf(one);
    // It is not read again.
    if (!said?.length) {
      this.ids.set(one, one.key);
      return;
    }
    let hash = hashOf(`${one.port} ${one.path}`, 0);
    let id;
    let isSpoken = false;
    for (const message of said) {
      hash = hashOf(essence(message) ?? '', hash);
      // Equal instructions alone do not make a conversation.
      isSpoken ||= !/^(system|developer)$/.test(message?.role);
      if (isSpoken) id = this.byMessages.get(hash) ?? id;
    }
    this.byMessages.set(hash, id ??= one.key);
    if (this.byMessages.size > HASHES_MAX) this.byMessages.delete(this.byMessages.keys().next().value);
    this.ids.set(one, id);
  }
}

/** As many as requests are kept, several times. */
const HASHES_MAX = 10_000;

function messagesOf(one) {
  return messages(parsed(bodyText(one.bodies.request, one.requestFields).text ?? ''));
}

/** What the user said last in a recorded request, in one line; `''` if that is not known. */
export function lastSaid(one) {
  const { request } = one.bodies;
  if (!request) return '';
  if (said.get(request) === undefined) {
    const message = messagesOf(one)?.findLast((each) => each?.role === 'user' && flat(each.content));
    said.set(request, flat(message?.content).slice(0, SAID_MAX).replace(/\s+/g, ' '));
  }
  return said.get(request);
}

const said = new WeakMap();

/** Longer than a line of the list. */
const SAID_MAX = 300;

/** A hash of 53 bits (cyrb53): equal ones of different messages do not occur in practice. */
function hashOf(text, seed) {
  let [high, low] = [0xdeadbeef ^ (seed % 0x100000000), 0x41c6ce57 ^ Math.floor(seed / 0x100000000)];
  for (let place = 0; place < text.length; place++) {
    const code = text.charCodeAt(place);
    high = Math.imul(high ^ code, 2654435761);
    low = Math.imul(low ^ code, 1597334677);
  }
  high = Math.imul(high ^ (high >>> 16), 2246822507) ^ Math.imul(low ^ (low >>> 13), 3266489909);
  low = Math.imul(low ^ (low >>> 16), 2246822507) ^ Math.imul(high ^ (high >>> 13), 3266489909);
  return 4294967296 * (2097151 & low) + (high >>> 0);
}
