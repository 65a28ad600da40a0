// The view of live requests: a list with a common time axis beside the pane of one request.

import { List, count, h, setAttr, plural, setText, visible } from './dom.js';
import * as dialogs from './dialogs.js';
import { OUTCOMES, clock, durationOf, isFailed, pace, size, spell, statusOf, tokens } from './format.js';
import { RequestPane, copyCurl } from './request_pane.js';

/** Bounds the memory of the tab. */
const EXCHANGES_MAX = 1000;
/** The size of all kept bodies, in characters. */
const BODIES_MAX = 48 << 20;

const ofClass = (digit) => (one) => Math.floor(one.status / 100) === digit;

const KINDS = [
  ['all', 'All', () => true],
  ['open', 'In flight', (one) => !one.outcome],
  ['2', '2xx', ofClass(2)], ['3', '3xx', ofClass(3)], ['4', '4xx', ofClass(4)], ['5', '5xx', ofClass(5)],
  ['failed', 'Errors', isFailed],
];

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
      open: (one, focuses) => this.pane.open(one, focuses), act: (key, one) => this.act(key, one),
    });
    this.list.before = (inView) => this.measure(inView);
    this.list.isOpen = () => this.pane.isOpen;
    this.pane = new RequestPane({
      feedOf: (one) => this.feeds.get(one.pid), earlierThan: (one) => this.earlierThan(one),
      record: (pid) => this.record(pid), pick: (one) => this.list.pick(one.key, true), onClose: () => this.list.focus(),
    });
    this.facts = h('p.facts');
    element.append(
      h('.bar', {}, h('.chips', { role: 'group', 'aria-label': 'Which requests' }, this.chips),
        h('.actions', {}, this.recorders, this.projects, h('button', { type: 'button', title: 'Clear this list', onclick: () => this.clear() }, 'Clear'))),
      h('.split', {}, this.list.element, this.pane.element),
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
    this.pane.close();
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
    if (this.pane.isOpen) {
      if (this.byKey.has(this.pane.one.key)) this.pane.draw();
      else this.pane.close();
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

  /** The requests of the same kind before this one, the latest first. */
  earlierThan(one) {
    return this.exchanges.filter((other) => other.pid === one.pid && other.port === one.port && other.path === one.path
      && (other.at < one.at || (other.at === one.at && other.id < one.id)));
  }

  // Actions.

  act(key, one) {
    if (key !== 'c') return false;
    copyCurl(one);
    return true;
  }

  press(key) {
    if (key === 'Escape') return this.pane.isOpen ? (this.pane.close(), true) : false;
    return this.list.current ? this.act(key, this.list.current) : false;
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

/** What an interceptor, or one port of a process that serves many, is called. */
function nameOf({ project, instance_id }) {
  return project ?? instance_id;
}
