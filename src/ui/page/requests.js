// The view of live requests: a list with a common time axis, and details of one request.

import { List, copy, count, h, setAttr, plural, setText, visible } from './dom.js';
import * as dialogs from './dialogs.js';
import { assembled, bodyText, curl, difference, field, parsed } from './exchange.js';

/** Bounds the memory of the tab. */
const EXCHANGES_MAX = 1000;
/** The size of all kept bodies, in characters. */
const BODIES_MAX = 48 << 20;
/** The shown length of a body, in characters. */
const SHOWN_MAX = 200_000;

const isFailed = (one) => one.status >= 400 || ['client_gone', 'origin_cut', 'refused', 'error', 'unknown'].includes(one.outcome);
const ofClass = (digit) => (one) => Math.floor(one.status / 100) === digit;

const KINDS = [
  ['all', 'All', () => true],
  ['open', 'In flight', (one) => !one.outcome],
  ['2', '2xx', ofClass(2)], ['3', '3xx', ofClass(3)], ['4', '4xx', ofClass(4)], ['5', '5xx', ofClass(5)],
  ['failed', 'Errors', isFailed],
];

const OUTCOMES = {
  __proto__: null,
  complete: 'complete', client_gone: 'the client disconnected', origin_cut: 'cut by the target', refused: 'refused by ic',
  error: 'no answer from the target', tunnel: 'tunnel, closed', unknown: 'its end was not seen',
};

export class Requests {
  constructor(element, ask) {
    this.ask = ask;
    /** The newest first. */
    this.exchanges = [];
    this.byKey = new Map();
    this.feeds = new Map();
    this.bodies = 0;
    this.lost = 0;
    this.filterText = '';
    this.kind = 'all';
    this.project = '';
    this.build(element);
    // Updates the durations of requests in flight.
    setInterval(() => this.isShown && this.exchanges.some((one) => !one.outcome) && this.draw(), 250);
  }

  build(element) {
    this.chips = KINDS.map(([kind, label]) => h('button.chip', {
      type: 'button', 'aria-pressed': String(kind === 'all'), onclick: () => this.choose(kind),
    }, label, h('span.number')));
    this.projects = h('select', { 'aria-label': 'Project', onchange: () => ((this.project = this.projects.value), this.draw()) }, h('option', { value: '' }, 'All projects'));
    this.recorders = h('.recorders', { role: 'group', 'aria-label': 'Recording' });
    const head = (label, name) => h(`span.cell.${name}`, { role: 'columnheader' }, label);
    this.columns = h('.columns', { role: 'row' },
      head('Time', 'time'), head('Project', 'source'), head('Request', 'line'), head('Status', 'status'), head('First byte', 'num.ttfb'),
      head('Duration', 'num.duration'), head('Size', 'num.size'), head('Model', 'model'), head('Tokens', 'num.tokens'),
      head('ms/token', 'num.pace'), this.axisHead = head('', 'axis'));
    this.axisHead.title = 'From the first start to the last end of the visible requests';
    this.list = new List({
      label: 'Requests', columns: this.columns, key: (one) => one.key,
      create: (row) => this.createRow(row), update: (row, one) => this.updateRow(row, one),
      open: (one, focuses) => this.open(one, focuses), act: (key, one) => this.act(key, one),
    });
    this.list.before = (inView) => this.measure(inView);
    this.list.isOpen = () => !this.pane.hidden;
    this.pane = h('aside.pane', { hidden: true, tabIndex: -1, 'aria-label': 'Request', onkeydown: (event) => event.key === 'Escape' && (this.close(), event.stopPropagation()) });
    this.facts = h('p.facts');
    element.append(
      h('.bar', {}, h('.chips', { role: 'group', 'aria-label': 'Which requests' }, this.chips),
        h('.actions', {}, this.recorders, this.projects, h('button', { type: 'button', title: 'Clear this list', onclick: () => this.clear() }, 'Clear'))),
      h('.split', {}, this.list.element, this.pane),
      this.facts);
  }

  // Updates from the server.

