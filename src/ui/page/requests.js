// The view of live requests: which are shown in which order, beside the pane of one request.

import { hashOf } from './address.js';
import { Columns, NEWEST, orderAfter, sorted } from './columns.js';
import { Conversations } from './conversations.js';
import * as dialogs from './dialogs.js';
import { copy, count, download, h, plural, setAttr, setText, visible } from './dom.js';
import { EXCHANGES_MAX, Exchanges, nameOf, projectOf } from './exchanges.js';
import { matcher } from './filter.js';
import { isFailed, sum, sumText } from './format.js';
import { har } from './har.js';
import { List, split } from './list.js';
import { RequestPane, copyCurl } from './request_pane.js';

const ofClass = (digit) => (one) => Math.floor(one.status / 100) === digit;

const KINDS = [
  ['all', 'All', () => true],
  ['open', 'In flight', (one) => !one.outcome],
  ['2', '2xx', ofClass(2)], ['3', '3xx', ofClass(3)], ['4', '4xx', ofClass(4)], ['5', '5xx', ofClass(5)],
  ['errors', 'Errors', isFailed],
  ['left', 'Client left', (one) => one.outcome === 'client_gone'],
];

/** Between two drawings of updates: a list that changes more often cannot be read. */
const PAUSE_MS = 100;

export class Requests {
  constructor(element, ask) {
    this.ask = ask;
    this.exchanges = new Exchanges({
      isOpen: (one) => one === this.pane.one, onFeeds: () => this.drawFeedsSoon(), onFailed: (one) => this.noteFailure(one),
    });
    this.conversations = new Conversations();
    /** The keys of conversations whose requests are listed. */
    this.unfolded = new Set();
    this.matches = matcher('');
    this.filterText = '';
    this.kind = 'all';
    this.project = '';
    this.order = NEWEST;
    this.isGrouped = false;
    /** While paused: the number of requests that had come before. */
    this.pausedAt = null;
    /** The key of the request in the address that is not there yet. */
    this.wanted = null;
    /** Called when the address of the view changes; with `true` if Back leads to the state before. */
    this.onMove = () => {};
    this.onUnseen = () => {};
    this.unseen = 0;
    this.drawnAt = -PAUSE_MS;
    this.build(element);
    // Updates the durations of requests in flight.
    setInterval(() => this.isShown && this.exchanges.all.some((one) => !one.outcome) && this.draw(), 250);
    document.addEventListener('visibilitychange', () => this.look());
  }

  build(element) {
    const button = (label, title, act) => h('button', { type: 'button', title, onclick: act }, label);
    this.chips = KINDS.map(([kind, label]) => h('button.chip', { type: 'button', onclick: () => this.choose(kind) }, label, h('span.number')));
    this.projects = h('select', { 'aria-label': 'Project', onchange: () => this.chooseProject(this.projects.value) });
    this.recorder = h('button.record', { type: 'button', onclick: () => this.record() });
    this.grouper = button('Conversations', 'Group recorded requests by conversation (v)', () => this.group());
    this.pauser = button('Pause', 'Keep the list as it is (Space)', () => this.pause());
    this.columns = new Columns((key) => this.sortBy(orderAfter(this.order, key)));
    this.list = new List({
      label: 'Requests', columns: this.columns.element, key: (one) => one.key,
      create: (row) => this.columns.createRow(row), update: (row, one) => this.columns.updateRow(row, one, this.levels?.get(one.key), this.unfolded.has(one.key)),
      open: (one, focuses, isMove) => this.open(one, focuses, isMove), act: (key, one) => this.act(key, one), redraw: () => this.draw(),
      isStill: () => this.pausedAt !== null || this.list.view.top > 0, resume: () => this.pause(false),
    });
    this.list.before = (inView) => this.columns.measure(inView);
    this.list.isOpen = () => this.pane.isOpen;
    this.pane = new RequestPane({
      feedOf: (one) => this.exchanges.feeds.get(one.pid), earlierThan: (one) => this.exchanges.earlierThan(one),
      pick: (one) => this.list.pick(one.key, true), onClose: () => (this.list.focus(), this.onMove(true)),
      onGrowth: (one, body) => (this.exchanges.grow(one, body), this.draw()),
    });
    this.facts = h('p.facts');
    element.append(
      h('.bar', {}, h('.chips', { role: 'group', 'aria-label': 'Which requests' }, this.chips),
        h('.actions', {}, this.recorder, this.projects, this.grouper, this.pauser, button('Export HAR', 'Save the shown requests as an HTTP Archive (HAR)', () => this.export()), button('Clear', 'Clear this list; an open request stays', () => this.clear()))),
      split(this.list, this.pane.element, 'requests'),
      this.facts);
    this.showChoices();
    this.drawFeeds();
  }

