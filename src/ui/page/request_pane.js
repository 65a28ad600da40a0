// The pane of one request: its facts, what is new in its conversation, its answer, its fields and bodies.

import { assembled, failure } from './answer.js';
import { AnswerView } from './answer_view.js';
import { copy, count, h, plural, setAttr, setText, visible } from './dom.js';
import { bodyText, curl, field, parsed } from './exchange.js';
import { OUTCOMES, clock, costText, durationOf, isFailed, moment, pace, size, spell, tokens } from './format.js';
import { folded, images } from './images.js';
import { difference, isConversation } from './messages.js';
import { sendAgain, whyNot } from './send_dialog.js';
import { watchResponse } from './server.js';
import { SHOWN_MAX, copyTool, imagesView, pre, withTool } from './texts.js';

/** For an estimate; it depends on the model and the language. */
const CHARACTERS_PER_TOKEN = 4;
/** How many earlier requests are searched for the same conversation. */
const EARLIER_MAX = 40;

export class RequestPane {
  /**
   * `feedOf(one)` is the feed of a request's interceptor while it runs, `earlierThan(one)` the requests before it that can be of its
   * conversation, the latest first; `pick(one)` opens another request; `onGrowth(one, body)`: more of its response has come.
   */
  constructor({ feedOf, earlierThan, pick, onClose, onGrowth }) {
    Object.assign(this, { feedOf, earlierThan, pick, onClose, onGrowth });
    /** The shown request. */
    this.one = null;
    this.folded = new Set(['requestHead', 'responseHead', 'response']);
    this.element = h('aside.pane', {
      hidden: true, tabIndex: -1, 'aria-label': 'Request', onkeydown: (event) => event.key === 'Escape' && (this.close(), event.stopPropagation()),
    });
  }

  get isOpen() {
    return this.one !== null;
  }

  open(one, focuses) {
    if (this.one !== one) this.build(one);
    this.element.hidden = false;
    this.draw();
    if (focuses) this.element.querySelector('.buttons button')?.focus();
  }

  close() {
    if (!this.isOpen) return;
    this.element.hidden = true;
    this.one = null;
    this.unwatch();
    this.onClose();
  }

  build(one) {
    this.one = one;
    this.unwatch();
    this.revision = -1;
    this.response = null;
    this.answerLength = 0;
    this.title = h('h2');
    this.whose = h('p.whose');
    this.status = h('p.outcome');
    this.message = h('p');
    this.problem = h('.problem', { role: 'group', 'aria-label': 'Error' }, this.message, copyTool(() => this.message.textContent, 'the message'));
    const names = ['Started', 'First byte', 'Duration', 'Sent', 'Received', 'Events', 'Model', 'Tokens', 'Cost', 'Per token', 'Client', 'Target'];
    this.facts = new Map(names.map((name) => [name, [h('dt', {}, name), h('dd')]]));
    this.responseCopier = h('button', { type: 'button', onclick: () => copy(bodyText(one.bodies.response, one.responseFields).text, 'the response', !one.bodies.response.truncated) }, 'Copy response');
    this.senders = ['Send again', 'Edit and send…'].map((label, place) => h('button', { type: 'button', onclick: () => sendAgain(one, place === 1) }, label));
    this.answer = new AnswerView();
    this.answerSection = this.section('answer', 'Answer', this.answer.element);
    [this.before, this.behind] = [h('div'), h('div')];
    this.element.replaceChildren(
      h('.paneHead', {}, this.title, h('button.quiet', { type: 'button', 'aria-label': 'Close', onclick: () => this.close() }, '×')),
      this.whose, this.status, this.problem,
      h('.buttons', {}, h('button', { type: 'button', title: 'c', onclick: () => copyCurl(one) }, 'Copy as curl'), this.responseCopier, this.senders),
      h('dl.facts', {}, [...this.facts.values()].flat()), h('.sections', {}, this.before, this.answerSection, this.behind));
    this.element.scrollTop = 0;
  }

