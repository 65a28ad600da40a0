// fetch, which is undici, and node:http, which most other libraries for node use.
//
// Usage: node_http.js SCENE fetch|node:http (JSON; see ../table.py)
'use strict';

const assert = require('node:assert/strict');
const http = require('node:http');
const zlib = require('node:zlib');
const { HTTP, fieldsOf, linesOf, run, sha256, told } = require('./cases.js');

class Fetch {
  constructor(scene) {
    this.base = scene.through;
  }

  async send(method, path, fields, body) {
    const answer = await fetch(this.base + path, { method, headers: fields, body, duplex: 'half' });
    return { status: answer.status, fields: answer.headers, body: Buffer.from(await answer.arrayBuffer()) };
  }

  async open(path, fields) {
    const abort = new AbortController();
    const answer = await fetch(this.base + path, { headers: fields, signal: abort.signal });
    return { lines: linesOf(answer.body), close: () => abort.abort() };
  }

  async leave(path, fields, arrived) {
    const abort = new AbortController();
    const asked = fetch(this.base + path, { headers: fields, signal: abort.signal });
    asked.catch(() => {});
    await arrived;
    abort.abort();
    await assert.rejects(asked, { name: 'AbortError' });
  }
}

class NodeHttp {
  constructor(scene) {
    this.base = scene.through;
    this.agent = new http.Agent({ keepAlive: true });
  }

  request(method, path, fields) {
    return http.request(this.base + path, { method, headers: fields, agent: this.agent });
  }

  // `watch` gets the request before it is sent, to add event handlers.
  async send(method, path, fields, body, watch = () => {}) {
    const asking = this.request(method, path, fields);
    watch(asking);
    const answered = answerTo(asking);
    if (body && !Buffer.isBuffer(body)) {
      for await (const piece of body) asking.write(piece);
      asking.end();
    } else if (!asking.getHeader('expect')) {
      asking.end(body);
    }
    const answer = await answered;
    const pieces = [];
    for await (const piece of answer) pieces.push(piece);
    let whole = Buffer.concat(pieces);
    if (answer.headers['content-encoding'] === 'gzip') whole = zlib.gunzipSync(whole);
    const all = new Map(Object.entries(answer.headers));
    return { status: answer.statusCode, fields: all, trailers: answer.trailers, body: whole };
  }

  async open(path, fields) {
    const asking = this.request('GET', path, fields);
    asking.on('error', () => {});
    const answered = answerTo(asking);
    asking.end();
    return { lines: linesOf(await answered), close: () => asking.destroy() };
  }

  async leave(path, fields, arrived) {
    const asking = this.request('GET', path, fields);
    asking.on('error', () => {});
    asking.end();
    await arrived;
    asking.destroy();
  }
}

function answerTo(asking) {
  return new Promise((resolve, reject) => {
    asking.on('response', (answer) => {
      // After its response, a server may close the connection while the rest of a body is on its way.
      asking.on('error', () => {});
      resolve(answer);
    });
    asking.on('error', reject);
  });
}

async function awaits100(scene, client, name) {
  const body = Buffer.from('asked first');
  let asked = false;
  const watch = (asking) => {
    asking.on('continue', () => {
      asked = true;
      asking.end(body);
    });
    asking.flushHeaders();
  };
  const fields = { 'x-case': name, Expect: '100-continue', 'Content-Length': body.length };
  const answer = await client.send('POST', '/v1/any', fields, undefined, watch);
  assert.equal(told(answer).sha256, sha256(body));
  assert.ok(asked);
  assert.deepEqual(fieldsOf(await scene.seen(name)).expect, ['100-continue']);
}

async function trailers(scene, client, name) {
  const answer = await client.send('POST', '/v1/any', { 'x-case': name, 'x-want': 'trailers' }, Buffer.from('of this'));
  assert.equal(told(answer).sha256, sha256('of this'));
  assert.deepEqual({ ...answer.trailers }, { 'x-sum': sha256('of this') });
}

async function hints(scene, client, name) {
  const interim = [];
  const watch = (asking) => asking.on('information', (information) => interim.push(information));
  told(await client.send('GET', '/v1/any', { 'x-case': name, 'x-want': 'hints' }, undefined, watch));
  assert.deepEqual(interim.map(({ statusCode }) => statusCode), [103]);
  assert.equal(interim[0].headers.link, '</style.css>; rel=preload');
}

const CLIENTS = {
  fetch: [(scene) => new Fetch(scene), {}],
  'node:http': [(scene) => new NodeHttp(scene), { '100-continue': awaits100, trailers, hints }],
};

const [make, rows] = CLIENTS[process.argv[3]];
run(make, { ...HTTP, ...rows });
