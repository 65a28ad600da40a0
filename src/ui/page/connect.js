// How clients reach a project, in three steps: its port, its interceptor, and the settings of each client.

import { h, marked, setAttr, setMarked, toast, visible } from './dom.js';
import { pre, withTool } from './texts.js';

/** Where the chosen client is kept: a user has the same one in every project. */
const CLIENT = 'ic-client';

function step(title, ...content) {
  return h('li', {}, title, content);
}

function command(text, what = 'the command') {
  return withTool(pre(text), () => text, what);
}

/** The steps of a page without projects; `program` is how `ic` is called. */
export function firstSteps(program, allocate) {
  return h('section.first', { 'aria-labelledby': 'first-title' },
    h('h2', { id: 'first-title' }, 'Connect a first project'),
    h('ol.steps', {},
      step(h('h3', {}, 'Give the project a port'),
        h('p', {}, 'Each project has a port of its own, so that its requests can be told from those of others. In the project’s folder:'),
        command(`${program} allocate`),
        h('p', {}, 'or ', h('button.primary', { type: 'button', onclick: allocate }, 'Allocate…'))),
      step(h('h3', {}, 'Start its interceptor'),
        h('p', {}, marked('In the project’s folder; `--target URL` says where requests go:')),
        command(`${program} serve`),
        h('p.dim', {}, marked('`ic serve --all` serves every project, and `ic service install` starts that at each login.'))),
      step(h('h3', {}, 'Point the client at it'),
        h('p', {}, 'In the shell in which the client is started:'),
        command(`eval "$(${program} env)"`),
        h('p.dim', {}, marked('The details of a project have the settings of each client, as `ic snippet` prints them.')))));
}

/** The first section of a project's pane. */
export class Connect {
  constructor(ask) {
    this.ask = ask;
    this.openai = h('.url');
    this.bare = h('.url');
    this.warning = h('p.wrong', { hidden: true });
    this.state = h('h3.state', {}, h('span.dot'), h('span'));
    this.help = h('.help');
    this.startButton = h('button.primary', { type: 'button', hidden: true, onclick: () => this.start() }, 'Start');
    this.tabs = h('.clients', { role: 'tablist', 'aria-label': 'Client', onkeydown: (event) => this.onKey(event) });
    this.panel = h('.client', { role: 'tabpanel', id: 'client-text', 'aria-labelledby': 'client-tab' });
    this.client = step(h('h3', {}, 'Point the client at it'), this.tabs, this.panel);
    this.element = h('section.connect', { 'aria-label': 'Connect' },
      h('ol.steps', {},
        step(h('h3', {}, 'Address'), this.openai, this.bare, this.warning),
        step(this.state, this.help, this.startButton),
        this.client));
  }

  /** Shows a row of the projects; `state` says what its interceptor does. */
  show(row, state) {
    const { interceptor } = row;
    if (this.key !== row.key) {
      this.key = row.key;
      this.answer = null;
      this.asked = null;
      this.drawAnswer();
      this.drawUrl(this.bare, `http://localhost:${row.port}`, 'Anthropic, Gemini');
    }
    this.row = row;
    setAttr(this.element, 'data-state', row.state);
    setMarked(this.state.lastChild, state);
    // Texts depend on the target; another one is in effect after a start.
    const asked = `${row.port} ${row.state} ${interceptor?.pid} ${interceptor?.target}`;
    if (this.asked === asked) return;
    this.asked = asked;
    this.load(row);
  }

  /** Asks again at the next `show`: a service may have been installed. */
  renew() {
    this.asked = null;
  }

  async load({ key, path, port }) {
    const answer = path ? await this.ask('snippets', { path, port }) : { texts: [] };
    if (this.key !== key) return;
    this.answer = answer;
    this.drawAnswer();
  }

  drawAnswer() {
    const { texts = [], openai_url, serve, can_start, warning, error } = this.answer ?? {};
    this.drawUrl(this.openai, openai_url, 'OpenAI');
    this.warning.hidden = !(error ?? warning);
    setMarked(this.warning, visible(error ?? warning ?? ''));
    this.drawHelp(serve, can_start);
    this.client.hidden = Boolean(this.answer) && !texts.length;
    this.tabs.hidden = this.panel.hidden = !texts.length;
    if (this.tabs.childElementCount !== texts.length) {
      this.tabs.replaceChildren(...texts.map(({ kind, title }) => h('button.chip', {
        type: 'button', role: 'tab', 'data-kind': kind, 'aria-controls': 'client-text', onclick: () => this.choose(kind),
      }, title)));
    }
    if (texts.length) this.choose(texts.some(({ kind }) => kind === this.chosen) ? this.chosen : texts[0].kind, false);
  }

  /** A URL with its copy button, or room for one. */
  drawUrl(element, url, clients) {
    if (element.dataset.url === (url ?? '')) return;
    element.dataset.url = url ?? '';
    element.replaceChildren(...(url ? [h('span.dim', {}, clients), withTool(h('code', {}, url), () => url, url)] : ['\u00a0']));
  }

  /** What to do where the interceptor does not run. */
  drawHelp(serve, canStart) {
    const { row } = this;
    const isIdle = row?.isMapped && row.state === 'free';
    this.startButton.hidden = !isIdle || !canStart;
    const text = isIdle && this.answer ? `${serve} ${canStart}` : '';
    if (this.help.dataset.text === text) return;
    this.help.dataset.text = text;
    this.help.replaceChildren(...(text ? [
      serve ? command(serve) : h('p', {}, marked('Start it with `ic serve` in the project’s folder.')),
      h('p.dim', {}, marked(canStart ? 'or start the installed service, which serves every project:' : '`ic serve --all` serves every project; `ic service install` starts that at each login.')),
    ] : []));
  }

  async start() {
    const { path, name } = this.row;
    this.startButton.disabled = true;
    const answer = await this.ask('start', { path });
    this.startButton.disabled = false;
    if (answer.error) toast(answer.error, { isError: true });
    else toast(`Started ${visible(name)}`);
    // Whether it can be started may have changed.
    this.load(this.row);
  }

  get chosen() {
    return localStorage.getItem(CLIENT);
  }

  /** Shows the text of a client. */
  choose(kind, isKept = true) {
    if (isKept) localStorage.setItem(CLIENT, kind);
    for (const tab of this.tabs.children) {
      const isIt = tab.dataset.kind === kind;
      setAttr(tab, 'aria-selected', String(isIt));
      setAttr(tab, 'id', isIt ? 'client-tab' : null);
      tab.tabIndex = isIt ? 0 : -1;
    }
    const { hint, text, title } = this.answer.texts.find((one) => one.kind === kind);
    const shown = `${kind}\n${text}`;
    // A selection in the text stays.
    if (this.panel.dataset.text === shown) return;
    this.panel.dataset.text = shown;
    this.panel.replaceChildren(h('p.dim', {}, marked(visible(hint))), withTool(pre(text), () => text, `the text for ${title}`));
  }

  onKey(event) {
    const tabs = [...this.tabs.children];
    const at = tabs.indexOf(event.target);
    const to = { ArrowRight: at + 1, ArrowDown: at + 1, ArrowLeft: at - 1, ArrowUp: at - 1, Home: 0, End: -1 }[event.key];
    if (to === undefined || at < 0) return;
    event.preventDefault();
    event.stopPropagation();
    const next = tabs.at(to % tabs.length);
    this.choose(next.dataset.kind);
    next.focus();
  }
}
