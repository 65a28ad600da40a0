// The cases for clients in node. cases.py has the same for Python, and documents them.
//
// A client has `send` (a complete response), `open` (a response that is read line by line) and `leave` (sends a request,
// and disconnects when `arrived` is fulfilled).
'use strict';

const assert = require('node:assert/strict');
const { createHash } = require('node:crypto');
const fs = require('node:fs');
const http = require('node:http');
const https = require('node:https');
const { setTimeout: sleep } = require('node:timers/promises');

const EVENTS = 5;
const TOGETHER = 50;
const SECONDS_MAX = 90;
const IDENTIFICATION = ['x-memory-user-id', 'x-pycharm-instance', 'x-source'];
const FORGED = {
  'x-memory-user-id': 'somebody-else',
  'X-Source': 'elsewhere',
  'x-of-the-client': 'kept, as it is',
};
const PATH = '/v1/any?x=1&y=two&empty=';

// The parameters of a client on its command line.
class Scene {
  constructor(told) {
    Object.assign(this, told);
    this.ca = told.ca ? fs.readFileSync(told.ca) : undefined;
  }

  // Sends a request directly to the target, on a new connection.
  control(what, name) {
    const url = `${this.target}/${what}?case=${name}`;
    const method = what === 'next' ? 'POST' : 'GET';
    const { request } = url.startsWith('https') ? https : http;
    return new Promise((resolve, reject) => {
      const asking = request(url, { method, ca: this.ca, agent: false }, async (answer) => {
        const pieces = [];
        for await (const piece of answer) pieces.push(piece);
        resolve(JSON.parse(Buffer.concat(pieces)));
      });
      asking.on('error', reject);
      asking.end();
    });
  }

  seen(name) {
    return until(`the target has seen ${name}`, async () => {
      const record = await this.control('seen', name);
      return record.fields && record;
    });
  }

  ended(name, how) {
    const so = async () => (await this.control('seen', name)).ended === how;
    return until(`the target sees that ${name} is ${how}`, so);
  }
}

async function until(what, attempt, seconds = 15) {
  const deadline = Date.now() + seconds * 1000;
  while (Date.now() < deadline) {
    const result = await attempt();
    if (result) return result;
    await sleep(20);
  }
  throw new Error(`${what}: not within ${seconds} s`);
}

// As `run` in cases.py: a row that is a text, and `otherwise` for missing rows, is the reason why there is no such case.
async function run(make, rows, otherwise = 'the client does not support it') {
  const scene = new Scene(JSON.parse(process.argv[2]));
  const client = process.argv[3];
  const subject = make(scene);
  for (const name of scene.cases) {
    const started = performance.now();
    const row = rows[name] ?? otherwise;
    let cell = 'ok';
    let why = '';
    if (typeof row === 'string') {
      [cell, why] = ['n.a.', row];
    } else {
      try {
        const limit = new Promise((_, reject) => {
          setTimeout(() => reject(new Error(`not within ${SECONDS_MAX} s`)), SECONDS_MAX * 1000).unref();
        });
        await Promise.race([row(scene, subject, `${client}-${name}`.replaceAll(' ', '-')), limit]);
      } catch (error) {
        [cell, why] = ['FAILED', `${error.stack} ${error.cause?.stack ?? ''}`];
      }
    }
    console.log(JSON.stringify({ case: name, cell, why, seconds: (performance.now() - started) / 1000 }));
  }
  process.exit(0);
}

function send(client, name, { want = '', method = 'GET', fields = {}, body } = {}) {
  return client.send(method, PATH, { 'x-case': name, 'x-want': want, ...fields }, body);
}

// The request as the target received it.
function told(answer) {
  assert.equal(answer.status, 200, String(answer.body));
  return JSON.parse(answer.body);
}

async function plain(scene, client, name) {
  const body = Buffer.from('{"model": "m", "messages": []}');
  const got = told(await send(client, name, { method: 'POST', body, fields: { 'Content-Type': 'application/json' } }));
  assert.deepEqual(got, { method: 'POST', target: PATH, bytes: body.length, sha256: sha256(body) });
}

async function events(scene, client, name) {
  const stream = await client.open(PATH, { 'x-case': name, 'x-want': `events=${EVENTS}` });
  for (let index = 0; index < EVENTS; index += 1) {
    assert.deepEqual(await nextEvent(stream), { index });
    // The target sends the next event only now, so a buffered event would never arrive.
    if (index < EVENTS - 1) await scene.control('next', name);
  }
  assert.equal(await nextEvent(stream), null);
  await scene.ended(name, 'done');
}

async function nextEvent(stream) {
  for (;;) {
    const { value: line, done } = await stream.lines.next();
    assert.ok(!done, 'the stream ended before its end');
    if (line.startsWith('data: [DONE]')) return null;
    if (line.startsWith('data: ')) return JSON.parse(line.slice(6));
  }
}

async function* linesOf(pieces) {
  let rest = '';
  for await (const piece of pieces) {
    const lines = (rest + Buffer.from(piece).toString()).split('\n');
    rest = lines.pop();
    yield* lines;
  }
}

async function upload(scene, client, name) {
  const body = noise(scene.bytes);
  const got = told(await send(client, name, { method: 'POST', body }));
  assert.deepEqual([got.bytes, got.sha256], [body.length, sha256(body)]);
}

