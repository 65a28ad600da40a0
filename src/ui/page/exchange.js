// Pure functions of a recorded request: its curl command, and its bodies as text.

const KEYS = /^(authorization|proxy-authorization|x-api-key|api-key|x-goog-api-key)$/i;

/** Fields that curl adds itself, or that concern one connection only. */
const LEFT_OUT = /^(host|content-length|transfer-encoding|connection|keep-alive|te|trailer|upgrade|expect|proxy-connection|accept-encoding|cookie|http2-settings)$/i;

/** Quotes an argument for a POSIX shell. An argument cannot contain NUL. */
export function quoted(given) {
  const text = given.replaceAll('\0', '');
  return /^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`;
}

/** The request as a curl command. The page does not have the keys, so the shell variable API_KEY replaces them. */
export function curl(exchange, port, body) {
  const url = urlOf(exchange.path, port);
  const parts = ['curl'];
  // Without it curl expands brackets and braces.
  if (/[[\]{}]/.test(url)) parts.push('--globoff');
  if (exchange.method === 'HEAD') parts.push('--head');
  else if (exchange.method !== (body === undefined ? 'GET' : 'POST')) parts.push(`-X ${quoted(exchange.method ?? 'GET')}`);
  parts.push(quoted(url));
  for (const [name, value] of exchange.requestFields ?? []) {
    if (/^accept-encoding$/i.test(name)) parts.push('--compressed');
    if (LEFT_OUT.test(name)) continue;
    if (KEYS.test(name)) {
      parts.push(`-H "${name}: ${schemeOf(name, value)}$API_KEY"`);
    } else {
      // For curl, `Name:` removes the field, and `Name;` sends it empty.
      parts.push(`-H ${quoted(value === '' ? `${name};` : `${name}: ${value}`)}`);
    }
  }
  if (body !== undefined) parts.push(`--data-raw ${quoted(body)}`);
  return parts.join(' \\\n  ');
}

/** The URL of a path. The feed replaces query values by a character that is not allowed in a target. */
export function urlOf(path, port) {
  return `http://localhost:${port}${path ?? '/'}`.toWellFormed().replace(/[^\x21-\x7e]/gu, encodeURIComponent);
}

/** What is in front of the key in a field. */
function schemeOf(name, value) {
  return /^(bearer|basic)\s/i.exec(value)?.[0] ?? (/authorization$/i.test(name) ? 'Bearer ' : '');
}

/** The fields that hold a key, which is not recorded. */
export function keyFields({ requestFields }) {
  return (requestFields ?? []).filter(([name]) => KEYS.test(name));
}

/** The fields of a request that is sent again with a key; without one, and those with other secrets, they are left out. */
export function repeated({ requestFields }, key) {
  return (requestFields ?? []).filter(([name]) => !LEFT_OUT.test(name)).flatMap(([name, value]) => {
    if (!KEYS.test(name)) return value.includes('…') ? [] : [[name, value]];
    return key ? [[name, /^(bearer|basic)\s/i.test(key) ? key : `${schemeOf(name, value)}${key}`]] : [];
  });
}

export function field(fields, name) {
  return fields?.find(([key]) => key.toLowerCase() === name)?.[1];
}

/** A recorded body as text, or a note that says why there is none. */
export function bodyText({ encoding, data }, fields) {
  if (encoding === 'omitted') return { note: `not kept: it is compressed with ${field(fields, 'content-encoding')}, so keys in it would not be found` };
  if (encoding !== 'base64') return { text: data };
  const raw = Uint8Array.from(atob(data), (character) => character.charCodeAt(0));
  try {
    return { text: new TextDecoder('utf-8', { fatal: true }).decode(raw) };
  } catch {
    return { note: `${raw.length} bytes that are not text` };
  }
}

export function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
