// Requests as an HTTP Archive (HAR 1.2), which browsers and proxies can open. What HAR has no name for begins with `_`.

import { field, urlOf } from './exchange.js';
import { durationOf } from './format.js';

/** The archive of requests, which are given with the newest first. */
export function har(requests) {
  const entries = requests.toReversed().map((one) => entry(one, Date.now() / 1000));
  return { log: { version: '1.2', creator: { name: 'ic', version: '' }, entries } };
}

function entry(one, now) {
  const time = durationOf(one, now) ?? 0;
  const wait = Math.min(one.ttfb_ms ?? time, time);
  return {
    startedDateTime: new Date(one.at * 1000).toISOString(),
    time,
    request: request(one),
    response: response(one),
    cache: {},
    timings: { send: 0, wait, receive: time - wait },
    connection: String(one.connection ?? ''),
    _project: one.source, _path: one.sourcePath, _target: one.target, _added: one.added, _outcome: one.outcome, _message: one.message ?? one.error,
    _model: one.model, _inputTokens: one.input_tokens, _cachedTokens: one.cached_tokens, _outputTokens: one.output_tokens, _cost: one.cost ?? one.estimate,
  };
}

function request(one) {
  const { port, method, version, requestFields, requestLength, request_bytes, bodies: { request: body } } = one;
  const path = one.path ?? '';
  const query = path.includes('?') ? path.slice(path.indexOf('?') + 1) : '';
  return {
    method: method ?? '',
    url: urlOf(one.path, port),
    httpVersion: `HTTP/${version ?? '1.1'}`,
    cookies: [],
    headers: headers(requestFields),
    queryString: [...new URLSearchParams(query)].map(([name, value]) => ({ name, value })),
    headersSize: -1,
    bodySize: request_bytes ?? requestLength ?? -1,
    ...(body && { postData: { mimeType: field(requestFields, 'content-type') ?? '', ...content(body) } }),
  };
}

function response(one) {
  const { status, reason, responseFields, response_bytes, bodies: { response: body } } = one;
  return {
    status: status ?? 0,
    statusText: reason ?? '',
    httpVersion: 'HTTP/1.1',
    cookies: [],
    headers: headers(responseFields),
    content: { size: body?.total ?? response_bytes ?? 0, mimeType: field(responseFields, 'content-type') ?? '', ...(body && content(body)) },
    redirectURL: field(responseFields, 'location') ?? '',
    headersSize: -1,
    bodySize: response_bytes ?? -1,
  };
}

function headers(fields) {
  return (fields ?? []).map(([name, value]) => ({ name, value }));
}

function content({ data, encoding, truncated, total }) {
  if (encoding === 'omitted') return { text: '', comment: 'not kept: it is compressed, so keys in it would not be found' };
  return { text: data, ...(encoding === 'base64' && { encoding }), ...(truncated && { comment: `the first part of ${total} bytes` }) };
}
