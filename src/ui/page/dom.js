// Elements and messages. Strings are inserted as text only: the Content-Security-Policy forbids markup made from strings.

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

/** As `setText`, for a message in which `…` marks code. */
export function setMarked(element, text) {
  if (element.dataset.text === text) return;
  element.dataset.text = text;
  element.replaceChildren(...marked(text));
}

export function setAttr(element, attribute, value) {
  if (value === null || value === undefined || value === false) element.removeAttribute(attribute);
  else if (element.getAttribute(attribute) !== String(value)) element.setAttribute(attribute, value);
}

/** A path or name with escapes: the server sends a byte that is not UTF-8 as NUL and two digits. */
export function visible(text) {
  return String(text).replace(/\0([0-9a-f]{2})/g, '\\x$1').replace(/[\0-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069]/g, '\ufffd');
}

/** Texts and elements of a message in which `…` marks code. */
export function marked(text) {
  return text.split(/`([^`]*)`/).map((piece, place) => (place % 2 ? h('code', {}, piece) : piece));
}

export function ago(seconds) {
  if (seconds < 0) return 'now';
  const units = [['d', 86400], ['h', 3600], ['m', 60]];
  for (const [unit, size] of units) if (seconds >= size) return `${Math.floor(seconds / size)} ${unit}`;
  return `${Math.floor(seconds)} s`;
}

export function count(number) {
  // `toLocaleString` takes ten times as long, and this is called for every visible row.
  return String(number).replace(/\B(?=(\d{3})+$)/g, '\u2009');
}

export function plural(number, one, many = `${one}s`) {
  return `${count(number)} ${number === 1 ? one : many}`;
}

const toasts = document.getElementById('toasts');

/** Shows a message that disappears after a while, later if it has an action or is an error. Returns a function that removes it. */
export function toast(text, { action, label, isError } = {}) {
  const close = () => {
    clearTimeout(timer);
    line.remove();
  };
  const act = action && h('button.link', { type: 'button', onclick: () => (close(), action()) }, label);
  const line = h(isError ? 'p.toast.bad' : 'p.toast', {}, h('span', {}, marked(text)), act,
    h('button.quiet', { type: 'button', 'aria-label': 'Dismiss', onclick: close }, '×'));
  const timer = setTimeout(close, action || isError ? 10_000 : 4_000);
  while (toasts.childElementCount > 3) toasts.firstElementChild.remove();
  toasts.append(line);
  return close;
}

/** Copies a text; `isWhole`: it was recorded to its end. */
export async function copy(text, what, isWhole = true) {
  try {
    await navigator.clipboard.writeText(text);
    toast(`Copied ${what}${isWhole ? '' : ', without the part that was not recorded'}`);
  } catch {
    toast(`Cannot copy; the browser does not allow it`, { isError: true });
  }
}

export function download(name, type, content) {
  const url = URL.createObjectURL(new Blob([content], { type }));
  h('a', { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}
