// The answer of a model as elements, which stay when the answer grows.

import { h, setText, visible } from './dom.js';
import { parsed } from './exchange.js';
import { copyTool, escaped, pre, thumbnail } from './texts.js';

export class AnswerView {
  constructor() {
    this.texts = h('.text');
    this.images = h('.images');
    this.stop = h('p.dim');
    this.element = h('.text', {}, this.texts, this.images, this.stop);
    /** The texts by their kind, and how many images there are. */
    this.shown = new Map();
    this.imageCount = 0;
  }

  /** `isLive`: more will come. */
  draw({ text, reasoning, tools, stop }, images, { isWhole, isLive }) {
    this.isWhole = isWhole;
    if (reasoning) this.drawText('thinking', 'thinking', reasoning, isLive);
    if (text) this.drawText('text', 'text', text, isLive);
    for (const [place, { name, input }] of tools.entries()) {
      const document = isLive ? undefined : parsed(input);
      this.drawText(`tool ${place}`, `calls ${name}`, document === undefined ? input : JSON.stringify(document, null, 2), isLive);
    }
    this.images.hidden = !images.length;
    if (images.length !== this.imageCount) {
      this.imageCount = images.length;
      this.images.replaceChildren(...images.map(thumbnail));
    }
    this.stop.hidden = !stop;
    setText(this.stop, stop ? `Ended: ${visible(String(stop))}` : '');
  }

  drawText(key, title, text, isLive) {
    let known = this.shown.get(key);
    if (!known) {
      known = { text, role: h('span.role'), pre: pre('') };
      this.shown.set(key, known);
      this.texts.append(h('.message', {}, known.role, key === 'text'
        ? h('.beside', {}, known.pre, copyTool(() => known.text, 'the answer', () => this.isWhole)) : known.pre));
    }
    known.text = text;
    setText(known.role, visible(title));
    extend(known.pre, escaped(text), isLive);
  }
}

/** Sets the text of an element. Where it only grows, what is selected stays so, and the end stays in view unless it was scrolled away. */
function extend(element, text, isLive) {
  const before = element.textContent;
  if (text === before) return;
  const isAtEnd = element.scrollHeight - element.scrollTop - element.clientHeight < NEAR_END;
  if (text.startsWith(before)) element.append(text.slice(before.length));
  else element.textContent = text;
  if (isLive && isAtEnd) element.scrollTop = element.scrollHeight;
}

/** About a line, in pixels. */
const NEAR_END = 20;
