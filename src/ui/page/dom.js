// Elements, lists and messages. Strings are inserted as text only: the Content-Security-Policy forbids markup made from strings.

/** An element: its class after a dot, its properties and attributes, its children (elements, texts, nothing). */
export function h(name, properties, ...children) {
  const [tag, ...classes] = name.split('.');
  const element = document.createElement(tag || 'div');
  if (classes.length) element.className = classes.join(' ');
  for (const [key, value] of Object.entries(properties ?? {})) {
    if (value === undefined || value === null || value === false) continue;
    if (key.startsWith('on')) element.addEventListener(key.slice(2), value);
    else if (key in element && !key.startsWith('aria')) element[key] = value;
    else element.setAttribute(key, value === true ? '' : value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** Sets the text only if it changed, which avoids a new layout. */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

export function setAttr(element, attribute, value) {
  if (value === null || value === undefined || value === false) element.removeAttribute(attribute);
  else if (element.getAttribute(attribute) !== String(value)) element.setAttribute(attribute, value);
}

/** A path or name with escapes: the server sends a byte that is not UTF-8 as NUL and two digits. */
export function visible(text) {
  return String(text).replace(/\0([0-9a-f]{2})/g, '\\x$1').replace(/[\0-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069]/g, '\ufffd');
}

export function ago(seconds) {
  if (seconds < 0) return 'now';
  const units = [['d', 86400], ['h', 3600], ['m', 60]];
  for (const [unit, size] of units) if (seconds >= size) return `${Math.floor(seconds / size)} ${unit}`;
  return `${Math.floor(seconds)} s`;
}

export function count(number) {
  return number.toLocaleString('en').replaceAll(',', '\u2009');
}

export function plural(number, one, many = `${one}s`) {
  return `${count(number)} ${number === 1 ? one : many}`;
}

const toasts = document.getElementById('toasts');

/** A message that disappears after a while, later if it has an action or is an error. */
export function toast(text, { action, label, isError } = {}) {
  const close = () => {
    clearTimeout(timer);
    line.remove();
  };
  const act = action && h('button.link', { type: 'button', onclick: () => (close(), action()) }, label);
  const line = h(isError ? 'p.toast.bad' : 'p.toast', {}, h('span', {}, text), act,
    h('button.quiet', { type: 'button', 'aria-label': 'Dismiss', onclick: close }, '×'));
  const timer = setTimeout(close, action || isError ? 10_000 : 4_000);
  while (toasts.childElementCount > 3) toasts.firstElementChild.remove();
  toasts.append(line);
}

export async function copy(text, what) {
  try {
    await navigator.clipboard.writeText(text);
    toast(`Copied ${what}`);
  } catch {
    toast(`Cannot copy; the browser does not allow it`, { isError: true });
  }
}

export function download(name, type, content) {
  const url = URL.createObjectURL(new Blob([content], { type }));
  h('a', { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}

/**
 * A list of rows of equal height. Only the visible rows are in the document. The focus stays on the list; keys act on its
 * active descendant.
 */
export class List {
  /** `create(row)` fills a new row, `update(row, item)` shows an item in it; `key(item)` tells items apart. */
  constructor({ label, columns, create, update, key, open, act }) {
    this.items = [];
    this.rows = new Map();
    this.places = new Map();
    this.active = null;
    Object.assign(this, { create, update, key, open, act });
    this.id = label.toLowerCase();
    this.spacer = h('.spacer', { role: 'rowgroup' });
    this.scroller = h('.scroller', {
      tabIndex: 0, role: 'grid', 'aria-label': label, onscroll: () => this.draw(), onkeydown: (event) => this.onKey(event),
    }, this.spacer);
    this.empty = h('p.empty', { hidden: true });
    this.element = h('.list', { id: `${this.id}-list` }, columns, this.scroller, this.empty);
    new ResizeObserver(() => this.draw()).observe(this.scroller);
  }

  get height() {
    return this.rowHeight ??= parseFloat(getComputedStyle(this.element).getPropertyValue('--row')) || 40;
  }

  /** `isGrowing`: new items are inserted at the top, and the scroll position follows the visible ones. */
  show(items, emptyText, isGrowing) {
    const anchor = isGrowing && this.scroller.scrollTop > 0 ? this.items[Math.floor(this.scroller.scrollTop / this.height)] : null;
    this.items = items;
    this.places = new Map(items.map((item, place) => [this.key(item), place]));
    const spacerHeight = `${items.length * this.height}px`;
    if (this.spacer.style.height !== spacerHeight) this.spacer.style.height = spacerHeight;
    if (anchor) {
      const before = this.scroller.scrollTop;
      const place = this.places.get(this.key(anchor));
      if (place !== undefined) {
        const after = place * this.height + (before % this.height);
        if (after !== before) this.scroller.scrollTop = after;
      }
    }
    setAttr(this.scroller, 'aria-rowcount', items.length);
    this.empty.hidden = items.length > 0;
    setText(this.empty, emptyText ?? '');
    this.draw();
  }

  draw() {
    delete this.rowHeight;
    const { scrollTop, clientHeight } = this.scroller;
    const first = Math.max(0, Math.floor(scrollTop / this.height) - 4);
    const last = Math.min(this.items.length, Math.ceil((scrollTop + clientHeight) / this.height) + 4);
    this.before?.(this.items.slice(first, last));
    const stale = new Set(this.rows.keys());
    for (let place = first; place < last; place++) {
      const item = this.items[place];
      const key = this.key(item);
      let row = this.rows.get(key);
      if (!row) {
        row = h('.row', { role: 'row', id: `${this.id}-${key}` });
        row.addEventListener('click', () => this.pick(key, true));
        this.create(row, () => this.items[this.places.get(key)]);
        this.rows.set(key, row);
        this.spacer.append(row);
      }
      stale.delete(key);
      const at = `translateY(${place * this.height}px)`;
      if (row.style.transform !== at) row.style.transform = at;
      setAttr(row, 'aria-rowindex', place + 1);
      setAttr(row, 'aria-selected', key === this.active);
      this.update(row, item);
    }
    for (const key of stale) {
      this.rows.get(key).remove();
      this.rows.delete(key);
    }
    setAttr(this.scroller, 'aria-activedescendant', this.rows.has(this.active) ? `${this.id}-${this.active}` : null);
  }

  get current() {
    return this.items[this.places.get(this.active)];
  }

  pick(key, opens) {
    this.active = key;
    const place = this.places.get(key);
    if (place !== undefined) {
      const { scroller, height } = this;
      const top = place * height;
      if (top < scroller.scrollTop) scroller.scrollTop = top;
      else if (top + height > scroller.scrollTop + scroller.clientHeight) scroller.scrollTop = top + height - scroller.clientHeight;
    }
    this.draw();
    if (opens && this.current) this.open(this.current);
  }

  /** Moves the active row by `by` rows; `follows`: the pane shows the new one. */
  move(by, follows) {
    if (!this.items.length) return;
    const place = this.places.get(this.active) ?? (by > 0 ? -1 : this.items.length);
    const next = Math.min(this.items.length - 1, Math.max(0, place + by));
    this.pick(this.key(this.items[next]), follows);
  }

  onKey(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target !== this.scroller) return;
    const page = Math.max(1, Math.floor(this.scroller.clientHeight / this.height) - 1);
    const steps = { ArrowDown: 1, j: 1, ArrowUp: -1, k: -1, PageDown: page, PageUp: -page, Home: -Infinity, End: Infinity };
    if (event.key in steps) this.move(steps[event.key], this.isOpen?.());
    else if (event.key === 'Enter' && this.current) this.open(this.current, true);
    else if (!(this.current && this.act?.(event.key, this.current))) return;
    event.preventDefault();
    event.stopPropagation();
  }

  focus() {
    this.scroller.focus();
    if (!this.current && this.items.length) this.pick(this.key(this.items[0]), false);
  }
}
