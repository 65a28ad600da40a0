// The view of all projects and their interceptors.

import { Connect, firstSteps } from './connect.js';
import { ago, copy, count, download, h, setAttr, setMarked, plural, setText, toast, visible } from './dom.js';
import * as dialogs from './dialogs.js';
import { List, split } from './list.js';
import { menu } from './menu.js';

const STATES = {
  running: 'Running', held: 'Held by another', deleted: 'Folder is gone', free: 'Not running',
};

const KINDS = [
  ['all', 'All', () => true],
  ['running', 'Running', (row) => row.state === 'running'],
  ['held', 'Held', (row) => row.state === 'held'],
  ['deleted', 'Deleted', (row) => row.deleted],
  ['pinned', 'Pinned', (row) => row.pinned],
];

const SORTS = {
  port: (a, b) => a.port - b.port,
  project: (a, b) => a.name.localeCompare(b.name) || a.port - b.port,
  requests: (a, b) => (b.interceptor?.requests ?? -1) - (a.interceptor?.requests ?? -1) || a.port - b.port,
  rate: (a, b) => (b.rate ?? -1) - (a.rate ?? -1) || a.port - b.port,
  used: (a, b) => (b.usedAt ?? 0) - (a.usedAt ?? 0) || a.port - b.port,
};

/** The request rate of an interceptor, from samples of its counter. */
class Rate {
  constructor() {
    this.samples = [];
  }

  note(requests, at) {
    const last = this.samples.at(-1);
    if (last && requests < last.requests) this.samples = [];
    this.samples.push({ requests, at });
    if (this.samples.length > SAMPLES_MAX) this.samples.shift();
  }

  /** Requests per second over the last 11 seconds. */
  get now() {
    const last = this.samples.at(-1);
    const first = this.samples.find(({ at }) => last.at - at <= 11_000);
    return last.at > first.at ? ((last.requests - first.requests) * 1000) / (last.at - first.at) : 0;
  }

  /** Requests per second, for each interval. */
  get steps() {
    return this.samples.slice(1).map(({ requests, at }, place) => {
      const before = this.samples[place];
      return ((requests - before.requests) * 1000) / Math.max(1, at - before.at);
    });
  }
}

const SAMPLES_MAX = 31;
const SVG = 'http://www.w3.org/2000/svg';

function sparkline() {
  const svg = document.createElementNS(SVG, 'svg');
  for (const [name, value] of [['viewBox', '0 0 60 16'], ['aria-hidden', 'true'], ['class', 'spark'], ['preserveAspectRatio', 'none']]) {
    svg.setAttribute(name, value);
  }
  svg.append(document.createElementNS(SVG, 'polyline'));
  return svg;
}

function drawSpark(svg, rate) {
  const steps = rate?.steps ?? [];
  const top = Math.max(1, ...steps);
  const left = 60 - (steps.length - 1) * 2;
  const points = steps.map((step, place) => `${left + place * 2},${(15 - (14 * step) / top).toFixed(1)}`);
  setAttr(svg.firstChild, 'points', points.join(' '));
}

export class Projects {
  constructor(element, ask) {
    this.ask = ask;
    this.registry = { projects: [] };
    this.undos = [];
    this.status = { interceptors: [], held: [] };
    this.rates = new Map();
    this.filterText = '';
    this.kind = 'all';
    this.sort = 'port';
    this.rows = [];
    /** Called when the address of the view changes; with `true` if Back leads to the state before. */
    this.onMove = () => {};
    this.build(element);
  }