  // Updates from the server.

  receive(message) {
    this.exchanges.receive(message);
    this.drawSoon();
  }

  /** Counts lines that were dropped on the way. */
  addLost(number) {
    this.exchanges.lost += number;
    this.drawSoon();
  }

  reset() {
    // What was watched ended with the connection.
    this.pane.unwatch();
    this.exchanges.reset();
  }

  /** Draws once for all changes of a frame: one process may announce a thousand projects. */
  drawFeedsSoon() {
    this.feedsDue ??= requestAnimationFrame(() => {
      this.feedsDue = null;
      this.drawFeeds();
    });
  }

  drawFeeds() {
    const sites = this.exchanges.sites();
    this.drawRecorder(sites);
    const names = new Map(sites.map(({ project, name, port }) => [project, `${visible(name)} · ${port}`]));
    for (const { source, port } of this.exchanges.all) if (!names.has(projectOf(source, port))) names.set(projectOf(source, port), `${visible(source)} · ${port}, ended`);
    if (this.project && !names.has(this.project)) names.set(this.project, visible(this.project.replace(/:(\d+)$/, ' · $1')));
    const options = [['', 'All projects'], ...names];
    const isSame = options.length === this.projects.length
      && options.every(([value, label], place) => this.projects.options[place].value === value && this.projects.options[place].text === label);
    if (!isSame) this.projects.replaceChildren(...options.map(([value, label]) => h('option', { value }, label)));
    this.projects.value = this.project;
    this.draw();
  }

  /** The switch for what the project filter shows. */
  drawRecorder(sites) {
    document.body.toggleAttribute('data-recording', sites.some((site) => site.recording));
    this.scope = this.project ? sites.filter((site) => site.project === this.project) : sites;
    const on = this.scope.filter((site) => site.recording).length;
    const [first] = this.scope;
    const label = this.scope.length === 1 ? `${on ? 'Recording' : 'Record'} ${visible(first.name)}` : on ? `Recording ${on} of ${this.scope.length}` : 'Record all';
    setText(this.recorder, first ? label : 'Record');
    setAttr(this.recorder, 'aria-pressed', on === 0 ? 'false' : on === this.scope.length ? 'true' : 'mixed');
    this.recorder.disabled = !first;
    const others = sites.filter((site) => this.project && site.project !== this.project && this.scope.some(({ pid }) => pid === site.pid)).length;
    this.recorder.title = !first ? 'No interceptor is running'
      : `${on ? 'Stop, and delete the recorded bodies' : 'Keep the bodies of the last requests, in the interceptor’s memory only'}${others ? `; its process serves ${plural(others, 'other project')} too` : ''}`;
  }

  /** Counts the failures since the view was looked at. */
  noteFailure({ endedAt }) {
    if (this.isLookedAt || endedAt * 1000 < performance.timeOrigin) return;
    this.onUnseen(++this.unseen);
  }

  get isLookedAt() {
    return this.isShown && document.visibilityState === 'visible';
  }

  look() {
    if (!this.isLookedAt) return this.pane.unwatch();
    if (this.unseen) this.onUnseen(this.unseen = 0);
    this.draw();
  }

