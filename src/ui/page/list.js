// A list of rows of equal height that stays still under the hand, and the border between a list and its pane.

import { count, h, marked, setAttr, setText } from './dom.js';

/** How long the rows stay still after the pointer moved over them, or a key moved the active one. */
const HAND_MS = 2000;

/**
 * A list of rows of equal height. Only the visible rows are in the document. The focus stays on the list; keys act on its
 * active descendant. While the hand is at work on it, or `isStill()`, its rows stay where they are; their texts are updated.
 */
export class List {
  /**
   * `create(row)` fills a new row, `update(row, item)` shows an item in it; `key(item)` tells items apart; `redraw()` calls `show`;
   * `resume()` ends what `isStill` is about, except for the scroll position; `open(item, focuses, isMove)` shows an item's details.
   */
  constructor({ label, columns, create, update, key, open, act, redraw, isStill = () => false, resume }) {
    this.items = [];
    this.rows = new Map();
    this.places = new Map();
    this.active = null;
    this.handUntil = 0;
    Object.assign(this, { create, update, key, open, act, redraw, isStill });
    this.id = label.toLowerCase();
    this.head = h('.head', { role: 'rowgroup' }, columns);
    setAttr(columns, 'aria-rowindex', 1);
    this.spacer = h('.spacer', { role: 'rowgroup' });
    this.scroller = h('.scroller', { tabIndex: 0, role: 'grid', 'aria-label': label, onscroll: () => this.onScroll(), onkeydown: (event) => this.onKey(event) },
      this.head, this.spacer);
    this.pill = h('button.pill', { type: 'button', hidden: true, onclick: () => (resume?.(), this.toTop()) });
    this.empty = h('p.empty', { hidden: true });
    this.element = h('.list', { id: `${this.id}-list` }, this.scroller, this.pill, this.empty);
    this.view = { top: 0, height: 0, row: 40, head: 0 };
    new ResizeObserver(() => this.measure()).observe(this.scroller);
    this.feelHand();
  }

  /** Reads the sizes, which only change with the size of the list: reading them later would cost a layout for each drawing. */
  measure() {
    const row = parseFloat(getComputedStyle(this.scroller).getPropertyValue('--row')) || 40;
    this.view = { top: this.scroller.scrollTop, height: this.scroller.clientHeight, row, head: this.head.offsetHeight };
    this.place();
    this.draw();
  }

  // The hand.

  feelHand() {
    let at = '';
    const feel = (event) => {
      // A browser repeats the last position when something moved below it.
      const here = `${event.clientX} ${event.clientY}`;
      if (here === at) return;
      at = here;
      // Also between rows: they have gaps while the list gets another width.
      if (this.spacer.contains(event.target)) this.hold();
      else this.release();
    };
    this.scroller.addEventListener('pointermove', feel);
    this.scroller.addEventListener('pointerleave', () => this.isDown || this.release());
    this.scroller.addEventListener('pointerdown', (event) => {
      this.pressed = null;
      if (event.target.closest('.row')) this.isDown = true;
    }, true);
    for (const end of ['pointerup', 'pointercancel']) {
      addEventListener(end, () => {
        if (!this.isDown) return;
        this.isDown = false;
        // The click follows.
        this.hold();
      }, true);
    }
  }

  get isHeld() {
    return this.isDown || performance.now() < this.handUntil || this.isStill();
  }

  /** Keeps the rows in place for a moment. */
  hold() {
    this.handUntil = performance.now() + HAND_MS;
    this.timer ??= setTimeout(() => this.ended(), HAND_MS);
  }

  ended() {
    const left = this.handUntil - performance.now();
    this.timer = left > 0 ? setTimeout(() => this.ended(), left) : null;
    if (!this.timer) this.redraw();
  }

  /** The hand is elsewhere: shows what has changed. */
  release() {
    if (!this.handUntil) return;
    this.handUntil = 0;
    this.redraw();
  }

  /** Shows the next items as they are: the user asked for them. */
  letGo() {
    this.handUntil = 0;
    this.isLetGo = true;
    this.redraw();
  }

  /** Back to the first row, with all that has come since. */
  toTop() {
    this.scroller.scrollTop = 0;
    this.view.top = 0;
    this.letGo();
  }

  onScroll() {
    const wasStill = this.isStill();
    this.view.top = this.scroller.scrollTop;
    if (wasStill && !this.isHeld) this.redraw();
    else this.draw();
  }

  // The rows.

  /** Shows `items`; while the list is held, it keeps its rows, and new ones are counted, in addition to `waiting` ones. */
  show(items, emptyText, waiting = 0) {
    if (this.items.length && this.isHeld && !this.isLetGo) {
      const fresh = new Map(items.map((item) => [this.key(item), item]));
      for (const key of fresh.keys()) if (!this.places.has(key)) waiting++;
      this.items = this.items.map((item) => fresh.get(this.key(item)) ?? item);
    } else {
      this.isLetGo = false;
      this.items = items;
      this.places = new Map(items.map((item, place) => [this.key(item), place]));
    }
    // Under a moving hand no button appears.
    this.pill.hidden = !waiting || !this.isStill();
    setText(this.pill, `↑ ${count(waiting)} new`);
    this.place();
    setAttr(this.scroller, 'aria-rowcount', this.items.length + 1);
    this.empty.hidden = this.items.length > 0;
    if (this.emptyText !== emptyText) this.empty.replaceChildren(...marked((this.emptyText = emptyText) ?? ''));
    this.draw();
  }

  place() {
    const height = `${this.items.length * this.view.row}px`;
    if (this.spacer.style.height !== height) this.spacer.style.height = height;
  }

