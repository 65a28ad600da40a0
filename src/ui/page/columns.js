// The columns of the list of requests: their heads, what they are sorted by, and the cells of a row.

import { count, h, setAttr, setText, visible } from './dom.js';
import { lastSaid } from './conversations.js';
import { FAILED, OUTCOMES, clock, durationOf, extraText, isFailed, pace, size, spell, statusOf, tokens } from './format.js';

/** `by(one)` is what a column is sorted by; at first the largest is on top if `isDown`. */
const COLUMNS = [
  { key: 'time', label: 'Time', by: (one) => one.at, isDown: true },
  { key: 'source', label: 'Project', by: (one) => `${one.source}:${String(one.port).padStart(5)}` },
  { key: 'line', label: 'Request', by: (one) => shownPath(one) },
  { key: 'status', label: 'Status', by: (one) => one.status ?? (isFailed(one) ? 1000 : undefined), isDown: true },
  { key: 'ttfb', label: 'First byte', isNumber: true, by: (one) => one.ttfb_ms, isDown: true },
  { key: 'duration', label: 'Duration', isNumber: true, by: (one) => durationOf(one, Date.now() / 1000), isDown: true },
  { key: 'size', label: 'Size', isNumber: true, by: (one) => one.response_bytes, isDown: true },
  { key: 'model', label: 'Model', by: (one) => one.model },
  { key: 'tokens', label: 'Tokens', isNumber: true, by: (one) => (tokens(one) ? (one.input_tokens ?? 0) + (one.output_tokens ?? 0) : undefined), isDown: true },
  { key: 'pace', label: 'ms/token', isNumber: true, by: (one) => (pace(one) ? Number(pace(one)) : undefined), isDown: true },
];

/** The newest first. */
export const NEWEST = '-time';

/** The order after a click on a column's head. */
export function orderAfter(order, key) {
  const { isDown } = COLUMNS.find((column) => column.key === key);
  const first = isDown ? `-${key}` : key;
  return order !== first ? first : isDown ? key : `-${key}`;
}

/** Sorts requests, which are given with the newest first, by a column's key; with a dash before it, the largest first. Unknown values are last. */
export function sorted(requests, order) {
  const column = COLUMNS.find(({ key }) => key === order.replace(/^-/, ''));
  if (!column || order === NEWEST) return requests;
  const sign = order.startsWith('-') ? -1 : 1;
  const isKnown = (value) => value !== undefined && value !== null && value !== '';
  const values = new Map(requests.map((one) => [one, column.by(one)]));
  return requests.toSorted((one, other) => {
    const [a, b] = [values.get(one), values.get(other)];
    if (!isKnown(a) || !isKnown(b)) return isKnown(b) - isKnown(a);
    return sign * (typeof a === 'number' && typeof b === 'number' ? a - b : String(a).localeCompare(String(b)));
  });
}

export class Columns {
  /** `sortBy(key)`: the head of a column was pressed. */
  constructor(sortBy) {
    const head = ({ key, label, isNumber }) => h(`span.cell.${isNumber ? 'num.' : ''}${key}`, { role: 'columnheader' },
      h('button.sort', { type: 'button', 'data-sort': key, onclick: () => sortBy(key) }, label));
    this.axisHead = h('span.cell.axis', { role: 'columnheader', title: 'From the first start to the last end of the visible requests' });
    this.element = h('.columns', { role: 'row' }, COLUMNS.map(head), this.axisHead);
    this.axis = { from: 0, span: 1, now: 0 };
  }

  showOrder(order) {
    for (const button of this.element.querySelectorAll('[data-sort]')) {
      const direction = order === button.dataset.sort ? 'ascending' : order === `-${button.dataset.sort}` ? 'descending' : null;
      setAttr(button.parentElement, 'aria-sort', direction);
    }
  }

  /** Sets the time axis: from the first start to the last end of the visible requests. */
  measure(inView) {
    const now = Date.now() / 1000;
    const spans = inView.map((one) => spanOf(one, now));
    const from = Math.min(...spans.map(([start]) => start));
    const to = Math.max(from + 0.001, ...spans.map(([, end]) => end));
    this.axis = { from, span: to - from, now };
    setText(this.axisHead, inView.length ? `Timeline ${spell((to - from) * 1000)}` : 'Timeline');
  }

  createRow(row) {
    const cell = (name, ...inside) => (row.cells[name.split('.').at(-1)] = h(`span.cell.${name}`, { role: 'gridcell' }, ...inside));
    row.cells = {};
    for (const name of ['seconds', 'ms', 'name', 'port', 'method', 'what', 'said', 'wait', 'body']) row[name] = h(`span.${name}`);
    row.append(
      cell('time', row.seconds, row.ms), cell('source', row.name, row.port), cell('line', row.method, row.what, row.said), cell('status'), cell('num.ttfb'), cell('num.duration'), cell('num.size'),
      cell('model'), cell('num.tokens'), cell('message'), cell('num.pace'), cell('axis', h('span.track', {}, row.wait, row.body)));
    row.cells.message.setAttribute('aria-colspan', 2);
  }