  receive({ pid, event }) {
    if (typeof event !== 'object' || !event) return;
    const feed = this.feeds.get(pid);
    switch (event.event) {
      case 'hello':
        this.feeds.set(pid, { ...event, pid, name: event.sites ? 'all projects' : nameOf(event), sites: event.sites && new Map(event.sites.map((site) => [site.port, site])) });
        this.abandon(pid);
        this.drawFeeds();
        break;
      case 'site':
        feed?.sites?.set(event.port, event);
        this.drawFeeds();
        break;
      case 'site_closed':
        feed?.sites?.delete(event.port);
        this.drawFeeds();
        break;
      case 'recording':
        if (feed) feed.recording = event.on;
        this.drawFeeds();
        break;
      case 'lost':
        this.addLost(event.count);
        break;
      case 'full':
        this.facts.textContent = `${feed?.name ?? 'An interceptor'} has too many subscribers; close another page.`;
        break;
      case 'closed':
        this.abandon(pid);
        this.feeds.delete(pid);
        this.drawFeeds();
        break;
      default:
        if (feed && event.id !== undefined) this.note(feed, event);
    }
    this.draw();
  }

  /** Counts lines that were dropped on the way. */
  addLost(number) {
    this.lost += number;
    this.draw();
  }

  /** Starts again after a lost connection: requests in flight may have ended since. */
  reset() {
    for (const pid of this.feeds.keys()) this.abandon(pid);
    this.feeds.clear();
    this.drawFeeds();
  }

  abandon(pid) {
    for (const one of this.exchanges) if (one.pid === pid && !one.outcome) this.revise(one, { outcome: 'unknown', duration_ms: null });
  }

  note(feed, event) {
    const key = `${feed.pid}-${event.id}`;
    let one = this.byKey.get(key);
    if (!one) {
      // Its start was missed.
      if (event.event !== 'start') return;
      const site = feed.sites?.get(event.port) ?? feed;
      one = { key, pid: feed.pid, port: site.port, source: nameOf(site), sourcePath: site.path, id: event.id, bodies: {}, revision: 0 };
      this.byKey.set(key, one);
      // Lines of several interceptors are mixed, and recorded ones arrive late.
      let place = 0;
      while (place < this.exchanges.length && this.exchanges[place].at > event.at) place++;
      this.exchanges.splice(place, 0, one);
      if (this.exchanges.length > EXCHANGES_MAX) this.forget(this.exchanges.pop());
    }
    switch (event.event) {
      case 'start': {
        const { at, connection, client, method, path, version, fields, length } = event;
        this.revise(one, { at, connection, client, method, path, version, requestFields: fields, requestLength: length, outcome: null });
        break;
      }
      case 'head':
        this.revise(one, { status: event.status, reason: event.reason, responseFields: event.fields, ttfb_ms: event.ttfb_ms });
        break;
      case 'progress':
        Object.assign(one, { request_bytes: event.request_bytes, response_bytes: event.response_bytes, events: event.events });
        break;
      case 'body':
        this.keep(one, event);
        break;
      case 'end': {
        const { event: _, id, at, ...facts } = event;
        this.revise(one, { ...facts, endedAt: at });
      }
    }
  }

  revise(one, facts) {
    Object.assign(one, facts);
    one.revision++;
  }

  keep(one, { side, encoding, data, truncated, total }) {
    this.bodies += data.length - (one.bodies[side]?.data.length ?? 0);
    one.bodies[side] = { encoding, data, truncated, total };
    one.revision++;
    for (let place = this.exchanges.length - 1; this.bodies > BODIES_MAX && place >= 0; place--) this.dropBodies(this.exchanges[place]);
  }

  dropBodies(one) {
    for (const { data } of Object.values(one.bodies)) this.bodies -= data.length;
    one.bodies = {};
  }

  forget(one) {
    this.dropBodies(one);
    this.byKey.delete(one.key);
  }

  clear() {
    for (const one of this.exchanges) this.forget(one);
    this.exchanges = [];
    this.lost = 0;
    if (!this.pane.hidden) this.close();
    this.draw();
  }