  build(element) {
    const button = (name, label, title, act) =>
      h(name, { type: 'button', title, onclick: act }, label);
    this.facts = h('p.facts');
    this.undoButton = button('button', 'Undo', '', () => this.undo());
    this.menu = menu('Registry', 'registry', [
      ['Prune…', 'Remove mappings that are not needed', () => this.prune()],
      ['Import…', 'Import mappings from a file', () => this.import()],
      ['Export', 'Save the registry as JSON', () => this.export()],
    ]);
    this.chips = KINDS.map(([kind, label]) => h('button.chip', {
      type: 'button', onclick: () => this.choose(kind),
    }, label, h('span.number')));
    const sorter = (key, label, name = '') => h(`span.cell${name}`, { role: 'columnheader' }, h('button.sort', {
      type: 'button', 'data-sort': key, onclick: () => this.sortBy(key),
    }, label));
    this.columns = h('.columns', { role: 'row' },
      sorter('project', 'Project'), sorter('port', 'Port', '.num'), h('span.cell.target', { role: 'columnheader' }, 'Target'),
      sorter('requests', 'Requests', '.num'), sorter('rate', 'Rate', '.rate'), sorter('used', 'Last used', '.num.used'));
    this.list = new List({
      label: 'Projects', columns: this.columns, key: (row) => row.key,
      create: (row, item) => this.createRow(row, item), update: (row, item) => this.updateRow(row, item),
      open: (row, focuses, isMove) => this.open(row, focuses, isMove), act: (key, row) => this.act(key, row), redraw: () => this.draw(),
    });
    this.list.isOpen = () => !this.pane.hidden;
    this.pane = h('aside.pane', { hidden: true, 'aria-label': 'Project', onkeydown: (event) => event.key === 'Escape' && (this.close(), event.stopPropagation()) });
    this.connect = new Connect(this.ask);
    this.first = h('.firstBox', { hidden: true });
    this.split = split(this.list, this.pane, 'projects');
    element.append(
      h('.bar', {},
        h('.chips', { role: 'group', 'aria-label': 'Which projects' }, this.chips),
        h('.actions', {},
          this.undoButton,
          button('button.primary', 'Allocate…', 'Allocate a port for a folder (a)', () => this.allocate()),
          this.menu.element)),
      this.first,
      this.split,
      this.facts);
    this.showUndo();
  }

  // Updates from the server.

  setProjects(message) {
    this.registry = message;
    this.draw();
  }

  setStatus(message) {
    this.status = message;
    const now = performance.now();
    const pids = new Set();
    for (const one of message.interceptors) {
      const key = `${one.pid}:${one.port}`;
      pids.add(key);
      if (!this.rates.has(key)) this.rates.set(key, new Rate());
      this.rates.get(key).note(one.requests, now);
    }
    for (const key of this.rates.keys()) if (!pids.has(key)) this.rates.delete(key);
    this.draw();
  }

  /** The rows: projects with their interceptors, and interceptors without a project. */
  merge() {
    const { interceptors, held } = this.status;
    const byPort = new Map(interceptors.map((one) => [one.port, one]));
    const heldBy = new Map(held.map((one) => [one.port, one]));
    const used = new Set();
    const rows = this.registry.projects.map((project) => {
      const one = byPort.get(project.port);
      const interceptor = one?.path === project.path ? one : undefined;
      if (interceptor) used.add(interceptor);
      const holder = interceptor ? undefined : heldBy.get(project.port);
      const state = interceptor ? 'running' : holder ? 'held' : project.deleted ? 'deleted' : 'free';
      return { ...project, key: `p${project.port}`, isMapped: true, interceptor, holder, state };
    });
    const atHeldPort = new Map(rows.map((row) => [row.port, row]));
    for (const one of interceptors) {
      if (used.has(one)) continue;
      // It has no mapping (`--port`, INTERCEPTOR_PORT).
      rows.push({
        key: `i${one.pid}-${one.port}`, name: one.project ?? one.instance_id, path: one.path ?? '', port: one.port,
        interceptor: one, state: 'running', isMapped: false, isGuest: atHeldPort.has(one.port),
      });
    }
    const now = Date.now() / 1000;
    for (const row of rows) {
      row.rateOf = row.interceptor && this.rates.get(`${row.interceptor.pid}:${row.port}`);
      row.rate = row.rateOf?.now;
      row.usedAt = row.interceptor ? now : row.last_used;
    }
    return rows;
  }

