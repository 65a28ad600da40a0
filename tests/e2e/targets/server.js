// A target on node's HTTP server, like asgi.py, which documents both. Its limit for idle connections is that of uvicorn,
// but it announces the limit, and it can send trailers and a 103.
//
// Usage: server.js PORT [KEY CERTIFICATE]   (with these two files it uses TLS)
'use strict';

const { createHash } = require('node:crypto');
const fs = require('node:fs');
const http = require('node:http');
const https = require('node:https');
const { once, EventEmitter } = require('node:events');
const zlib = require('node:zlib');
const { WebSocketServer } = require('ws');

const BLOCK_BYTES = 64 << 10;
const RETRY_AFTER = { 'Retry-After': '7' };

const seen = new Map();
const groups = new Map();
// For each case, the number of events that its reader has requested so far.
const released = new Map();
const releases = new EventEmitter().setMaxListeners(0);

class ClientGone extends Error {}

// One request and its response.
class Exchange {
  constructor(request, response = new EventEmitter()) {
    Object.assign(this, { request, response });
    this.case = request.headers['x-case'] ?? '';
    [this.want, this.argument] = (request.headers['x-want'] ?? '').split('=');
    const fields = [];
    for (let index = 0; index < request.rawHeaders.length; index += 2) {
      fields.push([request.rawHeaders[index].toLowerCase(), request.rawHeaders[index + 1]]);
    }
    this.record = { target: request.url, fields, ended: null };
    if (this.case) seen.set(this.case, this.record);
    this.gone = new Promise((_, reject) => {
      response.on('close', () => response.writableFinished || reject(new ClientGone()));
    });
    this.gone.catch(() => {});
  }

  // Reads the complete body; keeps only its checksum.
  async read() {
    const digest = createHash('sha256');
    this.length = 0;
    for await (const piece of this.request) {
      digest.update(piece);
      this.length += piece.length;
    }
    this.sha256 = digest.digest('hex');
  }

  // Waits, or ends when the client disconnects.
  unlessGone(waitedFor) {
    return Promise.race([waitedFor, this.gone]);
  }

  async write(data) {
    if (!this.response.write(data)) await this.unlessGone(once(this.response, 'drain'));
  }

  reply(document, status = 200, fields = {}, packed = false) {
    let data = Buffer.from(JSON.stringify(document));
    fields = { 'Content-Type': 'application/json', ...fields };
    if (packed) {
      data = zlib.gzipSync(data);
      fields['Content-Encoding'] = 'gzip';
    }
    this.record.sent_sha256 = createHash('sha256').update(data).digest('hex');
    this.response.writeHead(status, { ...fields, 'Content-Length': data.length });
    this.response.end(data);
  }
}

async function handle(request, response) {
  const url = new URL(request.url, 'http://target');
  const name = url.searchParams.get('case');
  if (url.pathname === '/seen') return new Exchange(request, response).reply(seen.get(name) ?? {});
  if (url.pathname === '/next') {
    released.set(name, (released.get(name) ?? 0) + 1);
    releases.emit(name);
    return new Exchange(request, response).reply({});
  }
  const exchange = new Exchange(request, response);
  try {
    await answer(exchange);
    exchange.record.ended = 'done';
  } catch (error) {
    if (!(error instanceof ClientGone) && error.code !== 'ECONNRESET') throw error;
    exchange.record.ended = 'gone';
  }
}

async function answer(exchange) {
  const { want, argument, response } = exchange;
  if (want === 'refuse') return exchange.reply(problem(413, 'too large'), 413);
  await exchange.read();
  switch (want) {
    case 'hold':
      return exchange.gone;
    case 'slow': {
      const timer = new Promise((resolve) => setTimeout(resolve, Number(argument) * 1000));
      await exchange.unlessGone(timer);
      break;
    }
    case 'together':
      await exchange.unlessGone(allOf(exchange.case.slice(0, exchange.case.lastIndexOf('-')), Number(argument)));
      break;
    case 'status': {
      const challenge = argument === '401' ? { 'WWW-Authenticate': 'Bearer realm="models"' } : {};
      return exchange.reply(problem(argument, 'as asked'), Number(argument), { ...RETRY_AFTER, ...challenge });
    }
    case 'download':
      return download(exchange, Number(argument));
    case 'events':
      return events(exchange, Number(argument));
    case 'trailers':
      response.writeHead(200, { 'Content-Type': 'application/json', Trailer: 'X-Sum' });
      response.write(JSON.stringify(shape(exchange)));
      response.addTrailers({ 'X-Sum': exchange.sha256 });
      return response.end();
    case 'hints':
      response.writeEarlyHints({ link: '</style.css>; rel=preload' });
      break;
  }
  exchange.reply(shape(exchange), 200, {}, want === 'gzip');
}