  drawFeeds() {
    const feeds = [...this.feeds.values()].sort((a, b) => a.port - b.port);
    const known = new Map([...this.recorders.children].map((button) => [button.dataset.pid, button]));
    this.recorders.replaceChildren(...feeds.map((feed) => {
      const button = known.get(String(feed.pid)) ?? h('button.record', { type: 'button', 'data-pid': String(feed.pid), onclick: () => this.record(feed.pid) });
      setAttr(button, 'aria-pressed', String(feed.recording));
      setText(button, feed.recording ? `Recording ${visible(feed.name)}` : `Record ${visible(feed.name)}`);
      button.title = feed.recording ? 'Bodies are kept in the interceptor’s memory; click to stop and delete them'
        : 'Keep the bodies of the last requests, in the interceptor’s memory only';
      return button;
    }));
    const sites = feeds.flatMap((feed) => [...(feed.sites?.values() ?? [feed])].map((site) => ({ ...site, pid: feed.pid })));
    sites.sort((a, b) => a.port - b.port);
    const names = [['', 'All projects'], ...sites.map((site) => [`${site.pid}:${site.port}`, `${visible(nameOf(site))} · ${site.port}`])];
    if (!names.some(([value]) => value === this.project)) this.project = '';
    const isSame = names.length === this.projects.length && names.every(([value], place) => this.projects.options[place].value === value);
    if (!isSame) this.projects.replaceChildren(...names.map(([value, label]) => h('option', { value }, label)));
    this.projects.value = this.project;
  }

  // The list.

  draw() {
    if (!this.isShown || this.isDue) return;
    this.isDue = true;
    // At most once per frame, however many lines arrive.
    requestAnimationFrame(() => {
      this.isDue = false;
      this.drawNow();
    });
  }

  drawNow() {
    const words = this.filterText.toLowerCase().split(/\s+/).filter(Boolean);
    const matches = (one) => (!this.project || `${one.pid}:${one.port}` === this.project) && words.every((word) =>
      [one.method, one.path, one.source, one.model, one.status, one.error].some((value) => String(value ?? '').toLowerCase().includes(word)));
    const found = this.exchanges.filter(matches);
    for (const [place, [kind, , is]] of KINDS.entries()) {
      const number = found.filter(is).length;
      setText(this.chips[place].lastChild, count(number));
      this.chips[place].hidden = number === 0 && !['all', 'failed', this.kind].includes(kind);
    }
    const [, , is] = KINDS.find(([kind]) => kind === this.kind);
    const shown = found.filter(is);
    const none = this.feeds.size ? 'Requests appear here as they start.' : 'No interceptor is running. Start one with `ic serve`.';
    this.list.show(shown, this.exchanges.length ? 'No request matches.' : none, true);
    if (!this.pane.hidden) {
      const one = this.byKey.get(this.openKey);
      if (one) this.fillPane(one);
      else this.close();
    }
    setText(this.facts, [
      `${plural(shown.length, 'request')}`, `${plural(this.feeds.size, 'interceptor')}`,
      this.exchanges.length === EXCHANGES_MAX && `the last ${count(EXCHANGES_MAX)} are kept`,
      this.lost && `${plural(this.lost, 'line')} missed: this page or its server was too slow`,
    ].filter(Boolean).join(' · '));
  }

  /** Sets the time axis: from the first start to the last end of the visible requests. */
  measure(inView) {
    const now = Date.now() / 1000;
    const from = Math.min(...inView.map((one) => one.at));
    const to = Math.max(from + 0.001, ...inView.map((one) => one.at + (durationOf(one, now) ?? 0) / 1000));
    this.axis = { from, span: to - from, now };
    setText(this.axisHead, inView.length ? `Timeline ${spell((to - from) * 1000)}` : '');
  }

  createRow(row) {
    const cell = (name, ...inside) => (row.cells[name.split('.').at(-1)] = h(`span.cell.${name}`, { role: 'gridcell' }, ...inside));
    row.cells = {};
    row.method = h('span.method');
    row.path = h('span.what');
    row.wait = h('span.wait');
    row.body = h('span.body');
    row.append(
      cell('time'), cell('source'), cell('line', row.method, row.path), cell('status'), cell('num.ttfb'), cell('num.duration'), cell('num.size'),
      cell('model'), cell('num.tokens'), cell('num.pace'), cell('axis', h('span.track', {}, row.wait, row.body)));
  }

