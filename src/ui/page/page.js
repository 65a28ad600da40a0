// The page: signing in, the stream of updates, the two views, and the keys that work in both.

import { setAttr, setText, toast } from './dom.js';
import * as dialogs from './dialogs.js';
import { Projects } from './projects.js';
import { Requests } from './requests.js';

const TOKEN = 'ic-token';
const search = document.getElementById('search');
const link = document.getElementById('link');
const banner = document.getElementById('banner');

/** Sends a request to the server and returns its answer, which has an `error` if the request failed. */
async function ask(name, question) {
  const change = question !== undefined;
  try {
    const response = await fetch(`/api/${name}`, {
      method: change ? 'POST' : 'GET',
      headers: { 'X-Ic-Token': sessionStorage.getItem(TOKEN) ?? '', ...(change && { 'Content-Type': 'application/json' }) },
      body: change ? JSON.stringify(question) : undefined,
    });
    if (!change && response.ok) return { blob: await response.blob() };
    const answer = await response.json();
    return response.ok || answer.error ? answer : { error: `the server answered ${response.status}` };
  } catch {
    return { error: '`ic ui` does not answer; is it still running?' };
  }
}

/** Moves the secret in the address to the tab's session storage, and removes it from the address bar and the history. Returns an error. */
async function takeToken() {
  const [, kind, secret] = location.hash.match(/^#(token|code)=(.+)$/) ?? [];
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
  requests.of(row);
  show('requests');
  requests.focus();
};

function receive(message) {
  switch (message.on) {
    case 'projects':
      banner.hidden = !(message.problem ?? message.warning);
      setText(banner, message.problem ?? message.warning ?? '');
      if (!message.problem) projects.setProjects(message);
      break;
    case 'status':
      projects.setStatus(message);
      break;
    case 'feed':
      requests.receive(message);
      break;
    case 'lost':
      requests.addLost(message.count);
      break;
  }
}

function showConnection(state, text) {
  setAttr(link, 'data-state', state);
  setText(link, text);
}

/** Receives lines until the connection ends. A line can arrive in several pieces. */
async function live() {
  const response = await fetch('/api/live', { headers: { 'X-Ic-Token': sessionStorage.getItem(TOKEN) ?? '' } });
  if (response.status === 401) return 'unknown';
  if (!response.ok) throw new Error(String(response.status));
  showConnection('on', 'Live');
  for (const view of Object.values(views)) view.reset?.();
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = '';
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return 'ended';
    const lines = (rest + value).split('\n');
    rest = lines.pop();
    for (const line of lines) {
      try {
        receive(JSON.parse(line));
      } catch (error) {
        // An unexpected line does not end the stream.
        console.error(error);
      }
    }
  }
}

async function stayConnected() {
  for (let pause = 250; ; pause = Math.min(pause * 2, 4000)) {
    let outcome = 'ended';
    try {
      const started = performance.now();
      outcome = await live();
      if (performance.now() - started > 5000) pause = 250;
    } catch {
      // The loop tries again.
    }
    if (outcome === 'unknown') {
      showConnection('off', 'No access');
      await signIn('The token is missing or expired.');
      pause = 125;
      continue;
    }
    showConnection('off', 'Reconnecting…');
    await new Promise((resolve) => setTimeout(resolve, pause));
  }
}

// Views.

const tabs = [...document.querySelectorAll('[role=tab]')];

function show(chosen) {
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

function view() {
  return views[tabs.find((tab) => tab.getAttribute('aria-selected') === 'true').id.slice(4)];
}

for (const [place, tab] of tabs.entries()) {
  tab.addEventListener('click', () => show(tab.id.slice(4)));
  tab.addEventListener('keydown', (event) => {
    const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!by) return;
    event.preventDefault();
    const next = tabs[(place + by + tabs.length) % tabs.length];
    show(next.id.slice(4));
    next.focus();
  });
}

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
  const isTyping = event.target.closest?.('input, select, textarea, dialog');
  if (isTyping || event.ctrlKey || event.metaKey || event.altKey) return;
  const keys = {
    '/': () => search.select(),
    '?': () => dialogs.help(),
    1: () => show('projects'),
    2: () => show('requests'),
  };
  if (event.key in keys) keys[event.key]();
  else if (event.key === 'j' || event.key === 'k' || event.key === 'ArrowDown' || event.key === 'ArrowUp') view().focus();
  else if (!view().press(event.key)) return;
  event.preventDefault();
});

// Pasting the printed address into the tab of an open page changes only the hash.
addEventListener('hashchange', () => location.hash.includes('=') && location.reload());
addEventListener('unhandledrejection', (event) => toast(String(event.reason), { isError: true }));

show('projects');
const refused = await takeToken();
if (refused) await signIn(refused);
stayConnected();
