// Sends a recorded request again, as it was or edited. Keys are not recorded: one that is typed stays in the memory of this tab, for
// the requests of its port.

import * as dialogs from './dialogs.js';
import { h, setMarked, toast } from './dom.js';
import { bodyText, keyFields, repeated } from './exchange.js';
import { ask } from './server.js';

const keys = new Map();

/** What stands for a secret that was not recorded. */
const REDACTED = '…';

/** Why a request cannot be sent again; `''` if it can be. */
export function whyNot(one) {
  if (!one.method || !one.path?.startsWith('/') || !one.port) return 'Only a request that could be read can be sent again';
  const { request } = one.bodies;
  if (request ? request.encoding === 'utf8' && !request.truncated : one.requestLength === 0) return '';
  return 'Only a request whose whole body was recorded as text can be sent again';
}

/** Sends it, after a dialog where something is missing, or is to be edited. */
export async function sendAgain(one, isEdited) {
  const request = { method: one.method, path: one.path, body: one.bodies.request && bodyText(one.bodies.request, one.requestFields).text };
  const needsKey = keyFields(one).length > 0;
  const send = async (changes) => {
    const { path, body } = { ...request, ...changes };
    if (path.includes(REDACTED)) return `put the values that were not recorded in place of ${REDACTED} in the path`;
    const answer = await ask('send', { port: one.port, method: one.method, path, fields: repeated(one, keys.get(one.port) ?? ''), body });
    if (!answer.error) toast(answer.status ? `Sent again: ${answer.status}` : 'Sent again; no answer yet');
    return answer.error;
  };
  if (isEdited || (needsKey && !keys.has(one.port)) || request.path.includes(REDACTED)) return show(one, request, { isEdited, needsKey, send });
  const error = await send({});
  if (error) toast(error, { isError: true });
}

function show(one, request, { isEdited, needsKey, send }) {
  return dialogs.dialog(isEdited ? 'Edit and send' : 'Send again', (close) => {
    const text = (value, label) => h('input', { type: 'text', value, 'aria-label': label, spellcheck: false, autocomplete: 'off' });
    const path = text(request.path, 'Path');
    const body = request.body !== undefined && h('textarea', { value: request.body, rows: 14, 'aria-label': 'Body', spellcheck: false });
    const key = h('input', { type: 'password', value: keys.get(one.port) ?? '', 'aria-label': 'Key', autocomplete: 'off' });
    const wrong = h('p.wrong', { role: 'alert' });
    const field = (label, input) => h('label.field', {}, h('span', {}, label), input);
    return dialogs.form([
      (isEdited || request.path.includes(REDACTED)) && field('Path', path),
      isEdited && body && field(request.body.includes(REDACTED) ? `Body; ${REDACTED} may stand for a secret that was not recorded` : 'Body', body),
      needsKey && field('Key, which was not recorded. It stays in this tab until the tab is closed.', key),
      wrong,
      dialogs.buttons(close, 'Send'),
    ], async () => {
      if (needsKey) keys.set(one.port, key.value.trim());
      const error = await send({ path: path.value, ...(isEdited && body && { body: body.value }) });
      if (error) setMarked(wrong, error);
      else close();
    });
  });
}