  draw() {
    const all = this.merge();
    const words = this.filterText.toLowerCase().split(/\s+/).filter(Boolean);
    const matches = (row) => words.every((word) =>
      row.name.toLowerCase().includes(word) || row.path.toLowerCase().includes(word) || String(row.port).startsWith(word));
    const found = words.length ? all.filter(matches) : all;
    for (const [place, [kind, , is]] of KINDS.entries()) {
      const number = found.filter(is).length;
      setText(this.chips[place].lastChild, count(number));
      this.chips[place].hidden = number === 0 && kind !== 'all' && kind !== this.kind;
    }
    const [, , is] = KINDS.find(([kind]) => kind === this.kind);
    this.rows = found.filter(is).sort(SORTS[this.sort]);
    for (const button of this.columns.querySelectorAll('[data-sort]')) {
      const isIt = button.dataset.sort === this.sort;
      setAttr(button.parentElement, 'aria-sort', isIt ? (SORTS_DOWN.has(this.sort) ? 'descending' : 'ascending') : null);
    }
    this.list.show(this.rows, this.registry.range ? 'No project matches.' : 'Loading…');
    this.drawFirst(all);
    if (this.openKey) {
      const row = all.find(({ key }) => key === this.openKey);
      if (row) {
        this.pane.hidden = false;
        this.fillPane(row);
      } else if (!this.pane.hidden) {
        // The focus stays where the user types.
        this.close(this.pane.contains(document.activeElement));
      }
    }
    const { range, assigned, available, projects, next_available, registry_file } = this.registry;
    if (range) {
      const outside = projects.length - assigned;
      setText(this.facts, `Ports ${range.start}–${range.end}: ${count(projects.length)} allocated${outside ? ` (${count(outside)} outside the range)` : ''}, ${count(available)} available, `
        + `${next_available ? `next ${next_available}` : 'none free'} · ${registry_file}`);
    }
  }

  /** What to do first, where no project has a port; interceptors that run without one are listed below it. */
  drawFirst(rows) {
    const { program, projects } = this.registry;
    this.first.hidden = !program || projects.length > 0;
    this.split.hidden = !this.first.hidden && !rows.length;
    if (this.first.hidden || this.first.dataset.program === program) return;
    this.first.dataset.program = program;
    this.first.replaceChildren(firstSteps(program, () => this.allocate()));
  }

  // Rows.

  createRow(row, item) {
    // The keyboard has `y`.
    const copyButton = h('button.tool', {
      type: 'button', tabIndex: -1, 'aria-label': 'Copy the address', title: 'Copy the address (y)',
      onclick: (event) => (event.stopPropagation(), this.list.pick(item().key, false), this.copyUrl(item())),
    }, 'Copy');
    row.cells = {
      dot: h('span.dot', { role: 'img' }), name: h('span.name'), badge: h('span.badge', { hidden: true }), path: h('span.path'),
      port: h('span.cell.num.port', { role: 'gridcell' }),
      target: h('span'), targetNote: h('span.note'),
      requests: h('span'), failed: h('span.note'), rate: h('span'), spark: sparkline(),
      used: h('span.cell.num.used', { role: 'gridcell' }),
    };
    const { cells } = row;
    row.append(
      h('span.cell.project', { role: 'gridcell' }, cells.dot, h('.two', {}, h('.one', {}, cells.name, cells.badge), cells.path)),
      cells.port,
      h('span.cell.target', { role: 'gridcell' }, h('.two', {}, cells.target, cells.targetNote)),
      h('span.cell.num.requests', { role: 'gridcell' }, h('.two', {}, cells.requests, cells.failed)),
      h('span.cell.rate', { role: 'gridcell' }, cells.spark, cells.rate),
      cells.used,
      h('span.cell.tools', { role: 'gridcell' }, copyButton));
  }