async function download(exchange, length) {
  exchange.response.writeHead(200, { 'Content-Length': length });
  const digest = createHash('sha256');
  for (let sent = 0; sent < length; ) {
    // Every block differs, so that lost or reordered blocks are detected.
    const mark = Buffer.alloc(8);
    mark.writeBigUInt64BE(BigInt(sent));
    const block = Buffer.alloc(Math.min(BLOCK_BYTES, length - sent), mark);
    digest.update(block);
    sent += block.length;
    await exchange.write(block);
  }
  exchange.record.sent_sha256 = digest.digest('hex');
  exchange.response.end();
}

async function events(exchange, count) {
  const { before, event, after } = streamShape(exchange);
  exchange.response.writeHead(200, { 'Content-Type': 'text/event-stream; charset=utf-8' });
  if (before) await exchange.write(before);
  for (let index = 0; index < count; index += 1) {
    while ((released.get(exchange.case) ?? 0) < index) {
      await exchange.unlessGone(once(releases, exchange.case));
    }
    await exchange.write(event(index));
  }
  exchange.response.end(after);
}

function allOf(group, count) {
  if (!groups.has(group)) {
    const entry = { arrived: 0 };
    entry.everybody = new Promise((resolve) => (entry.open = resolve));
    groups.set(group, entry);
  }
  const entry = groups.get(group);
  entry.arrived += 1;
  if (entry.arrived === count) entry.open();
  return entry.everybody;
}

// The received request, as a plain response or within one of OpenAI's or Anthropic's format.
function shape(exchange) {
  const { method, url } = exchange.request;
  const told = { method, target: url, bytes: exchange.length, sha256: exchange.sha256 };
  exchange.record.told = told;
  const path = pathOf(exchange);
  if (path.endsWith('/chat/completions')) {
    const message = { role: 'assistant', content: JSON.stringify(told) };
    return openai('chat.completion', { message, finish_reason: 'stop' });
  }
  if (path.endsWith('/messages')) return anthropic([{ type: 'text', text: JSON.stringify(told) }]);
  return told;
}

// The text before the events, the format of an event, and the text after them.
function streamShape(exchange) {
  const path = pathOf(exchange);
  if (path.endsWith('/chat/completions')) {
    const last = openai('chat.completion.chunk', { delta: {}, finish_reason: 'stop' });
    return {
      event: (index) => serverSent(openai('chat.completion.chunk', { delta: { content: `${index} ` } })),
      after: serverSent(last) + 'data: [DONE]\n\n',
    };
  }
  if (path.endsWith('/messages')) {
    const start = { type: 'content_block_start', index: 0, content_block: { type: 'text', text: '' } };
    const stop = { type: 'message_delta', delta: { stop_reason: 'end_turn' }, usage: { output_tokens: 1 } };
    const delta = (text) => ({ type: 'content_block_delta', index: 0, delta: { type: 'text_delta', text } });
    return {
      before: named({ type: 'message_start', message: anthropic([]) }) + named(start),
      event: (index) => named(delta(`${index} `)),
      after: named({ type: 'content_block_stop', index: 0 }) + named(stop) + named({ type: 'message_stop' }),
    };
  }
  return { event: (index) => serverSent({ index }), after: 'data: [DONE]\n\n' };
}

function pathOf(exchange) {
  return exchange.request.url.split('?')[0];
}

function openai(object, choice) {
  const usage = { prompt_tokens: 1, completion_tokens: 1, total_tokens: 2 };
  return { id: 'c', object, created: 0, model: 'm', choices: [{ index: 0, finish_reason: null, ...choice }], usage };
}

function anthropic(content) {
  const usage = { input_tokens: 1, output_tokens: 1 };
  const message = { id: 'm', type: 'message', role: 'assistant', model: 'm', content, usage };
  return { ...message, stop_reason: content.length ? 'end_turn' : null, stop_sequence: null };
}

function problem(status, message) {
  return { type: 'error', error: { type: `status_${status}`, message, code: null, param: null } };
}

function serverSent(document) {
  return `data: ${JSON.stringify(document)}\n\n`;
}

function named(document) {
  return `event: ${document.type}\n${serverSent(document)}`;
}

const [port, key, certificate] = process.argv.slice(2);
const server = key
  ? https.createServer({ key: fs.readFileSync(key), cert: fs.readFileSync(certificate) }, handle)
  : http.createServer(handle);
server.keepAliveTimeout = 5000;

const sockets = new WebSocketServer({
  server,
  perMessageDeflate: true,
  handleProtocols: (offered) => (offered.has('chat.v2') ? 'chat.v2' : false),
});
sockets.on('connection', (socket, request) => {
  const { record } = new Exchange(request);
  socket.on('close', () => (record.ended = 'gone'));
  socket.on('message', (data, isBinary) => {
    const close = !isBinary && /^close (\d+)$/.exec(data.toString());
    if (close) socket.close(Number(close[1]), 'as asked');
    else socket.send(data, { binary: isBinary });
  });
});

server.listen(Number(port), '127.0.0.1');