  updateRow(row, one) {
    const { cells } = row;
    const { from, span, now } = this.axis;
    const duration = durationOf(one, now);
    setAttr(row, 'data-state', !one.outcome ? 'open' : isFailed(one) ? 'failed' : 'done');
    setAttr(row, 'data-class', one.status ? String(Math.floor(one.status / 100)) : null);
    setText(cells.time, clock(one.at));
    setText(cells.source, visible(one.source));
    setText(row.method, one.method ? visible(one.method) : '—');
    setText(row.path, one.path ? visible(one.path) : 'a request that cannot be read');
    setAttr(row.path, 'title', one.path && visible(one.path));
    setText(cells.status, statusOf(one));
    setAttr(cells.status, 'title', one.outcome && OUTCOMES[one.outcome]);
    setText(cells.ttfb, spell(one.ttfb_ms));
    setText(cells.duration, spell(duration));
    setText(cells.size, size(one.response_bytes));
    setText(cells.model, one.model ? visible(one.model) : '');
    setAttr(cells.model, 'title', one.model && visible(one.model));
    setText(cells.tokens, tokens(one));
    setText(cells.pace, pace(one));
    const start = ((one.at - from) / span) * 100;
    const wait = (Math.min(one.ttfb_ms ?? duration ?? 0, duration ?? Infinity) / 10 / span);
    const all = (duration ?? 0) / 10 / span;
    row.wait.style.left = `${start}%`;
    row.wait.style.width = `${wait}%`;
    row.body.style.left = `${start + wait}%`;
    row.body.style.width = `${Math.max(0, all - wait)}%`;
  }

  // One request.

  open(one, focuses) {
    this.openKey = one.key;
    this.pane.hidden = false;
    this.fillPane(one);
    if (focuses) this.pane.querySelector('.buttons button')?.focus();
  }

  close() {
    this.pane.hidden = true;
    this.openKey = null;
    this.list.focus();
  }

  fillPane(one) {
    const now = Date.now() / 1000;
    if (this.paneKey !== one.key) {
      this.paneKey = one.key;
      this.paneRevision = -1;
      this.paneTitle = h('h2');
      this.paneStatus = h('p.outcome');
      const names = ['Started', 'First byte', 'Duration', 'Sent', 'Received', 'Events', 'Model', 'Tokens', 'Per token', 'Client', 'Target'];
      this.paneFacts = new Map(names.map((name) => [name, [h('dt', {}, name), h('dd')]]));
      this.paneSections = h('.sections');
      this.pane.replaceChildren(
        h('.paneHead', {}, this.paneTitle, h('button.quiet', { type: 'button', 'aria-label': 'Close', onclick: () => this.close() }, '×')),
        this.paneStatus,
        h('.buttons', {}, h('button', { type: 'button', title: 'c', onclick: () => this.copyCurl(this.byKey.get(this.openKey)) }, 'Copy as curl'),
          this.paneRecord = h('button.record', { type: 'button', onclick: () => this.record(one.pid) })),
        h('dl.facts', {}, [...this.paneFacts.values()].flat()), this.paneSections);
      this.pane.scrollTop = 0;
    }
    const feed = this.feeds.get(one.pid);
    this.paneRecord.hidden = !feed;
    setAttr(this.paneRecord, 'aria-pressed', String(Boolean(feed?.recording)));
    setText(this.paneRecord, feed?.recording ? 'Recording bodies' : 'Record bodies');
    setText(this.paneTitle, `${visible(one.method ?? '')} ${visible(one.path ?? '')}`);
    setText(this.paneStatus, [one.status && `${one.status} ${visible(one.reason ?? '')}`.trim(), one.outcome ? OUTCOMES[one.outcome] ?? visible(one.outcome) : 'in flight', one.error && visible(one.error)].filter(Boolean).join(' · '));
    setAttr(this.paneStatus, 'data-state', isFailed(one) ? 'failed' : null);
    const values = {
      Started: new Date(one.at * 1000).toLocaleString(),
      'First byte': spell(one.ttfb_ms), Duration: spell(durationOf(one, now)),
      Sent: size(one.request_bytes ?? one.requestLength), Received: size(one.response_bytes),
      Events: one.events && `${count(one.events)}${one.first_event_ms != null ? `, from ${spell(one.first_event_ms)} to ${spell(one.last_event_ms)}` : ''}`,
      Model: one.model, Tokens: tokens(one) && `${one.input_tokens ?? '?'} in, ${one.output_tokens ?? '?'} out`,
      'Per token': pace(one) && `${pace(one)} ms (${(1000 / pace(one)).toFixed(0)} a second)`,
      Client: one.client && `${one.client}, connection ${one.connection}`,
      Target: feed && `${feed.target}, through port ${one.port}`,
    };
    for (const [name, [term, value]] of this.paneFacts) {
      term.hidden = value.hidden = !values[name];
      setText(value, values[name] ? visible(String(values[name])) : '');
    }
    if (this.paneRevision !== one.revision) {
      this.paneRevision = one.revision;
      this.fillSections(one);
    }
  }