  updateRow(row, item) {
    const { cells } = row;
    const { interceptor } = item;
    setAttr(row, 'data-state', item.state);
    setAttr(cells.dot, 'aria-label', STATES[item.state]);
    setAttr(cells.dot, 'title', STATES[item.state]);
    setText(cells.name, visible(item.name));
    const badge = item.pinned ? 'pinned' : item.isMapped ? '' : item.isGuest ? 'on another’s port' : 'not in the registry';
    setText(cells.badge, badge);
    cells.badge.hidden = !badge;
    setText(cells.path, visible(item.path) || 'no project');
    setAttr(cells.path, 'title', visible(item.path));
    setText(cells.port, String(item.port));
    const [target, note, isBad] = targetOf(item);
    setText(cells.target, target);
    setAttr(cells.target, 'title', target);
    setText(cells.targetNote, note);
    cells.targetNote.classList.toggle('bad', isBad);
    setText(cells.requests, interceptor ? count(interceptor.requests) : '');
    setText(cells.failed, interceptor?.errors ? `${count(interceptor.errors)} failed` : interceptor?.in_flight ? `${count(interceptor.in_flight)} in flight` : '');
    cells.failed.classList.toggle('bad', Boolean(interceptor?.errors));
    setText(cells.rate, interceptor ? rateText(item.rate) : '');
    cells.spark.toggleAttribute('hidden', !interceptor);
    if (interceptor) drawSpark(cells.spark, item.rateOf);
    setText(cells.used, usedText(item));
  }

  // The pane beside the list.

  open(item, focuses, isMove) {
    this.openKey = item.key;
    this.pane.hidden = false;
    this.paneKey = null;
    this.fillPane(item);
    if (focuses) this.pane.querySelector('button').focus();
    this.onMove(!isMove);
  }

  close(focuses = true) {
    this.pane.hidden = true;
    this.openKey = null;
    if (focuses) this.list.focus();
    this.onMove(true);
  }

  fillPane(item) {
    // Built once for each project; then only texts change, so that an update does not replace a button during a click.
    if (this.paneKey !== item.key) {
      this.paneKey = item.key;
      const fact = (name) => [h('dt', {}, name), h('dd')];
      const names = ['Path', 'Target', 'Instance', 'Process', 'Requests', 'Last error', 'Last used'];
      this.paneFacts = new Map(names.map((name) => [name, fact(name)]));
      this.paneTitle = h('h2');
      const button = (label, title, act, kind = '') => h(`button${kind}`, { type: 'button', title, onclick: () => act(this.item) }, label);
      this.paneRequests = button('Requests', 'Show its requests (r)', (one) => this.onRequests(one));
      this.panePin = button('Pin', '', (one) => this.pin(one));
      this.paneRemove = button('Remove…', 'Remove its port (Del)', (one) => this.remove(one), '.danger');
      this.pane.replaceChildren(
        h('.paneHead', {}, this.paneTitle, h('button.quiet', { type: 'button', 'aria-label': 'Close', title: 'Close (Esc)', onclick: () => this.close() }, '×')),
        this.connect.element,
        h('.buttons', {}, this.paneRequests, this.panePin, this.paneRemove),
        h('dl.facts', {}, [...this.paneFacts.values()].flat()));
      this.connect.renew();
      this.pane.scrollTop = 0;
    }
    this.item = item;
    const { interceptor, holder } = item;
    setText(this.paneTitle, visible(item.name));
    this.paneRequests.disabled = !interceptor;
    setText(this.panePin, item.pinned ? 'Unpin' : 'Pin');
    this.panePin.hidden = this.paneRemove.hidden = !item.isMapped;
    setAttr(this.panePin, 'title', item.pinned ? 'Unpin (p)' : 'Pin: prune never removes it (p)');
    this.connect.show(item, stateText(item));
    const values = {
      Path: visible(item.path),
      Target: interceptor && `${interceptor.target}${interceptor.target_reachable ? '' : ' (not reachable)'}${interceptor.insecure ? ' (certificate not verified)' : ''}`,
      Instance: interceptor?.instance_id,
      Process: interceptor && `${interceptor.pid}, \`${SERVED_BY[interceptor.served_by] ?? interceptor.served_by}\`, for ${ago(interceptor.uptime_seconds)}`,
      Requests: interceptor && `${count(interceptor.requests)}, ${count(interceptor.errors)} failed, ${count(interceptor.in_flight)} in flight`,
      'Last error': interceptor?.last_error && `${ago(interceptor.last_error.seconds_ago)} ago: ${interceptor.last_error.message}`,
      'Last used': !interceptor && (item.last_used ? new Date(item.last_used * 1000).toLocaleString() : 'not known'),
    };
    for (const [name, [term, value]] of this.paneFacts) {
      term.hidden = value.hidden = !values[name];
      setMarked(value, values[name] ? visible(values[name]) : '');
    }
  }