  draw() {
    const { top, height, row: rowHeight } = this.view;
    const first = Math.max(0, Math.floor(top / rowHeight) - 4);
    const last = Math.min(this.items.length, Math.ceil((top + height) / rowHeight) + 4);
    const inView = this.items.slice(first, last);
    this.before?.(inView);
    const keys = new Set(inView.map(this.key));
    const stale = [...this.rows].filter(([key]) => !keys.has(key));
    for (const [offset, item] of inView.entries()) {
      const place = first + offset;
      const key = this.key(item);
      const row = this.rows.get(key) ?? this.rowFor(key, stale);
      const at = `translateY(${place * rowHeight}px)`;
      if (row.style.transform !== at) row.style.transform = at;
      setAttr(row, 'aria-rowindex', place + 2);
      setAttr(row, 'aria-selected', key === this.active);
      this.update(row, item);
    }
    for (const [key, row] of stale) {
      row.remove();
      this.rows.delete(key);
    }
    setAttr(this.scroller, 'aria-activedescendant', this.rows.has(this.active) ? `${this.id}-${this.active}` : null);
  }

  /** A row for an item, one of the `stale` ones if there are any: a new one costs more. */
  rowFor(key, stale) {
    const place = stale.findLastIndex(([, row]) => !row.contains(document.activeElement));
    const [old, row] = place < 0 ? [null, this.createRow()] : stale.splice(place, 1)[0];
    this.rows.delete(old);
    this.rows.set(key, row);
    row.key = key;
    row.id = `${this.id}-${key}`;
    return row;
  }

  createRow() {
    const row = h('.row', { role: 'row' });
    // A finger may be about to scroll: its click counts. For a mouse, the row below it may be another one before the click.
    row.addEventListener('pointerdown', (event) => {
      if (event.button !== 0 || event.pointerType === 'touch' || event.target.closest('button, a')) return;
      this.pressed = row.key;
      this.choose(row.key, true);
    });
    row.addEventListener('click', () => this.pressed === row.key || this.choose(row.key, true));
    this.create(row, () => this.items[this.places.get(row.key)]);
    this.spacer.append(row);
    return row;
  }

  get current() {
    return this.items[this.places.get(this.active)];
  }

  /** Makes a row the active one, where it is. */
  choose(key, opens, isMove) {
    this.active = key;
    this.draw();
    if (opens && this.current) this.open(this.current, false, isMove);
  }

  /** Makes a row the active one, and scrolls to it. `isMove`: on the way to another one. */
  pick(key, opens, isMove) {
    const place = this.places.get(key);
    if (place !== undefined) {
      const { row, head } = this.view;
      const [top, height] = [place * row, this.view.height - head];
      const to = top < this.view.top ? top : top + row > this.view.top + height ? top + row - height : null;
      if (to !== null) this.scroller.scrollTop = this.view.top = to;
    }
    this.choose(key, opens, isMove);
  }

  /** Moves the active row by `by` rows; `follows`: the pane shows the new one. */
  move(by, follows) {
    if (!this.items.length) return;
    this.hold();
    const place = this.places.get(this.active) ?? (by > 0 ? -1 : this.items.length);
    const next = Math.min(this.items.length - 1, Math.max(0, place + by));
    this.pick(this.key(this.items[next]), follows, true);
  }

  onKey(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target !== this.scroller) return;
    const page = Math.max(1, Math.floor((this.view.height - this.view.head) / this.view.row) - 1);
    const steps = {
      ArrowDown: 1, j: 1, ArrowUp: -1, k: -1, PageDown: page, PageUp: -page, Home: -Infinity, g: -Infinity, End: Infinity, G: Infinity,
    };
    if (event.key in steps) this.move(steps[event.key], this.isOpen?.());
    else if (event.key === 'Enter' && this.current) this.open(this.current, true);
    else if (!(this.current && this.act?.(event.key, this.current))) return;
    event.preventDefault();
    event.stopPropagation();
  }

  focus() {
    this.scroller.focus({ preventScroll: true });
    if (!this.current && this.items.length) this.pick(this.key(this.items[0]), false);
  }
}

/** A list and its pane, with a border between them that is dragged, or moved with the arrow keys. `name`: where the width is kept. */
export function split(list, pane, name) {
  const kept = `ic-split-${name}`;
  const grip = h('.grip', { role: 'separator', tabIndex: 0, 'aria-orientation': 'vertical', 'aria-label': 'Width of the details', 'aria-valuemin': SHARE_MIN, 'aria-valuemax': SHARE_MAX });
  const element = h('.split', {}, list.element, grip, pane);
  let share;
  const set = (percent) => {
    share = Math.round(Math.min(SHARE_MAX, Math.max(SHARE_MIN, percent)));
    element.style.setProperty('--share', `${share}%`);
    setAttr(grip, 'aria-valuenow', share);
  };
  const keep = () => localStorage.setItem(kept, share);
  set(Number(localStorage.getItem(kept)) || SHARE);
  grip.addEventListener('pointerdown', (event) => {
    event.preventDefault();
    grip.setPointerCapture(event.pointerId);
  });
  grip.addEventListener('pointermove', (event) => {
    if (!grip.hasPointerCapture(event.pointerId)) return;
    const { right, width } = element.getBoundingClientRect();
    set(((right - event.clientX) / width) * 100);
  });
  grip.addEventListener('lostpointercapture', keep);
  grip.addEventListener('dblclick', () => (set(SHARE), keep()));
  grip.addEventListener('keydown', (event) => {
    const steps = { ArrowLeft: share + 2, ArrowRight: share - 2, Home: SHARE_MAX, End: SHARE_MIN };
    if (!(event.key in steps)) return;
    event.preventDefault();
    set(steps[event.key]);
    keep();
  });
  return element;
}

/** The pane's share of the width, in percent. */
const SHARE = 45;
const SHARE_MIN = 20;
const SHARE_MAX = 75;