  draw() {
    const { one } = this;
    const feed = this.feedOf(one);
    setText(this.title, `${visible(one.method ?? '')} ${visible(one.path ?? '')}`);
    setText(this.status, [one.status && `${one.status} ${visible(one.reason ?? '')}`.trim(), one.outcome ? OUTCOMES[one.outcome] ?? visible(one.outcome) : 'in flight', one.error && visible(one.error)].filter(Boolean).join(' · '));
    setAttr(this.status, 'data-state', isFailed(one) ? 'failed' : null);
    setText(this.whose, [one.source, one.sourcePath, one.port && `port ${one.port}`].filter(Boolean).map(visible).join(' · '));
    if (this.revision !== one.revision) {
      this.revision = one.revision;
      this.drawSections(one, feed);
    }
    if (this.response !== one.bodies.response) this.drawAnswer(one);
    this.drawFacts(one);
    this.watch(one, feed);
  }

  /** Watches the response of an open request while it is recorded. */
  watch(one, feed) {
    if (one.outcome || !feed?.recording) this.unwatch();
    else this.stopWatching ??= watchResponse(one, (body) => this.onGrowth(one, body));
  }

  unwatch() {
    this.stopWatching?.();
    this.stopWatching = null;
  }

  drawFacts(one) {
    const values = {
      Started: moment(one.at),
      'First byte': spell(one.ttfb_ms), Duration: spell(durationOf(one, Date.now() / 1000)),
      Sent: size(one.request_bytes ?? one.requestLength), Received: size(one.response_bytes),
      Events: one.events && `${count(one.events)}${one.first_event_ms != null ? `, from ${spell(one.first_event_ms)} to ${spell(one.last_event_ms)}` : ''}`,
      Model: one.model, Tokens: tokens(one) && `${one.input_tokens ?? '?'} in, ${one.output_tokens ?? '?'} out`,
      Cost: costText(one),
      'Per token': (pace(one) > 0 && `${pace(one)} ms (${(1000 / pace(one)).toFixed(0)} a second)`) || (one.bodies.response?.isPart && this.estimatedPace(one)),
      Client: one.client && `${one.client}, connection ${one.connection}`,
      Target: one.target,
    };
    for (const [name, [term, value]] of this.facts) {
      term.hidden = value.hidden = !values[name];
      setText(value, values[name] ? visible(String(values[name])) : '');
    }
  }

  /** While a response comes, its tokens are not counted yet. */
  estimatedPace(one) {
    const seconds = Date.now() / 1000 - one.at - (one.ttfb_ms ?? 0) / 1000;
    const perSecond = this.answerLength / CHARACTERS_PER_TOKEN / Math.max(seconds, 0.25);
    return perSecond > 0 && `about ${(1000 / perSecond).toFixed(1)} ms (${perSecond.toFixed(0)} a second)`;
  }

  /** Draws what has come of the answer. */
  drawAnswer(one) {
    const { response } = one.bodies;
    this.response = response;
    const text = response && bodyText(response, one.responseFields).text;
    this.responseCopier.hidden = !text;
    const answer = text ? assembled(text) ?? (response.isPart ? { text, reasoning: '', tools: [], stop: null } : null) : null;
    this.answerSection.hidden = !answer;
    if (!answer) return;
    this.answerLength = [answer.text, answer.reasoning, ...answer.tools.map(({ input }) => input)].reduce((sum, { length }) => sum + length, 0);
    this.answer.draw(answer, images(text), { isWhole: !response.truncated, isLive: response.isPart });
  }