  fillSections(one) {
    const [request, response] = [['request', one.requestFields], ['response', one.responseFields]]
      .map(([side, fields]) => (one.bodies[side] ? bodyText(one.bodies[side], fields) : null));
    const answer = response?.text ? assembled(response.text) : null;
    const news = request?.text ? this.newsOf(one, request.text) : null;
    const sections = [
      news && this.section('news', `New since the request of ${clock(news.previous.at)}`, newsView(news, () => this.list.pick(news.previous.key, true))),
      answer && this.section('answer', 'Answer', answerView(answer)),
      this.section('requestHead', 'Request fields', fieldsView(one.requestFields)),
      request && this.section('request', bodyTitle('Request body', one.bodies.request), textView(request, field(one.requestFields, 'content-type'))),
      one.responseFields && this.section('responseHead', 'Response fields', fieldsView(one.responseFields)),
      response && this.section('response', bodyTitle('Response body', one.bodies.response), textView(response, field(one.responseFields, 'content-type'))),
      !request && !response && h('p.dim', {}, this.feeds.get(one.pid)?.recording ? (one.outcome ? 'No body was recorded for this request.' : 'Bodies are shown when they are complete.')
        : 'Bodies are recorded while recording is on, in the interceptor’s memory only.'),
    ];
    this.paneSections.replaceChildren(...sections.filter(Boolean));
  }

  /** A section of the pane, folded as the user left it for another request. */
  section(name, title, content) {
    this.folded ??= new Set(['requestHead', 'responseHead', 'response']);
    return h('details', {
      open: !this.folded.has(name), ontoggle: (event) => this.folded[event.target.open ? 'delete' : 'add'](name),
    }, h('summary', {}, title), content);
  }

  newsOf(one, text) {
    const request = parsed(text);
    if (!request) return null;
    const earlier = [];
    for (const other of this.exchanges) {
      const isEarlier = other.pid === one.pid && other.port === one.port && other.path === one.path && (other.at < one.at || (other.at === one.at && other.id < one.id));
      if (!isEarlier || !other.bodies.request) continue;
      const { text: theirs } = bodyText(other.bodies.request, other.requestFields);
      earlier.push({ exchange: other, body: parsed(theirs) });
      if (earlier.length === EARLIER_MAX) break;
    }
    return difference(request, earlier.filter(({ body }) => body));
  }

  // Actions.

  act(key, one) {
    if (key !== 'c') return false;
    this.copyCurl(one);
    return true;
  }

  press(key) {
    if (key === 'Escape') return this.pane.hidden ? false : (this.close(), true);
    return this.list.current ? this.act(key, this.list.current) : false;
  }

  async copyCurl(one) {
    const { request } = one.bodies;
    const text = request && !request.truncated ? bodyText(request, one.requestFields).text : undefined;
    const body = text?.includes('\0') ? undefined : text;
    await copy(curl(one, one.port, body), body === undefined && one.requestLength ? 'as curl, without the body' : 'as curl');
  }

  async record(pid) {
    const feed = this.feeds.get(pid);
    if (feed) dialogs.succeeded(await this.ask('record', { pid, on: !feed.recording }));
  }

  of(row) {
    this.project = row.interceptor ? `${row.interceptor.pid}:${row.port}` : '';
    this.projects.value = this.project;
    this.draw();
  }

  filter(text) {
    this.filterText = text;
    this.list.scroller.scrollTop = 0;
    this.draw();
  }

  choose(kind) {
    this.kind = kind;
    for (const [place, [name]] of KINDS.entries()) setAttr(this.chips[place], 'aria-pressed', String(name === kind));
    this.draw();
  }

  focus() {
    this.list.focus();
  }

  shown(isShown) {
    this.isShown = isShown;
    this.draw();
  }
}

/** How many earlier requests are searched for the same conversation. */
const EARLIER_MAX = 40;

/** What an interceptor, or one port of a process that serves many, is called. */
function nameOf({ project, instance_id }) {
  return project ?? instance_id;
}

function durationOf(one, now) {
  if (one.duration_ms !== undefined && one.outcome) return one.duration_ms;
  return one.outcome ? null : Math.max(0, (now - one.at) * 1000);
}

function clock(at) {
  return new Date(at * 1000).toTimeString().slice(0, 8);
}

