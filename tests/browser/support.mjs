// Shared by the tests of the page: a home folder, `ic` in it, a simulated interceptor, and a browser in which any error of the
// page fails the test.

import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import fs from 'node:fs';
import { createRequire } from 'node:module';
import net from 'node:net';
import os from 'node:os';
import path from 'node:path';
import test from 'node:test';

const { chromium } = createRequire(`${process.env.MODULES}/`)('playwright-core');
const IC = process.env.IC;
export const TIME_MAX = Number(process.env.TIME_MAX ?? 20_000);

/** Waits until `look` returns something, and returns it. */
export async function until(what, look) {
  const deadline = Date.now() + TIME_MAX;
  for (;;) {
    const found = await look();
    if (found) return found;
    assert.ok(Date.now() < deadline, `timed out: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 25));
  }
}

/** The home of the current test. */
export let here;

/** A test with a home of its own, whose programs and servers end with it, also if it fails. */
export function check(name, run) {
  test(name, { timeout: 4 * TIME_MAX }, async (context) => {
    const home = here = new Home();
    context.after(() => home.end());
    await run(home);
  });
}

/** A range of its own for each home: below the ephemeral ports and the ports of the other tests. */
let nextPort = 10_000 + (process.pid % 90) * 100;

export class Home {
  constructor() {
    this.folder = fs.realpathSync(fs.mkdtempSync(path.join(os.tmpdir(), 'ic-ui-')));
    this.port = nextPort;
    nextPort += 1200;
    this.children = [];
    this.servers = [];
    for (const name of ['run', 'run/ic', 'shop']) fs.mkdirSync(path.join(this.folder, name), { mode: 0o700 });
    this.environment = {
      HOME: this.folder, PATH: process.env.PATH, XDG_RUNTIME_DIR: path.join(this.folder, 'run'),
      INTERCEPTOR_PORT_MIN: String(this.port), INTERCEPTOR_PORT_MAX: String(this.port + 1111),
    };
  }

  path(name) {
    return path.join(this.folder, name);
  }

  mkdir(name) {
    fs.mkdirSync(this.path(name), { recursive: true });
    return this.path(name);
  }

  get registry() {
    return this.path('.config/litellm/port_registry.json');
  }

  writeRegistry(mappings, more = {}) {
    fs.mkdirSync(path.dirname(this.registry), { recursive: true });
    const range = { start: this.port, end: this.port + 1111 };
    fs.writeFileSync(this.registry, JSON.stringify({ version: '1.0', port_range: range, mappings, next_available: this.port, ...more }));
  }

  mappings() {
    return JSON.parse(fs.readFileSync(this.registry, 'utf8')).mappings;
  }

  /** Runs `ic` to its end and returns its standard output. */
  ic(...words) {
    return execFileSync(IC, words, { env: this.environment, cwd: this.path('shop'), encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] });
  }

  /** Starts `ic`; resolves to the first match of `sign` in its output. */
  start(words, sign, { cwd = 'shop', environment = {} } = {}) {
    const child = spawn(IC, words, { env: { ...this.environment, ...environment }, cwd: this.path(cwd), stdio: ['ignore', 'pipe', 'pipe'] });
    this.children.push(child);
    return new Promise((resolve, reject) => {
      let output = '';
      const read = (text) => {
        output += text;
        const found = sign.exec(output);
        if (found) resolve({ child, found });
      };
      child.stdout.on('data', read);
      child.stderr.on('data', read);
      child.on('exit', (code) => reject(new Error(`ic ${words.join(' ')} ended with ${code}: ${output}`)));
    });
  }

  /** Starts `ic ui`; returns its address with the token. */
  async ui(...words) {
    const { child, found } = await this.start(['ui', '--no-open', '--port', '0', ...words], /^(http:\S+)\n/m);
    return { child, url: found[1] };
  }

  /** Starts an interceptor for a project, with the mock as its target. */
  async serve(cwd = 'shop', ...words) {
    const { child } = await this.start(['serve', ...(words.includes('--target') ? [] : ['--mock']), ...words], /Port from:.*\n/, { cwd });
    return child;
  }

  /** Ends a server of the test with the home. */
  ends(server) {
    this.servers.push(server);
    return server;
  }

  async end() {
    for (const server of this.servers) await (server.end?.() ?? closed(server));
    for (const child of this.children) {
      if (child.exitCode === null && child.signalCode === null) {
        const ended = new Promise((resolve) => child.removeAllListeners('exit').on('exit', resolve));
        child.kill('SIGKILL');
        await ended;
      }
    }
    fs.rmSync(this.folder, { recursive: true, force: true });
  }
}

function closed(server) {
  server.closeAllConnections();
  return new Promise((resolve) => server.close(resolve));
}

/** A simulated interceptor: a feed socket on which a test sends anything. */
export class Feed {
  constructor(home, pid, hello = {}) {
    this.hello = {
      event: 'hello', protocol: 1, instance_id: 'pycharm-played', project: 'played', path: '/played', port: 9, pid, target: 'http://localhost:1',
      recording: false, at: Date.now() / 1000, ...hello,
    };
    this.received = [];
    this.listeners = new Set();
    /** Those that watch one exchange, by its id; they get nothing else. */
    this.watchers = new Map();
    this.server = net.createServer((socket) => {
      this.listeners.add(socket);
      socket.on('error', () => {}).on('close', () => {
        this.listeners.delete(socket);
        for (const [id, watcher] of this.watchers) if (watcher === socket) this.watchers.delete(id);
      });
      socket.on('data', (data) => {
        this.received.push(data.toString());
        const [, on] = /"record":(true|false)/.exec(data) ?? [];
        const [, id] = /"watch":(\d+)/.exec(data) ?? [];
        if (id) {
          this.listeners.delete(socket);
          this.watchers.set(Number(id), socket);
        }
        if (on) this.send({ event: 'recording', on: (this.hello.recording = on === 'true') });
      });
      socket.write(`${JSON.stringify(this.hello)}\n`);
    });
    this.server.listen(home.path(`run/ic/${pid}.sock`));
    home.ends(this);
  }

  send(...events) {
    for (const socket of this.listeners) socket.write(events.map((event) => `${typeof event === 'string' ? event : JSON.stringify(event)}\n`).join(''));
  }

  /** Sends one who watches an exchange what has come of its response. */
  part(id, data) {
    this.watchers.get(id)?.write(`${JSON.stringify({ event: 'body', id, side: 'response', encoding: 'utf8', data, truncated: true, total: data.length })}\n`);
  }

  /** Sends the events of a whole request. */
  exchange(id, { start = {}, head = {}, bodies = {}, end = {} } = {}) {
    const at = start.at ?? Date.now() / 1000;
    const body = ([side, data]) => ({ event: 'body', id, side, encoding: 'utf8', data, truncated: false, total: data.length });
    this.send(
      { event: 'start', id, at, connection: 1, client: '127.0.0.1:5', method: 'POST', path: `/v1/n${id}`, version: '1.1', fields: [], length: 2, ...start },
      { event: 'head', id, at, status: 200, reason: 'OK', fields: [['Content-Type', 'text/plain']], length: 2, ttfb_ms: 10, ...head },
      ...Object.entries(bodies).map(body),
      { event: 'end', id, at: at + 0.05, duration_ms: 50, ttfb_ms: 10, request_bytes: 2, response_bytes: 2, outcome: 'complete', status: 200, error: null,
        model: null, input_tokens: null, output_tokens: null, events: 0, first_event_ms: null, last_event_ms: null, ...end });
  }

  disconnect() {
    for (const socket of [...this.listeners, ...this.watchers.values()]) socket.destroy();
    this.listeners.clear();
  }

  end() {
    this.disconnect();
    return new Promise((resolve) => this.server.close(resolve));
  }
}

let browser;

export async function launch() {
  // Chromium's sandbox works neither for root nor in most containers; every page here is our own.
  browser = await chromium.launch({ executablePath: process.env.CHROMIUM, args: ['--no-sandbox'] });
}

export const shutDown = () => browser.close();

/**
 * Runs `use(page)` on a page at `url`. Console errors, uncaught exceptions, violations of the Content-Security-Policy, and a
 * hostile text that ran as a script (`window.pwned`) fail the test, unless `expects` matches.
 */
export async function onPage(url, use, { expects = /^$/, host = new URL(url).host, ...options } = {}) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 760 }, permissions: ['clipboard-read', 'clipboard-write'], ...options });
  const problems = [];
  const blame = (problem) => expects.test(problem) || problems.push(problem);
  await context.addInitScript(() => addEventListener('securitypolicyviolation', (event) =>
    console.error(`policy violated: ${event.violatedDirective} ${event.blockedURI}`)));
  const page = await context.newPage();
  page.setDefaultTimeout(TIME_MAX);
  page.on('console', (message) => ['error', 'warning'].includes(message.type()) && blame(message.text()));
  page.on('pageerror', (error) => blame(error.stack));
  page.on('request', (request) => [host, new URL(url).host].includes(new URL(request.url()).host) || request.url().startsWith('blob:') || blame(`request to another host: ${request.url()}`));
  try {
    await page.goto(url);
    await use(page);
    assert.equal(await page.evaluate(() => window.pwned), undefined, 'a text ran as a script');
    assert.deepEqual(problems, []);
  } finally {
    await context.close();
  }
}

/** Saves a screenshot if SHOTS is set. */
export async function shot(page, name) {
  if (process.env.SHOTS) await page.screenshot({ path: path.join(process.env.SHOTS, `${name}.png`) });
}

// Parts of the page.

// The list shows paths without `/v1/`.
export const requestRow = (page, path) => page.locator('#requests-list .row')
  .filter({ has: page.locator('.what', { hasText: path instanceof RegExp ? path : path.replace(/^\/v1\/(?=.)/, '') }) });
export const button = (page, name) => page.getByRole('button', { name, exact: true });
export const toast = (page, text) => page.locator('.toast', { hasText: text });
export const clipboard = (page) => page.evaluate(() => navigator.clipboard.readText());

/** As `fetch`, on a connection of its own: Node keeps connections, also to a port that had another server in an earlier test. */
export const fetchOnce = (url, options = {}) => fetch(url, { ...options, headers: { ...options.headers, Connection: 'close' } });