  // The list.

  /** Draws after an update, at once if that is the first one for a while. */
  drawSoon() {
    const pause = this.drawnAt + PAUSE_MS - performance.now();
    if (pause <= 0) this.draw();
    else this.timer ??= setTimeout(() => this.draw(), pause);
  }

  draw() {
    if (!this.isShown || this.isDue) return;
    this.isDue = true;
    requestAnimationFrame(() => {
      this.isDue = false;
      this.drawnAt = performance.now();
      clearTimeout(this.timer);
      this.timer = null;
      this.drawNow();
    });
  }

  drawNow() {
    const { all, feeds, lost } = this.exchanges;
    const found = all.filter((one) => (!this.project || projectOf(one.source, one.port) === this.project) && this.matches(one));
    this.drawChips(found);
    const [, , is] = KINDS.find(([kind]) => kind === this.kind);
    const shown = this.found = found.filter(is);
    const before = this.pausedAt === null ? shown : shown.filter((one) => one.order <= this.pausedAt);
    const none = feeds.size ? 'Requests appear here as they start.' : 'No interceptor is running. Start one with `ic serve`.';
    this.list.show(this.rowsOf(before), all.length ? 'No request matches.' : none, shown.length - before.length);
    const wanted = this.exchanges.byKey.get(this.wanted);
    if (wanted) {
      this.list.pick(wanted.key, false);
      this.pane.open(wanted);
    }
    if (this.pane.isOpen) {
      this.wanted = null;
      this.pane.draw();
    }
    const total = sum(shown);
    const full = [...feeds.values()].find((feed) => feed.isFull);
    setText(this.facts, [
      [plural(shown.length, 'request'), total.failed && `${count(total.failed)} failed`, total.left && `${count(total.left)} ended by the client`].filter(Boolean).join(', '),
      sumText(total), plural(feeds.size, 'interceptor'),
      this.isGrouped && !shown.some((one) => one.bodies.request) && 'conversations are known from recorded requests only',
      all.length === EXCHANGES_MAX && `the last ${count(EXCHANGES_MAX)} are kept`,
      lost && `${plural(lost, 'line')} missed: this page or its server was too slow`,
      full && `${visible(full.name)} has too many subscribers; close another page`,
    ].filter(Boolean).join(' · '));
  }

  drawChips(found) {
    for (const [place, [kind, , is]] of KINDS.entries()) {
      const number = found.filter(is).length;
      setText(this.chips[place].lastChild, count(number));
      this.chips[place].hidden = number === 0 && !['all', 'errors', this.kind].includes(kind);
    }
  }

  /** The rows of the list: requests, or conversations with their requests. */
  rowsOf(requests) {
    if (!this.isGrouped) return sorted(requests, this.order);
    this.levels = new Map();
    return sorted(this.conversations.group(requests), this.order).flatMap((one) => {
      this.levels.set(one.key, 1);
      if (!one.members || !this.unfolded.has(one.key)) return [one];
      for (const member of one.members) this.levels.set(member.key, 2);
      return [one, ...one.members];
    });
  }

  // Actions.

  open(one, focuses, isMove) {
    if (!one.members) {
      this.pane.open(one, focuses);
      this.onMove(!isMove);
    } else if (!isMove) {
      this.unfold(one, !this.unfolded.has(one.key));
    }
  }

  unfold({ key }, isUnfolded) {
    this.unfolded[isUnfolded ? 'add' : 'delete'](key);
    this.list.letGo();
  }

  act(key, one) {
    const keys = one.members ? { ArrowRight: () => this.unfold(one, true), ArrowLeft: () => this.unfold(one, false) }
      : { c: () => copyCurl(one), l: () => this.copyLink(one) };
    if (!(key in keys)) return false;
    keys[key]();
    return true;
  }

