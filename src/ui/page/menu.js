// A button that opens a menu.

import { h, setAttr } from './dom.js';

/** `items` are `[label, title, act]`. Escape and a click elsewhere close the menu, as the browser does with every popover. */
export function menu(label, name, items) {
  const id = `menu-${name}`;
  const entries = items.map(([text, title, act]) => h('button', {
    type: 'button', role: 'menuitem', tabIndex: -1, title, onclick: () => (list.hidePopover(), act()),
  }, text));
  const list = h('.menu', { id, role: 'menu', popover: 'auto', 'aria-label': label }, entries);
  const button = h('button', { type: 'button', 'aria-haspopup': 'menu', 'aria-expanded': 'false', 'aria-controls': id, popoverTargetElement: list }, label);
  let first = 0;
  const open = (at = 0) => {
    first = at;
    list.showPopover();
  };
  list.addEventListener('beforetoggle', ({ newState }) => {
    if (newState !== 'open') return;
    const { bottom, right } = button.getBoundingClientRect();
    list.style.top = `${bottom + 4}px`;
    list.style.right = `${document.documentElement.clientWidth - right}px`;
  });
  list.addEventListener('toggle', ({ newState }) => {
    setAttr(button, 'aria-expanded', String(newState === 'open'));
    if (newState === 'open') entries.at(first).focus();
    first = 0;
  });
  button.addEventListener('keydown', (event) => {
    const at = { ArrowDown: 0, ArrowUp: -1 }[event.key];
    if (at === undefined) return;
    event.preventDefault();
    event.stopPropagation();
    open(at);
  });
  list.addEventListener('keydown', (event) => {
    // The keys of the view wait until the menu is closed.
    event.stopPropagation();
    if (event.key === 'Tab') list.hidePopover();
    const at = entries.indexOf(document.activeElement);
    const to = { ArrowDown: (at + 1) % entries.length, ArrowUp: at - 1, Home: 0, End: -1 }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    entries.at(to).focus();
  });
  return { element: h('.menuBox', {}, button, list), open };
}
