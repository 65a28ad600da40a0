// The page: signing in, the stream of updates, the two views, and the keys that work in both.

import * as address from './address.js';
import { marked, setAttr, setText, toast } from './dom.js';
import * as dialogs from './dialogs.js';
import { setPrices } from './prices.js';
import { Projects } from './projects.js';
import { Requests } from './requests.js';
import { TOKEN, ask, readLines, request } from './server.js';

const SECRET = /^#(token|code)=(.+)$/;
const search = document.getElementById('search');
const link = document.getElementById('link');
const banner = document.getElementById('banner');

/** Moves the secret in the address to the tab's session storage, and removes it from the address bar and the history. Returns an error. */
async function takeToken() {
  const [, kind, secret] = location.hash.match(SECRET) ?? [];
  if (!kind) return null;
  history.replaceState(null, '', location.pathname);
  if (kind === 'token') {
    sessionStorage.setItem(TOKEN, secret);
    return null;
  }
  const { token, error } = await ask('session', { code: secret });
  if (token) sessionStorage.setItem(TOKEN, token);
  return error ?? null;
}

async function signIn(message) {
  sessionStorage.removeItem(TOKEN);
  for (;;) {
    const token = await dialogs.signIn(message);
    if (token) {
      sessionStorage.setItem(TOKEN, token);
      return;
    }
  }
}

const projects = new Projects(document.getElementById('projects'), ask);
const requests = new Requests(document.getElementById('requests'), ask);
const views = { projects, requests };

projects.onRequests = (row) => {
  show('requests');
  requests.of(row);
  requests.focus();
};

requests.onUnseen = (number) => (document.title = number ? `(${number}) ic` : 'ic');

function receive(message) {
  switch (message.on) {
    case 'projects':
      warn(message.problem ?? message.warning);
      if (!message.problem) projects.setProjects(message);
      break;
    case 'status':
      projects.setStatus(message);
      break;
    case 'prices':
      setPrices(message.models);
      break;
    case 'feed':
      requests.receive(message);
      break;
    case 'lost':
      requests.addLost(message.count);
      break;
  }
}

function warn(text) {
  banner.hidden = !text;
  banner.replaceChildren(...marked(text ?? ''));
}

/** `ic ui` does not answer: what is shown can still be read, but is old. */
function showGone() {
  document.body.toggleAttribute('data-gone', true);
  const port = location.port || '80';
  warn(`\`ic ui\` has ended or does not answer, so what is shown here is old. Start it again in a terminal: \`ic ui --port ${port}\`, and open the address that it prints. This page tries to reconnect.`);
}

function showConnection(state, text) {
  setAttr(link, 'data-state', state);
  setText(link, text);
}

/** Receives lines until the connection ends. */
async function live() {
  const response = await request('live');
  if (response.status === 401) return 'unknown';
  if (!response.ok) throw new Error(String(response.status));
  document.body.removeAttribute('data-gone');
  warn(null);
  showConnection('on', 'Live');
  for (const view of Object.values(views)) view.reset?.();
  await readLines(response, receive);
  return 'ended';
}

async function stayConnected() {
  for (let pause = 250; ; pause = Math.min(pause * 2, 4000)) {
    let outcome = 'ended';
    try {
      const started = performance.now();
      outcome = await live();
      if (performance.now() - started > 5000) pause = 250;
    } catch {
      showGone();
    }
    if (outcome === 'unknown') {
      showConnection('off', 'No access');
      await signIn(sessionStorage.getItem(TOKEN) ? 'The token was refused.' : 'This tab has no token.');
      pause = 125;
      continue;
    }
    showConnection('off', 'Reconnecting…');
    await new Promise((resolve) => setTimeout(resolve, pause));
  }
}

// Views.

const tabs = [...document.querySelectorAll('[role=tab]')];
let shown = 'projects';

function show(chosen) {
  shown = chosen;
  for (const tab of tabs) {
    const name = tab.id.slice(4);
    const isShown = name === chosen;
    setAttr(tab, 'aria-selected', String(isShown));
    tab.tabIndex = isShown ? 0 : -1;
    document.getElementById(name).hidden = !isShown;
    views[name].shown(isShown);
  }
  search.value = view().filterText;
}

const view = () => views[shown];

function change(chosen) {
  show(chosen);
  moved(true);
}

for (const [place, tab] of tabs.entries()) {
  tab.addEventListener('click', () => change(tab.id.slice(4)));
  tab.addEventListener('keydown', (event) => {
    const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!by) return;
    event.preventDefault();
    const next = tabs[(place + by + tabs.length) % tabs.length];
    change(next.id.slice(4));
    next.focus();
  });
}

// The address.

let isVisiting = false;

/** Shows the state of the view in the address. */
function moved(isStep) {
  if (!isVisiting) address.write({ view: shown, ...view().place }, isStep);
}

/** Shows what the address says. */
function visit() {
  const { view: name, words, parameters } = address.read();
  isVisiting = true;
  const chosen = Object.hasOwn(views, name) ? name : 'projects';
  views[chosen].visit({ words, parameters });
  show(chosen);
  isVisiting = false;
}

for (const one of Object.values(views)) one.onMove = moved;
addEventListener('popstate', visit);
// Pasting the printed address into the tab of an open page changes only the hash.
addEventListener('hashchange', () => SECRET.test(location.hash) && location.reload());

search.addEventListener('input', () => view().filter(search.value));
search.addEventListener('keydown', (event) => {
  if (event.key === 'Enter' || event.key === 'ArrowDown') view().focus();
  else if (event.key === 'Escape') {
    if (search.value) view().filter((search.value = ''));
    else view().focus();
  } else return;
  event.preventDefault();
  event.stopPropagation();
});
document.getElementById('help').addEventListener('click', () => dialogs.help());

addEventListener('keydown', (event) => {
  const isWithin = (elements) => event.target.closest?.(elements);
  if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey || isWithin('input, select, textarea, dialog')) return;
  const keys = {
    '/': () => search.select(),
    '?': () => dialogs.help(),
    1: () => change('projects'),
    2: () => change('requests'),
  };
  // The space bar presses a button, and scrolls a text, as the arrow keys do.
  if (event.key === ' ' && isWithin('button')) return;
  if ([' ', 'ArrowDown', 'ArrowUp'].includes(event.key) && isWithin('pre, aside')) return;
  if (event.key in keys) keys[event.key]();
  else if (event.key === 'j' || event.key === 'k' || event.key === 'ArrowDown' || event.key === 'ArrowUp') view().focus();
  else if (!view().press(event.key)) return;
  event.preventDefault();
});

addEventListener('unhandledrejection', (event) => toast(String(event.reason), { isError: true }));

const taken = takeToken();
visit();
const refused = await taken;
if (refused) await signIn(refused);
stayConnected();