  press(key) {
    const keys = {
      ' ': () => this.pause(), f: () => (this.pause(false), this.list.toTop()), e: () => this.nextError(), v: () => this.group(),
      ...(this.pane.isOpen && { Escape: () => this.pane.close(), c: () => copyCurl(this.pane.one), l: () => this.copyLink(this.pane.one) }),
    };
    if (!(key in keys)) return Boolean(this.list.current) && this.act(key, this.list.current);
    keys[key]();
    return true;
  }

  copyLink(one) {
    const link = hashOf({ view: 'requests', words: [this.project || 'all', one.key], parameters: {} });
    copy(`${location.origin}/${link}`, 'the link to this request');
  }

  nextError() {
    const { items } = this.list;
    const from = items.findIndex((one) => one.key === this.list.active) + 1;
    const next = [...items.slice(from), ...items.slice(0, from)].find((one) => isFailed(one) && !one.members);
    if (next) this.list.pick(next.key, true);
  }

  /** Keeps the list as it is, or lets it go on. */
  pause(isPaused = this.pausedAt === null) {
    this.pausedAt = isPaused ? this.exchanges.seen : null;
    setAttr(this.pauser, 'aria-pressed', String(isPaused));
    setText(this.pauser, isPaused ? 'Paused' : 'Pause');
    this.list.letGo();
  }

  group(isGrouped = !this.isGrouped) {
    this.isGrouped = isGrouped;
    this.levels = null;
    this.changed();
  }

  sortBy(order) {
    this.order = order;
    this.changed();
  }

  async record() {
    const on = !this.scope.some((site) => site.recording);
    const pids = new Set(this.scope.filter((site) => site.recording !== on).map(({ pid }) => pid));
    const answers = await Promise.all([...pids].map((pid) => this.ask('record', { pid, on })));
    answers.every((answer) => dialogs.succeeded(answer));
  }

  export() {
    download('requests.har', 'application/json', JSON.stringify(har(this.found)));
  }

  clear() {
    this.exchanges.clear();
    this.drawFeeds();
    this.list.toTop();
  }

  of(row) {
    this.chooseProject(projectOf(row.interceptor ? nameOf(row.interceptor) : row.name, row.port));
  }

  chooseProject(project) {
    this.project = project;
    this.drawFeeds();
    this.changed(true);
  }

  filter(text) {
    this.filterText = text;
    this.matches = matcher(text);
    this.changed();
  }

  choose(kind) {
    this.kind = kind;
    this.changed(true);
  }

  /** Another choice of requests: shows it from its beginning. */
  changed(isStep = false) {
    this.showChoices();
    this.list.toTop();
    this.onMove(isStep);
  }

  showChoices() {
    for (const [place, [kind]] of KINDS.entries()) setAttr(this.chips[place], 'aria-pressed', String(kind === this.kind));
    setAttr(this.grouper, 'aria-pressed', String(this.isGrouped));
    setAttr(this.list.scroller, 'role', this.isGrouped ? 'treegrid' : 'grid');
    this.columns.showOrder(this.order);
  }

  focus() {
    this.list.focus();
  }

  shown(isShown) {
    this.isShown = isShown;
    this.look();
  }

  // The address.

  get place() {
    const key = this.pane.one?.key ?? this.wanted;
    return {
      words: key ? [this.project || 'all', key] : this.project ? [this.project] : [],
      parameters: { show: this.kind === 'all' ? '' : this.kind, q: this.filterText, sort: this.order === NEWEST ? '' : this.order, by: this.isGrouped ? 'conversation' : '' },
    };
  }

  /** Shows what an address says. */
  visit({ words: [project = 'all', key = null], parameters: { show = 'all', q = '', sort = NEWEST, by } }) {
    this.project = project === 'all' ? '' : project;
    this.kind = KINDS.some(([kind]) => kind === show) ? show : 'all';
    this.filterText = q;
    this.matches = matcher(q);
    this.order = sort;
    this.isGrouped = by === 'conversation';
    this.levels = null;
    this.wanted = key;
    if (this.pane.one?.key !== key) this.pane.close();
    this.drawFeeds();
    this.changed();
  }
}
