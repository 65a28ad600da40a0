// OpenAI's and Anthropic's libraries for node, without their retries, which would hide lost requests.
//
// Usage: node_sdks.js SCENE CLIENT (JSON; see ../table.py)
'use strict';

const assert = require('node:assert/strict');
const { randomBytes } = require('node:crypto');
const { setTimeout: sleep } = require('node:timers/promises');
const { default: OpenAI } = require('openai');
const { default: Anthropic } = require('@anthropic-ai/sdk');
const { EVENTS, FORGED, TOGETHER, expectIdentity, fieldsOf, run } = require('./cases.js');

class ForOpenAI {
  constructor(scene) {
    this.library = OpenAI;
    this.client = new OpenAI({ baseURL: `${scene.through}/v1`, apiKey: 'none', maxRetries: 0 });
  }

  create(content, stream, options) {
    return this.client.chat.completions.create({ model: 'm', messages: [{ role: 'user', content }], stream }, options);
  }

  text(answer) {
    return answer.choices[0].message.content;
  }

  piece(event) {
    return event.choices[0].delta.content;
  }
}

class ForAnthropic {
  constructor(scene) {
    this.library = Anthropic;
    this.client = new Anthropic({ baseURL: scene.through, apiKey: 'none', maxRetries: 0 });
  }

  create(content, stream, options) {
    const messages = [{ role: 'user', content }];
    return this.client.messages.create({ model: 'm', max_tokens: 16, messages, stream }, options);
  }

  text(answer) {
    return answer.content[0].text;
  }

  piece(event) {
    return event.type === 'content_block_delta' ? event.delta.text : undefined;
  }
}

function ask(client, name, want = '', { content = 'hello', stream = false, fields = {}, ...options } = {}) {
  return client.create(content, stream, { headers: { 'x-case': name, 'x-want': want, ...fields }, ...options });
}

// The request as the target received it, from the text of its response.
function told(client, answer) {
  return JSON.parse(client.text(answer));
}

async function plain(scene, client, name) {
  assert.equal(told(client, await ask(client, name)).method, 'POST');
  assert.match(fieldsOf(await scene.seen(name))['user-agent'][0], /^(OpenAI|Anthropic)\/JS/);
}

async function events(scene, client, name) {
  const said = [];
  for await (const event of await ask(client, name, `events=${EVENTS}`, { stream: true })) {
    const piece = client.piece(event);
    if (piece === undefined) continue;
    said.push(piece);
    // The target sends the next event only now, so a buffered event would never arrive.
    if (said.length < EVENTS) await scene.control('next', name);
  }
  assert.deepEqual(said, ['0 ', '1 ', '2 ', '3 ', '4 ']);
  await scene.ended(name, 'done');
}

async function upload(scene, client, name) {
  const content = randomBytes(scene.bytes / 2).toString('hex');
  const answer = told(client, await ask(client, name, '', { content }));
  assert.ok(answer.bytes > content.length);
  // Twice the same text, so that a loss in only one of them is detected.
  assert.deepEqual(told(client, await ask(client, `${name}-again`, '', { content })), answer);
}

async function refused(scene, client, name) {
  const content = 'x'.repeat(scene.bytes);
  await assert.rejects(ask(client, name, 'refuse', { content }), (error) => {
    assert.equal(error.status, 413, error.stack);
    return /too large/.test(error.message);
  });
}

async function leavesEarly(scene, client, name) {
  const abort = new AbortController();
  const asked = ask(client, name, 'hold', { signal: abort.signal });
  asked.catch(() => {});
  await scene.seen(name);
  abort.abort();
  await assert.rejects(asked, client.library.APIUserAbortError);
  await scene.ended(name, 'gone');
}

async function leavesMidway(scene, client, name) {
  const stream = await ask(client, name, `events=${EVENTS}`, { stream: true });
  for await (const event of stream) {
    if (client.piece(event)) break;
  }
  stream.controller.abort();
  await scene.ended(name, 'gone');
}

async function idle(scene, client, name) {
  told(client, await ask(client, `${name}-0`));
  // The case needs this pause: no event ends it earlier.
  await sleep(scene.idle_seconds * 1000);
  told(client, await ask(client, `${name}-1`));
}

async function slow(scene, client, name) {
  told(client, await ask(client, name, `slow=${scene.slow_seconds}`));
}

async function errors(scene, client, name) {
  const { AuthenticationError, RateLimitError, InternalServerError } = client.library;
  const expected = [[401, AuthenticationError], [429, RateLimitError], [500, InternalServerError]];
  for (const [status, kind] of expected) {
    await assert.rejects(ask(client, `${name}-${status}`, `status=${status}`), (error) => {
      assert.ok(error instanceof kind, error.stack);
      assert.match(error.message, /as asked/);
      assert.equal(error.headers.get('retry-after'), '7');
      return !error.headers.has('x-ic-error');
    });
  }
}

async function packed(scene, client, name) {
  assert.equal(told(client, await ask(client, name, 'gzip')).method, 'POST');
}

async function together(scene, client, name) {
  const numbers = [...Array(TOGETHER).keys()];
  const asked = (number) => ask(client, `${name}-${number}`, `together=${TOGETHER}`, { content: `n=${number}` });
  const answers = await Promise.all(numbers.map(asked));
  for (const number of numbers) {
    assert.deepEqual(told(client, answers[number]), (await scene.seen(`${name}-${number}`)).told);
  }
}

async function identity(scene, client, name) {
  told(client, await ask(client, name, '', { fields: FORGED }));
  await expectIdentity(scene, name);
}

const rows = {
  plain,
  events,
  upload,
  refused,
  'leaves early': leavesEarly,
  'leaves midway': leavesMidway,
  idle,
  slow,
  errors,
  gzip: packed,
  together,
  identity,
};
const make = process.argv[3] === 'openai-js' ? (scene) => new ForOpenAI(scene) : (scene) => new ForAnthropic(scene);
run(make, rows, 'the library supports only JSON and events');