function spell(ms) {
  if (typeof ms !== 'number') return '';
  if (ms < 10) return `${ms.toFixed(1)} ms`;
  if (ms < 1000) return `${Math.round(ms)} ms`;
  return ms < 60_000 ? `${(ms / 1000).toFixed(ms < 10_000 ? 2 : 1)} s` : `${Math.floor(ms / 60_000)} m ${Math.round((ms % 60_000) / 1000)} s`;
}

function size(bytes) {
  if (typeof bytes !== 'number') return '';
  if (bytes < 1000) return `${bytes} B`;
  const [unit, scale] = bytes < 1e6 ? ['kB', 1e3] : bytes < 1e9 ? ['MB', 1e6] : ['GB', 1e9];
  return `${(bytes / scale).toFixed(bytes < scale * 100 ? 1 : 0)} ${unit}`;
}

function tokens({ input_tokens, output_tokens }) {
  return input_tokens == null && output_tokens == null ? '' : `${input_tokens ?? '?'} → ${output_tokens ?? '?'}`;
}

/** Milliseconds for each token after the first. */
function pace({ output_tokens, first_event_ms, last_event_ms }) {
  if (!(output_tokens > 1) || !(last_event_ms > first_event_ms)) return '';
  return ((last_event_ms - first_event_ms) / (output_tokens - 1)).toFixed(1);
}

function statusOf(one) {
  // A response with a good status can fail later.
  if (one.status) return one.status < 400 && isFailed(one) ? `${one.status} ×` : String(one.status);
  return one.outcome ? one.outcome === 'client_gone' ? 'left' : one.outcome === 'unknown' ? '?' : 'failed' : '…';
}

function bodyTitle(title, { encoding, truncated, total }) {
  return `${title} · ${size(total)}${truncated && encoding !== 'omitted' ? ', only its beginning was kept' : ''}`;
}

function fieldsView(fields) {
  return h('dl.fields', {}, (fields ?? []).map(([name, value]) => [h('dt', {}, visible(name)), h('dd', {}, visible(value))]));
}

/** Text with escapes, except for line breaks and tabs. */
function pre(text) {
  return h('pre', { tabIndex: 0 }, text.slice(0, SHOWN_MAX).split(/([\n\t])/).map((piece) => (/^[\n\t]$/.test(piece) ? piece : visible(piece))).join(''));
}

function textView({ text, note }, kind) {
  const document = /json/i.test(kind ?? '') ? parsed(text) : undefined;
  const shown = document === undefined ? text : JSON.stringify(document, null, 2);
  return h('.text', {}, note && h('p.dim', {}, note), shown !== undefined && [
    h('button.tool', { type: 'button', onclick: () => copy(text, 'the body') }, 'Copy'), pre(shown),
    shown.length > SHOWN_MAX && h('p.dim', {}, `The first ${count(SHOWN_MAX)} of ${count(shown.length)} characters are shown; all of them are copied.`),
  ]);
}

function answerView({ text, reasoning, tools, stop }) {
  return h('.text', {},
    reasoning && h('.message', {}, h('span.role', {}, 'thinking'), pre(reasoning)),
    text && h('.message', {}, h('span.role', {}, 'text'), h('button.tool', { type: 'button', onclick: () => copy(text, 'the answer') }, 'Copy'), pre(text)),
    tools.map(({ name, input }) => {
      const document = parsed(input);
      return h('.message', {}, h('span.role', {}, `calls ${visible(name)}`), pre(document === undefined ? input : JSON.stringify(document, null, 2)));
    }),
    stop && h('p.dim', {}, `Ended: ${visible(String(stop))}`));
}

function newsView({ common, added, dropped, changed }, goThere) {
  const message = (kind) => ({ role, text }) => h(`.message.${kind}`, {}, h('span.role', {}, visible(role)), pre(text));
  const value = (one) => (one === undefined ? 'none' : JSON.stringify(one).slice(0, 120));
  return h('.text', {},
    h('p.dim', {}, `${plural(common, 'message')} as before. `, h('button.link', { type: 'button', onclick: goThere }, 'Show that request')),
    dropped.map(message('gone')), added.map(message('new')),
    !added.length && h('p.dim', {}, 'There is no new message.'),
    changed.map(({ key, before, after }) => h('p.change', {}, h('code', {}, visible(key)), ` ${visible(value(before))} → ${visible(value(after))}`)));
}