  // Actions.

  filter(text) {
    this.filterText = text;
    this.changed();
  }

  choose(kind) {
    this.kind = kind;
    this.changed(true);
  }

  sortBy(key) {
    this.sort = key;
    this.changed();
  }

  /** Another choice of projects: shows it from its beginning. */
  changed(isStep = false) {
    for (const [place, [name]] of KINDS.entries()) setAttr(this.chips[place], 'aria-pressed', String(name === this.kind));
    this.list.toTop();
    this.onMove(isStep);
  }

  // The address.

  get place() {
    const { kind, filterText: q, sort } = this;
    return { words: this.openKey ? [this.openKey] : [], parameters: { show: kind === 'all' ? '' : kind, q, sort: sort === 'port' ? '' : sort } };
  }

  /** Shows what an address says. */
  visit({ words: [openKey = null], parameters: { show = 'all', q = '', sort = 'port' } }) {
    this.kind = KINDS.some(([kind]) => kind === show) ? show : 'all';
    this.filterText = q;
    this.sort = Object.hasOwn(SORTS, sort) ? sort : 'port';
    // Its row may come later.
    this.openKey = openKey;
    this.pane.hidden = true;
    this.changed();
  }

  focus() {
    this.list.focus();
  }

  shown(isShown) {
    if (isShown) this.list.draw();
  }

  /** Keys of the view. */
  press(key) {
    const keys = { a: () => this.allocate(), m: () => this.menu.open(), u: () => this.undo(), Escape: () => this.pane.hidden || this.close() };
    if (key in keys) keys[key]();
    else if (this.list.current) return this.act(key, this.list.current);
    else return false;
    return true;
  }

  /** Keys of a row. */
  act(key, row) {
    const keys = {
      y: () => this.copyUrl(row), ...(row.interceptor && { r: () => this.onRequests(row) }),
      ...(row.isMapped && { p: () => this.pin(row), Delete: () => this.remove(row), Backspace: () => this.remove(row) }),
    };
    if (!(key in keys)) return false;
    keys[key]();
    return true;
  }

  copyUrl(row) {
    copy(addressOf(row), addressOf(row));
  }

  /** Reports a change; `undo` sends the request that reverts it and resolves to its answer. */
  offerUndo(text, undo) {
    if (!undo) return toast(text);
    const entry = { text, undo };
    this.undos.push(entry);
    if (this.undos.length > UNDOS_MAX) this.undos.shift();
    this.showUndo();
    entry.endToast = toast(text, { label: 'Undo', action: () => this.undo(entry) });
  }

  showUndo() {
    const last = this.undos.at(-1);
    this.undoButton.hidden = !last;
    this.undoButton.title = `Undo: ${last?.text} (u)`;
  }

  async undo(entry = this.undos.at(-1)) {
    if (!this.undos.includes(entry)) return;
    const answer = await entry.undo();
    if (!dialogs.succeeded(answer)) return;
    if (answer.conflicts?.length) {
      toast(`Cannot undo: ${dialogs.conflictText(answer.conflicts[0])}`, { isError: true });
      return;
    }
    this.undos = this.undos.filter((one) => one !== entry);
    entry.endToast();
    this.showUndo();
    toast(`Undone: ${entry.text}`);
  }

  /** Returns a function that restores the current mappings of these projects by an import; `null` if they cannot be read. */
  async keep(paths) {
    const { blob } = await this.ask('export');
    if (!blob) return null;
    const { mappings, ic } = JSON.parse(await blob.text());
    const ofPaths = (all) => Object.fromEntries(paths.filter((path) => path in (all ?? {})).map((path) => [path, all[path]]));
    const kept = JSON.stringify({ mappings: ofPaths(mappings), ic: { projects: ofPaths(ic?.projects) } });
    const bytes = dialogs.bytesOf(new TextEncoder().encode(kept));
    return () => this.ask('import', { name: 'undo', bytes, replace: false, dry_run: false });
  }

