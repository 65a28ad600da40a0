// Modal dialogs. Escape closes each without an answer.

import { h, marked, plural, setMarked, setText, toast, visible } from './dom.js';

/** Shows a dialog; `build(close)` gives its content. Resolves to what `close` was called with. */
export function dialog(title, build) {
  return new Promise((resolve) => {
    let answer;
    const close = (value) => {
      answer = value;
      element.close();
    };
    const heading = h('h2', { id: 'dialog-title' }, title);
    // A click closes it that begins and ends outside; in a browser that does not know this, Escape does.
    const element = h('dialog', { 'aria-labelledby': 'dialog-title', closedBy: 'any' }, heading);
    element.append(...[build(close, element)].flat());
    element.addEventListener('close', () => {
      element.remove();
      resolve(answer);
    });
    document.body.append(element);
    element.showModal();
  });
}

export function buttons(close, label, kind = 'primary') {
  return h('.buttons', {},
    h('button', { type: 'button', onclick: () => close() }, 'Cancel'),
    h(`button.${kind}`, { type: 'submit' }, label));
}

/** A form that waits for the end of `send` before it sends again. */
export function form(content, send) {
  let isSending = false;
  const submit = async (event) => {
    event.preventDefault();
    if (isSending) return;
    isSending = true;
    try {
      await send();
    } finally {
      isSending = false;
    }
  };
  return h('form', { method: 'dialog', onsubmit: submit }, content);
}

function wrong(text) {
  return h('p.wrong', {}, marked(text));
}

export function confirm(title, lines, label) {
  return dialog(title, (close) => form([
    lines.map((line) => h('p', {}, line)),
    buttons(close, label, 'danger'),
  ], () => close(true)));
}

/** Rows of project and port, with a reason. */
function mappingTable(rows) {
  return h('.mappings', { tabIndex: 0, role: 'list' }, rows.slice(0, ROWS_MAX).map(({ port, path, why, kind }) =>
    h('.mapping', { role: 'listitem' },
      h('code.port', {}, String(port)), h('span.path', { title: visible(path) }, visible(path)),
      h(`span.why${kind ? `.${kind}` : ''}`, {}, why))),
  rows.length > ROWS_MAX && h('p.dim', {}, `and ${plural(rows.length - ROWS_MAX, 'more', 'more')}`));
}

const ROWS_MAX = 200;

/** Asks for a folder and allocates its port; resolves to the server's answer. */
export function allocate(ask) {
  return dialog('Allocate a port', (close) => {
    const path = h('input', { type: 'text', required: true, spellcheck: false, autocomplete: 'off', placeholder: '~/work/shop', 'aria-label': 'Folder' });
    const pinned = h('input', { type: 'checkbox' });
    const wrong = h('p.wrong', { role: 'alert' });
    return form([
      h('label.field', {}, h('span', {}, 'The project’s folder'), path),
      h('label.check', {}, pinned, h('span', {}, marked('Pin it: `ic prune` never removes it'))),
      wrong,
      buttons(close, 'Allocate'),
    ], async () => {
      const answer = await ask('allocate', { path: path.value, pinned: pinned.checked });
      if (answer.error) setMarked(wrong, answer.error);
      else close(answer);
    });
  });
}

/** Shows what pruning would remove, then removes it; `keep(paths)` resolves to a function that restores these projects. */
export function prune(ask, keep) {
  return dialog('Prune', (close, element) => {
    const unused = h('select', { 'aria-label': 'Also ports not used for' },
      [['', 'only deleted projects'], ['7', 'and ports unused for 7 days'], ['30', 'and ports unused for 30 days'],
        ['90', 'and ports unused for 90 days'], ['365', 'and ports unused for a year']]
        .map(([value, label]) => h('option', { value }, label)));
    const found = h('.found', { 'aria-live': 'polite' });
    const bar = buttons(close, 'Remove', 'danger');
    const go = bar.lastElementChild;
    const question = (dry_run) => ({ unused_for_days: Number(unused.value) || null, dry_run });
    let paths = [];
    const preview = async () => {
      go.disabled = true;
      const answer = await ask('prune', question(true));
      if (!element.isConnected) return;
      if (answer.error) return found.replaceChildren(wrong(answer.error));
      const rows = answer.removed.map((row) => ({ ...row, why: row.reason }));
      paths = rows.map((row) => row.path);
      found.replaceChildren(rows.length ? mappingTable(rows) : h('p.dim', {}, 'Nothing to prune.'));
      setText(go, rows.length ? `Remove ${plural(rows.length, 'mapping')}` : 'Remove');
      go.disabled = rows.length === 0;
    };
    unused.addEventListener('change', preview);
    queueMicrotask(preview);
    return form([
      h('p.dim', {}, 'Pinned ports and ports in use are kept. A project that returns gets its old port if it is still free.'),
      h('label.field', {}, h('span', {}, 'Remove'), unused), found, bar,
    ], async () => {
      const undo = await keep(paths);
      const answer = await ask('prune', question(false));
      if (answer.error) found.replaceChildren(wrong(answer.error));
      else close({ ...answer, undo });
    });
  });
}

/** Why a mapping cannot be imported. */
export function conflictText(row) {
  if (row.has_settings) return `${visible(row.path)} has other settings now`;
  return row.has_port
    ? `${visible(row.path)} has port ${row.has_port} now`
    : `port ${row.port} belongs to ${visible(row.port_of)} now`;
}