// A body without a length.
async function chunked(scene, client, name) {
  const body = noise(1 << 20);
  async function* pieces() {
    for (let start = 0; start < body.length; start += 50000) yield body.subarray(start, start + 50000);
  }
  const got = told(await send(client, name, { method: 'POST', body: pieces() }));
  assert.deepEqual([got.bytes, got.sha256], [body.length, sha256(body)]);
  const fields = fieldsOf(await scene.seen(name));
  assert.deepEqual([fields['transfer-encoding'], fields['content-length']], [['chunked'], undefined]);
}

async function download(scene, client, name) {
  const answer = await send(client, name, { want: `download=${scene.bytes}` });
  await scene.ended(name, 'done');
  assert.equal(answer.body.length, scene.bytes);
  assert.equal(sha256(answer.body), (await scene.seen(name)).sent_sha256);
}

// The target responds with 413 before it reads the body, which is still being sent.
async function refused(scene, client, name) {
  const answer = await send(client, name, { want: 'refuse', method: 'POST', body: noise(scene.bytes) });
  assert.equal(answer.status, 413);
  assert.equal(JSON.parse(answer.body).error.message, 'too large');
}

async function leavesEarly(scene, client, name) {
  await client.leave(PATH, { 'x-case': name, 'x-want': 'hold' }, scene.seen(name));
  await scene.ended(name, 'gone');
}

async function leavesMidway(scene, client, name) {
  const stream = await client.open(PATH, { 'x-case': name, 'x-want': `events=${EVENTS}` });
  assert.deepEqual(await nextEvent(stream), { index: 0 });
  stream.close();
  await scene.ended(name, 'gone');
}

async function idle(scene, client, name) {
  const options = { method: 'POST', body: Buffer.from('{}') };
  told(await send(client, `${name}-0`, options));
  // The case needs this pause: no event ends it earlier.
  await sleep(scene.idle_seconds * 1000);
  told(await send(client, `${name}-1`, options));
}

async function slow(scene, client, name) {
  told(await send(client, name, { want: `slow=${scene.slow_seconds}` }));
}

async function errors(scene, client, name) {
  for (const status of [401, 429, 500]) {
    const answer = await send(client, `${name}-${status}`, { want: `status=${status}` });
    assert.equal(answer.status, status);
    assert.equal(sha256(answer.body), (await scene.seen(`${name}-${status}`)).sent_sha256);
    assert.equal(answer.fields.get('retry-after'), '7');
    assert.equal(answer.fields.has('x-ic-error'), false);
    assert.equal(answer.fields.has('www-authenticate'), status === 401);
  }
}

async function packed(scene, client, name) {
  const answer = await send(client, name, { want: 'gzip', fields: { 'Accept-Encoding': 'gzip' } });
  assert.equal(told(answer).method, 'GET');
  assert.equal(answer.fields.get('content-encoding'), 'gzip');
}

async function head(scene, client, name) {
  const answer = await send(client, name, { method: 'HEAD' });
  assert.deepEqual([answer.status, answer.body.length], [200, 0]);
  assert.ok(Number(answer.fields.get('content-length')) > 50);
  // The next request on the same connection shows that all sides agree that there was no body.
  told(await send(client, `${name}-after`));
}

// The target responds when all of them are waiting.
async function together(scene, client, name) {
  const numbers = [...Array(TOGETHER).keys()];
  const options = (number) => ({ want: `together=${TOGETHER}`, method: 'POST', body: Buffer.from(`{"n": ${number}}`) });
  const answers = await Promise.all(numbers.map((number) => send(client, `${name}-${number}`, options(number))));
  answers.forEach((answer, number) => assert.equal(told(answer).sha256, sha256(options(number).body)));
}

async function identity(scene, client, name) {
  told(await send(client, name, { fields: FORGED }));
  await expectIdentity(scene, name);
}

async function expectIdentity(scene, name) {
  const fields = fieldsOf(await scene.seen(name));
  const expected = [[scene.instance], [scene.instance], ['pycharm-ai-chat']];
  assert.deepEqual(IDENTIFICATION.map((field) => fields[field]), expected);
  assert.deepEqual(fields['x-of-the-client'], [FORGED['x-of-the-client']]);
  assert.deepEqual(fields.host, [scene.target.split('//')[1]]);
}

function fieldsOf(record) {
  const fields = {};
  for (const [name, value] of record.fields) (fields[name.toLowerCase()] ??= []).push(value);
  return fields;
}

// Bytes without repetition.
function noise(length) {
  const block = Buffer.alloc(64 << 10, createHash('sha512').update('noise').digest());
  const whole = Buffer.alloc(length);
  for (let start = 0; start < length; start += block.length) {
    block.writeBigUInt64BE(BigInt(start));
    block.copy(whole, start);
  }
  return whole;
}

function sha256(data) {
  return createHash('sha256').update(data).digest('hex');
}

// The cases of every HTTP client.
const HTTP = {
  plain,
  events,
  upload,
  chunked,
  download,
  refused,
  'leaves early': leavesEarly,
  'leaves midway': leavesMidway,
  idle,
  slow,
  errors,
  gzip: packed,
  head,
  together,
  identity,
};

module.exports = { EVENTS, FORGED, HTTP, TOGETHER, expectIdentity, fieldsOf, linesOf, noise, run, sha256, told, until };