  async pin(row) {
    const answer = await this.ask('pin', { path: row.path, pinned: !row.pinned });
    const undo = () => this.ask('pin', { path: row.path, pinned: row.pinned });
    if (dialogs.succeeded(answer)) this.offerUndo(`${answer.pinned ? 'Pinned' : 'Unpinned'} ${visible(row.name)}`, undo);
  }

  async remove(row) {
    const lines = [`${visible(row.path)} loses port ${row.port}, which another project may get then.`];
    if (row.state === 'running') lines.push('Its interceptor keeps running until it is stopped.');
    if (!await dialogs.confirm(`Remove ${visible(row.name)}?`, lines, 'Remove')) return this.list.focus();
    const undo = await this.keep([row.path]);
    const answer = await this.ask('remove', { path: row.path });
    if (dialogs.succeeded(answer)) this.offerUndo(`Removed ${visible(row.name)}`, undo);
    this.list.focus();
  }

  async allocate() {
    const answer = await dialogs.allocate(this.ask);
    if (!answer) return;
    const text = answer.created ? `${visible(answer.project)} has port ${answer.port}` : `${visible(answer.project)} had port ${answer.port} already`;
    const undo = answer.created && (() => this.ask('remove', { path: answer.path }));
    this.offerUndo(answer.missing ? `${text}; the folder does not exist yet` : text, undo);
    // Its row may come later.
    this.openKey = `p${answer.port}`;
    this.pane.hidden = true;
    this.list.pick(this.openKey, true);
    this.onMove(true);
  }

  async prune() {
    const answer = await dialogs.prune(this.ask, (paths) => this.keep(paths));
    if (answer) this.offerUndo(`Removed ${plural(answer.removed.length, 'mapping')}`, answer.undo);
  }

  async import() {
    const answer = await dialogs.importFile(this.ask);
    if (answer) toast(`Imported ${plural(answer.added.length + answer.moved.length, 'mapping')}`);
  }

  async export() {
    const answer = await this.ask('export');
    if (answer.blob) download('port_registry.json', answer.blob.type, answer.blob);
    else dialogs.succeeded(answer);
  }
}

/** More than a user remembers. */
const UNDOS_MAX = 20;

const SORTS_DOWN = new Set(['requests', 'rate', 'used']);

/** The commands that run interceptors. */
const SERVED_BY = { serve: 'ic serve', run: 'ic run', all: 'ic serve --all' };

function stateText({ state, holder, deleted }) {
  if (holder) return `${STATES[state]}: ${holderText(holder)}`;
  return STATES[state] + (deleted && state !== 'deleted' ? ', its folder is gone' : '');
}

function addressOf(row) {
  return `http://localhost:${row.port}`;
}

function holderText(holder) {
  if (holder.instance_id) return `interceptor ${visible(holder.instance_id)}, pid ${holder.pid}`;
  const program = holder.pid ? `${visible(holder.program)}, pid ${holder.pid}` : 'a program that cannot be seen';
  return holder.other_user == null ? program : `${program}, of another user (uid ${holder.other_user})`;
}

/** The target's column: a line, a note below it, and whether the note is an error. */
function targetOf({ interceptor, holder, state }) {
  if (interceptor) {
    const trouble = !interceptor.target_reachable ? 'not reachable'
      : interceptor.insecure ? 'certificate not verified' : '';
    return [visible(interceptor.target), trouble || `up ${ago(interceptor.uptime_seconds)}`, Boolean(trouble)];
  }
  if (holder) return ['Port in use', holderText(holder), true];
  return ['', STATES[state], false];
}

function rateText(rate) {
  if (!rate) return '0/s';
  return rate < 0.95 ? `${(rate * 60).toFixed(rate < 0.1 ? 1 : 0)}/min` : `${rate.toFixed(rate < 10 ? 1 : 0)}/s`;
}

function usedText({ interceptor, last_used }) {
  if (interceptor) return 'now';
  return last_used ? `${ago(Date.now() / 1000 - last_used)}` : '—';
}