  /** `level`: 0 in a plain list, 1 for a conversation or a request of its own, 2 for a request of a conversation. */
  updateRow(row, one, level, isUnfolded) {
    this.updateBars(row, one);
    // Only the bars of a request that has ended depend on others.
    const state = [one, one.revision, level, isUnfolded];
    if (one.outcome && state.every((part, place) => part === row.state?.[place])) return;
    row.state = state;
    const { cells } = row;
    const message = one.members ? '' : messageOf(one);
    setAttr(row, 'data-state', stateOf(one));
    setAttr(row, 'data-class', one.status ? String(Math.floor(one.status / 100)) : null);
    setAttr(row, 'aria-expanded', one.members ? String(isUnfolded) : null);
    setAttr(row, 'aria-level', level || null);
    const time = clock(one.at);
    setText(row.seconds, time.slice(0, -4));
    setText(row.ms, time.slice(-4));
    setText(row.name, visible(one.source));
    setText(row.port, `:${one.port}`);
    setAttr(cells.source, 'title', visible(one.sourcePath ?? one.source));
    this.updateLine(row, one);
    setText(cells.status, statusOf(one));
    setAttr(cells.status, 'title', one.outcome && OUTCOMES[one.outcome]);
    setText(cells.ttfb, one.members ? '' : spell(one.ttfb_ms));
    setText(cells.duration, spell(one.members ? one.duration_ms : durationOf(one, this.axis.now)));
    setText(cells.size, size(one.response_bytes));
    cells.model.hidden = cells.tokens.hidden = Boolean(message);
    cells.message.hidden = !message;
    setText(cells.message, message);
    setAttr(cells.message, 'title', message);
    setText(cells.model, one.model ? visible(one.model) : '');
    setAttr(cells.model, 'title', one.model && visible(one.model));
    setText(cells.tokens, tokens(one));
    setAttr(cells.tokens, 'title', tokens(one) && exactTokens(one));
    setText(cells.pace, one.members ? '' : pace(one));
  }

  updateLine(row, one) {
    const said = lastSaid(one);
    setText(row.method, one.members ? `${one.turns} turns` : one.method ? visible(one.method) : '—');
    setText(row.what, one.members ? extraText(one) : one.path ? visible(shownPath(one)) : 'a request that cannot be read');
    setAttr(row.what, 'title', one.path && visible(one.path));
    setText(row.said, visible(said));
    setAttr(row.said, 'title', said && visible(said));
  }

  updateBars(row, one) {
    const { from, span, now } = this.axis;
    const [begin, end] = spanOf(one, now);
    const start = ((begin - from) / span) * 100;
    const all = ((end - begin) / span) * 100;
    const wait = one.members ? 0 : Math.min((one.ttfb_ms ?? Infinity) / 10 / span, all);
    row.wait.style.left = `${start}%`;
    row.wait.style.width = `${wait}%`;
    row.body.style.left = `${start + wait}%`;
    row.body.style.width = `${Math.max(0, all - wait)}%`;
  }
}

/** From when to when a request lasted, or those of a conversation, in Unix seconds. */
function spanOf(one, now) {
  const [latest, earliest] = one.members ? [one.members[0], one.members.at(-1)] : [one, one];
  return [earliest.at, latest.at + (durationOf(latest, now) ?? 0) / 1000];
}

/** `/v1/` is in almost every path of an API. */
function shownPath({ path }) {
  return path?.replace(/^\/v1\/(?=.)/, '') ?? '';
}

function stateOf(one) {
  if (!one.outcome) return 'open';
  if (isFailed(one)) return 'failed';
  return one.outcome === 'client_gone' || one.outcome === 'unknown' ? 'left' : 'done';
}

/** What went wrong, in words; `''` if nothing did, or if no more is known than the status. */
function messageOf(one) {
  if (!isFailed(one)) return '';
  if (typeof one.message === 'string' && one.message) return visible(one.message);
  return FAILED.includes(one.outcome) ? [OUTCOMES[one.outcome], one.error && visible(one.error)].filter(Boolean).join(': ') : '';
}

function exactTokens({ input_tokens, output_tokens, cached_tokens }) {
  const number = (value) => (typeof value === 'number' ? count(value) : '?');
  return `${number(input_tokens)} in${cached_tokens ? ` (${number(cached_tokens)} cached)` : ''}, ${number(output_tokens)} out`;
}