/** The projects that cannot be imported, each once with all that is against it, and what the import does to the others. */
function conflictsOf({ conflicts, removed }) {
  const lost = new Set(removed.map(({ path }) => path));
  const byPath = new Map();
  for (const row of conflicts) {
    const why = row.has_settings ? 'has other settings here'
      : row.has_port ? `has port ${row.has_port} here`
        : `here it is the port of ${visible(row.port_of)}${lost.has(row.port_of) ? ', which loses it' : ''}`;
    const one = byPath.get(row.path) ?? { ...row, kind: 'bad', whys: [], ends: [] };
    one.whys.push(why);
    one.ends.push(row.port_of);
    byPath.set(row.path, { ...one, why: one.whys.join('; ') });
  }
  return [...byPath.values()];
}

/** What an import does besides deciding conflicts. */
function changesOf({ added, moved, removed }, conflicts) {
  const told = new Set(conflicts.flatMap(({ path, ends }) => [path, ...ends]));
  return [
    ...added.map((row) => ({ ...row, why: 'new' })), ...moved.map((row) => ({ ...row, why: 'another port' })),
    ...removed.map((row) => ({ ...row, kind: 'bad', why: 'removed' })),
  ].filter(({ path }) => !told.has(path));
}

/** Encodes each byte as one character, because a registry file need not be text. */
export function bytesOf(buffer) {
  const bytes = new Uint8Array(buffer);
  let text = '';
  for (let at = 0; at < bytes.length; at += 8192) text += String.fromCharCode(...bytes.subarray(at, at + 8192));
  return text;
}

/** Asks for a file, shows what it would change, and imports it. */
export function importFile(ask) {
  return dialog('Import mappings', (close) => {
    const file = h('input', { type: 'file', required: true, accept: '.json,.backup,application/json', 'aria-label': 'File' });
    const replace = h('input', { type: 'checkbox' });
    const found = h('.found', { 'aria-live': 'polite' });
    const bar = buttons(close, 'Import');
    const go = bar.lastElementChild;
    let chosen = null;
    const question = (dry_run) => ({ ...chosen, replace: replace.checked, dry_run });
    const preview = async () => {
      go.disabled = true;
      if (!chosen) return;
      const answer = await ask('import', question(true));
      if (answer.error) return found.replaceChildren(wrong(answer.error));
      const changes = answer.added.length + answer.moved.length;
      const conflicts = conflictsOf(answer);
      const blocked = conflicts.length > 0 && !replace.checked;
      const rows = [...conflicts, ...changesOf(answer, conflicts)];
      const summary = [
        conflicts.length && `${plural(conflicts.length, 'conflict')}${blocked ? ': nothing is imported' : ', the file wins'}`,
        changes && plural(changes, 'mapping'),
        answer.unchanged && `${answer.unchanged} here already`,
      ].filter(Boolean).join(' · ') || 'The file has no mappings.';
      found.replaceChildren(...[
        answer.warning && wrong(answer.warning),
        h('p', { className: blocked ? 'wrong' : 'dim' }, summary),
        rows.length > 0 && mappingTable(rows),
      ].filter(Boolean));
      setText(go, changes ? `Import ${plural(changes, 'mapping')}` : 'Import');
      go.disabled = blocked || changes === 0;
    };
    file.addEventListener('change', async () => {
      const [picked] = file.files;
      chosen = picked ? { name: picked.name, bytes: bytesOf(await picked.arrayBuffer()) } : null;
      found.replaceChildren();
      preview();
    });
    replace.addEventListener('change', preview);
    go.disabled = true;
    return form([
      h('p.dim', {}, 'An export, a registry file, or a backup of one.'),
      file,
      h('label.check', {}, replace, 'Let the file win conflicts; other mappings stay'),
      found, bar,
    ], async () => {
      const answer = await ask('import', question(false));
      if (answer.error) found.replaceChildren(wrong(answer.error));
      else close(answer);
    });
  });
}

export function help() {
  const keys = [
    ['/', 'find'], ['1 2', 'projects, requests'], ['j k ↓ ↑', 'next, previous'], ['Enter', 'details'], ['Esc', 'close, clear'],
    ['a', 'allocate a port'], ['m', 'prune, import, export'], ['p', 'pin or unpin'], ['y', 'copy the address'], ['Del', 'remove'], ['u', 'undo'],
    ['r', 'requests of a project'], ['g G', 'first, last'], ['c', 'copy a request as curl'], ['l', 'copy the link to a request'], ['e', 'next error'],
    ['Space', 'pause the list of requests'], ['f', 'follow it again'], ['v', 'group requests by conversation'], ['?', 'this help'],
  ];
  return dialog('Keyboard', (close) => form([
    h('dl.keys', {}, keys.map(([key, what]) => [h('dt', {}, key.split(' ').map((one) => h('kbd', {}, one))), h('dd', {}, what)])),
    h('.buttons', {}, h('button.primary', { type: 'submit' }, 'Close')),
  ], () => close()));
}

/** Asks for the token. */
export function signIn(message) {
  return dialog('Open the printed address', (close) => {
    const given = h('input', { type: 'text', required: true, autocomplete: 'off', spellcheck: false, placeholder: 'http://127.0.0.1:…/#token=…', 'aria-label': 'Address or token' });
    return form([
      h('p', {}, marked(message)),
      h('p.dim', {}, marked('At each start `ic ui` prints an address that ends in a new secret. Paste it here:')),
      given,
      h('.buttons', {}, h('button.primary', { type: 'submit' }, 'Continue')),
    ], () => close(given.value.replace(/^.*#token=|[^\x21-\x7e]/g, '')));
  });
}

/** Whether the answer is no error; shows one. */
export function succeeded(answer) {
  if (answer.error) toast(answer.error, { isError: true });
  return !answer.error;
}