  drawSections(one, feed) {
    const why = whyNot(one);
    for (const button of this.senders) {
      button.disabled = Boolean(why);
      button.title = why;
    }
    const [request, response] = [['request', one.requestFields], ['response', one.responseFields]]
      .map(([side, fields]) => (one.bodies[side] ? bodyText(one.bodies[side], fields) : null));
    const message = one.message ?? (response?.text && (isFailed(one) || /event-stream/i.test(field(one.responseFields, 'content-type'))) && failure(response.text));
    this.problem.hidden = !message;
    setText(this.message, message ? visible(String(message)) : '');
    const news = request?.text ? this.newsOf(one, request.text) : null;
    this.before.replaceChildren(...[
      Array.isArray(one.added) && this.section('added', 'Added by ic', fieldsView(one.added)),
      news && this.section('news', `New since the request of ${clock(news.previous.at)}`, newsView(news, () => this.pick(news.previous))),
    ].filter(Boolean));
    this.behind.replaceChildren(...[
      this.section('requestHead', 'Request fields', fieldsView(one.requestFields)),
      request && this.section('request', bodyTitle('Request body', one.bodies.request), textView(request, field(one.requestFields, 'content-type'), !one.bodies.request.truncated)),
      one.responseFields && this.section('responseHead', 'Response fields', fieldsView(one.responseFields)),
      response && !one.bodies.response.isPart && this.section('response', bodyTitle('Response body', one.bodies.response), textView(response, field(one.responseFields, 'content-type'), !one.bodies.response.truncated)),
      !request && !response && h('p.dim', {}, feed?.recording ? (one.outcome ? 'No body was recorded for this request.' : 'Bodies are shown as they come.')
        : 'Bodies are recorded while recording is on, in the interceptor’s memory only.'),
    ].filter(Boolean));
  }

  /** A section of the pane, folded as the user left it for another request. */
  section(name, title, content) {
    return h('details', {
      open: !this.folded.has(name), ontoggle: (event) => this.folded[event.target.open ? 'delete' : 'add'](name),
    }, h('summary', {}, title), content);
  }

  newsOf(one, text) {
    const request = isConversation(one.path) && parsed(text);
    if (!request) return null;
    const earlier = this.earlierThan(one).filter((other) => other.bodies.request).slice(0, EARLIER_MAX)
      .map((other) => ({ exchange: other, body: parsed(bodyText(other.bodies.request, other.requestFields).text) }));
    return difference(request, earlier.filter(({ body }) => body));
  }
}

export async function copyCurl(one) {
  const { request } = one.bodies;
  const text = request && !request.truncated ? bodyText(request, one.requestFields).text : undefined;
  const body = text?.includes('\0') ? undefined : text;
  await copy(curl(one, one.port, body), body === undefined && one.requestLength ? 'as curl, without the body' : 'as curl');
}

function bodyTitle(title, { encoding, truncated, total }) {
  return `${title} · ${size(total)}${truncated && encoding !== 'omitted' ? ', only its beginning was kept' : ''}`;
}

function fieldsView(fields) {
  return h('dl.fields', {}, (fields ?? []).map(([name, value]) => [h('dt', {}, visible(name)), h('dd', {}, visible(value))]));
}

function textView({ text, note }, kind, isWhole) {
  const document = /json/i.test(kind ?? '') ? parsed(text) : undefined;
  const shown = folded((document === undefined ? text : JSON.stringify(document, null, 2)) ?? '', size);
  return h('.text', {}, note && h('p.dim', {}, note), text !== undefined && [
    withTool(pre(shown), () => text, 'the body', () => isWhole),
    imagesView(images(text)),
    shown.length > SHOWN_MAX && h('p.dim', {}, `The first ${count(SHOWN_MAX)} of ${count(shown.length)} characters are shown; all of them are copied.`),
  ]);
}

function newsView({ common, added, dropped, changed }, goThere) {
  const message = (kind) => ({ role, text, images }) => h(`.message.${kind}`, {}, h('span.role', {}, visible(role)), pre(text), imagesView(images));
  const value = (one) => (one === undefined ? 'none' : JSON.stringify(one).slice(0, 120));
  return h('.text', {},
    h('p.dim', {}, `${plural(common, 'message')} as before. `, h('button.link', { type: 'button', onclick: goThere }, 'Show that request')),
    dropped.map(message('gone')), added.map(message('new')),
    !added.length && h('p.dim', {}, 'There is no new message.'),
    changed.map(({ key, before, after }) => h('p.change', {}, h('code', {}, visible(key)), ` ${visible(value(before))} → ${visible(value(after))}`)));
}
