// Recorded texts and images as elements.

import { copy, h, setAttr, visible } from './dom.js';
import { size } from './format.js';

/** The shown length of a text, in characters. */
export const SHOWN_MAX = 200_000;

export function copyTool(textOf, what, isWhole) {
  return h('button.tool', { type: 'button', 'aria-label': `Copy ${what}`, onclick: () => copy(textOf(), what, isWhole?.() ?? true) }, 'Copy');
}

/** An element with a copy button beside it. */
export function withTool(element, textOf, what, isWhole) {
  return h('.beside', {}, element, copyTool(textOf, what, isWhole));
}

/** Thumbnails; one that is pressed is shown in full. */
export function imagesView(found) {
  return found.length > 0 && h('.images', {}, found.map(thumbnail));
}

export function thumbnail({ type, url, bytes }) {
  return h('button.thumb', {
    type: 'button', 'aria-pressed': 'false', onclick: ({ currentTarget: thumb }) => setAttr(thumb, 'aria-pressed', String(thumb.ariaPressed !== 'true')),
  }, h('img', { src: url, alt: `${type}, ${size(bytes)}`, decoding: 'async' }));
}

/** Text with escapes, except for line breaks and tabs. */
export function pre(text) {
  return h('pre', { tabIndex: 0 }, escaped(text));
}

/** What is shown of a text. */
export function escaped(text) {
  return text.slice(0, SHOWN_MAX).split(/([\n\t])/).map((piece) => (/^[\n\t]$/.test(piece) ? piece : visible(piece))).join('');
}
