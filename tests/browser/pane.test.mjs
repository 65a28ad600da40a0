// The pane of one request in a browser: its answer, its images, what is copied.

import assert from 'node:assert/strict';
import http from 'node:http';
import { after, before } from 'node:test';
import { Feed, button, check, clipboard, fetchOnce, launch, onPage, requestRow, shot, shutDown, toast, until } from './support.mjs';

before(launch);
after(() => shutDown());

const paneOf = (page) => page.getByRole('complementary', { name: 'Request' });
/** The rows are in the document in any order. */
const newest = (page) => page.locator('#requests-list .row[aria-rowindex="2"]');
/** Screenshots of a phone and of a wide screen, in both schemes. */
async function shots(page, name) {
  if (!process.env.SHOTS) return;
  for (const [width, colorScheme] of [[390, 'light'], [390, 'dark'], [1440, 'dark'], [1440, 'light']]) {
    await page.emulateMedia({ colorScheme });
    await page.setViewportSize({ width, height: 800 });
    await shot(page, `${name}-${width}-${colorScheme}`);
  }
}

const JSON_FIELDS = [['Content-Type', 'application/json']];
/** One pixel. */
const PNG = 'iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==';

check('a recorded request shows its answer and its images, and its response is copied', async (home) => {
  const feed = new Feed(home, 4242, { recording: true });
  const { url } = await home.ui();
  await onPage(url, async (page) => {
    await page.keyboard.press('2');
    await button(page, 'Recording played').waitFor();
    const path = '/v1beta/models/gemini-9:generateContent';
    const at = new Date(2026, 10, 29, 17, 5, 3, 42).getTime() / 1000;
    const contents = [{ parts: [{ text: 'Hello' }] }];
    const response = JSON.stringify({ candidates: [{ content: { parts: [{ text: 'A pixel:' }, { inlineData: { mimeType: 'image/png', data: PNG } }] }, finishReason: 'STOP' }] });
    feed.exchange(1, { start: { path, at, fields: JSON_FIELDS }, head: { fields: JSON_FIELDS }, bodies: { request: JSON.stringify({ contents }), response } });
    contents.push({ role: 'model', parts: [{ text: 'Hi' }] }, { parts: [{ text: 'What is it?' }, { inlineData: { mimeType: 'image/png', data: PNG } }] });
    feed.exchange(2, { start: { path, at: at + 9, fields: JSON_FIELDS }, head: { fields: JSON_FIELDS }, bodies: { request: JSON.stringify({ contents }), response },
      end: { output_tokens: 500, first_event_ms: 1, last_event_ms: 20 } });
    await until('two rows', async () => await requestRow(page, 'gemini-9').count() === 2);
    await newest(page).click();
    const pane = paneOf(page);
    await pane.getByText('2026-11-29 17:05:12.042', { exact: true }).waitFor();
    await pane.getByText('1 message as before').waitFor();
    await pane.locator('.message.new', { hasText: 'What is it?' }).locator('img').waitFor();
    const answer = pane.locator('details', { hasText: 'A pixel:' }).filter({ hasText: 'Ended: STOP' });
    const image = answer.locator('img');
    await until('the image is decoded', () => image.evaluate((one) => one.complete && one.naturalWidth === 1));
    await answer.getByRole('button', { name: 'image/png, 70 B' }).press('Enter');
    await answer.locator('.thumb[aria-pressed=true]').waitFor();
    // Its data is folded where the text of a body is shown, and whole where it is copied.
    await pane.locator('pre', { hasText: 'iVBORw0KGgoA… (70 B)' }).first().waitFor();
    assert.ok(!(await pane.textContent()).includes(PNG));
    assert.doesNotMatch(await pane.textContent(), /Infinity/);
    const body = pane.locator('pre', { hasText: 'iVBORw0KGgoA… (70 B)' }).first();
    await body.press('ArrowDown');
    assert.ok(await body.evaluate((one) => one === document.activeElement), 'the arrow keys scroll a text');
    await button(page, 'Copy response').click();
    await toast(page, /^Copied the response×$/).waitFor();
    assert.equal(await clipboard(page), response);
    await shot(page, 'images');

    feed.exchange(3, { start: { path: '/v1/embeddings', at: at + 20 }, bodies: { request: JSON.stringify({ input: 'a text' }) } });
    feed.exchange(4, { start: { path: '/v1/embeddings', at: at + 30 }, bodies: { request: JSON.stringify({ input: 'a text' }) } });
    await until('two more rows', async () => await requestRow(page, '/v1/embeddings').count() === 2);
    await newest(page).click();
    await pane.locator('pre', { hasText: '"a text"' }).waitFor();
    assert.equal(await pane.getByText('New since').count(), 0);
    assert.equal(await button(page, 'Copy response').count(), 0);
    feed.send({ event: 'body', id: 4, side: 'response', encoding: 'utf8', data: 'begin', truncated: true, total: 2_000_000 });
    await button(page, 'Copy response').click();
    await toast(page, 'Copied the response, without the part that was not recorded').waitFor();
    assert.equal(await clipboard(page), 'begin');
  });
});

check('the answer of an open request grows, and closing the pane stops that', async (home) => {
  const feed = new Feed(home, 4242, { recording: true });
  const { url } = await home.ui();
  await onPage(url, async (page) => {
    await page.addInitScript(() => {
      const [send, all] = [window.fetch, new Set()];
      window.fetch = (what, { signal, ...how }) => {
        const stop = new AbortController();
        all.add(stop);
        return send(what, { ...how, signal: AbortSignal.any([stop.signal, signal].filter(Boolean)) });
      };
      window.disconnect = () => all.forEach((stop) => stop.abort());
    });
    await page.reload();
    await page.keyboard.press('2');
    await button(page, 'Recording played').waitFor();
    const event = (text) => `data: ${JSON.stringify({ choices: [{ delta: { content: text } }] })}\n\n`;
    const at = Date.now() / 1000 - 2;
    const open = (id) => feed.send(
      { event: 'start', id, at, connection: 1, client: '127.0.0.1:5', method: 'POST', path: `/v1/n${id}`, version: '1.1', fields: [], length: 2 },
      { event: 'head', id, at: at + 1, status: 200, reason: 'OK', fields: [['Content-Type', 'text/event-stream']], length: null, ttfb_ms: 1000, model: 'm-1' });
    open(1);
    open(2);
    await requestRow(page, '/v1/n1').click();
    const pane = paneOf(page);
    await pane.getByText('m-1', { exact: true }).waitFor();
    await until('the request is watched', () => feed.watchers.has(1));
    const lines = Array(60).fill('line').join('\n');
    let data = event('Hello ');
    feed.part(1, data);
    const text = pane.locator('details', { hasText: 'Answer' }).locator('pre');
    await text.filter({ hasText: /^Hello $/ }).waitFor();
    await pane.getByText(/about \d+\.\d ms \(\d+ a second\)/).waitFor();
    // What is selected stays selected, and the end stays in view.
    await text.evaluate((one) => getSelection().selectAllChildren(one));
    feed.part(1, data += event(lines));
    await until('it has grown', async () => (await text.textContent()).endsWith('line\nline'));
    assert.equal(await page.evaluate(() => String(getSelection())), 'Hello ');
    assert.ok(await text.evaluate((one) => one.scrollTop > 0 && one.scrollHeight - one.scrollTop - one.clientHeight < 2));
    // One who reads its beginning is not disturbed.
    await text.evaluate((one) => (one.scrollTop = 0));
    feed.part(1, data += event(' end'));
    await until('it has grown again', async () => (await text.textContent()).endsWith(' end'));
    assert.equal(await text.evaluate((one) => one.scrollTop), 0);
    await shots(page, 'open');
    // The whole one ends it; a part that arrives late changes nothing.
    data += event(', really');
    feed.send({ event: 'body', id: 1, side: 'response', encoding: 'utf8', data, truncated: false, total: data.length });
    await until('it is whole', async () => (await text.textContent()).endsWith(', really'));
    feed.part(1, event('late'));
    feed.send({ event: 'end', id: 1, at: at + 3, duration_ms: 3000, ttfb_ms: 1000, request_bytes: 2, response_bytes: 900, outcome: 'complete', status: 200, error: null, model: 'm-1',
      input_tokens: 5, output_tokens: 9, events: 4, first_event_ms: 1000, last_event_ms: 3000 });
    await pane.getByText('5 in, 9 out').waitFor();
    assert.ok((await text.textContent()).endsWith(', really'));
    assert.equal(await text.evaluate((one) => one.scrollTop), 0);

    // Another one is watched instead, also when the connection to `ic ui` was lost; closing the pane ends that.
    await requestRow(page, '/v1/n2').click();
    await until('the other one is watched', () => feed.watchers.has(2) && !feed.watchers.has(1));
    feed.part(2, event('Other'));
    await text.filter({ hasText: /^Other$/ }).waitFor();
    const before = feed.watchers.get(2);
    await page.evaluate(() => window.disconnect());
    await until('it is watched again', () => feed.watchers.has(2) && feed.watchers.get(2) !== before);
    feed.part(2, event('Other way'));
    await text.filter({ hasText: /^Other way$/ }).waitFor();
    await page.keyboard.press('Escape');
    await until('nothing is watched', () => feed.watchers.size === 0 && feed.listeners.size === 1);
  });
});

check('the answer of a real interceptor grows, without secrets', async (home) => {
  await home.serve('shop', '--mock-interval-ms', '100');
  const { url } = await home.ui();
  await onPage(url, async (page) => {
    await page.keyboard.press('2');
    await button(page, 'Record shop').click();
    await button(page, 'Recording shop').waitFor();
    const words = Array(40).fill('word').join(' ');
    const answer = await fetchOnce(`http://127.0.0.1:${home.port}/v1/chat/completions`, {
      method: 'POST', headers: { 'Content-Type': 'application/json' },
      body: JSON.stringify({ model: 'mock-1', stream: true, messages: [{ role: 'user', content: `${words} sk-very-secret-0123456789abcdef` }] }),
    });
    await requestRow(page, 'chat').click();
    const pane = paneOf(page);
    const text = pane.locator('details', { hasText: 'Answer' }).locator('pre');
    await text.filter({ hasText: 'You said:' }).waitFor();
    await pane.getByText('in flight').waitFor();
    const first = await text.textContent();
    await until('it grows', async () => (await text.textContent()).length > first.length);
    await pane.getByText('in flight').waitFor();
    await answer.text();
    await pane.getByText('Ended: stop').waitFor();
    assert.ok((await text.textContent()).includes(`${words} …`));
    assert.doesNotMatch(await page.locator('#requests').textContent(), /very-secret/);
  });
});

check('a request is sent again, as it was or edited, with a key that stays in the tab', async (home) => {
  const got = [];
  const target = home.ends(http.createServer((request, response) => {
    let body = '';
    request.on('data', (data) => (body += data)).on('end', () => {
      got.push({ url: request.url, method: request.method, key: request.headers['x-api-key'], kind: request.headers['content-type'], accepts: request.headers['accept-encoding'], body });
      response.writeHead(got.length === 1 ? 200 : 201, { 'Content-Type': 'application/json' }).end('{}');
    });
  }));
  await new Promise((resolve) => target.listen(0, '127.0.0.1', resolve));
  const serving = await home.serve('shop', '--target', `http://127.0.0.1:${target.address().port}`);
  const { url } = await home.ui();
  await onPage(url, async (page) => {
    await page.keyboard.press('2');
    const ask = (body) => fetchOnce(`http://127.0.0.1:${home.port}/v1/messages?a=1`, {
      method: 'POST', headers: { 'Content-Type': 'application/json', 'X-Api-Key': 'my-own-key-0123456789', Cookie: 'a=b' }, body,
    }).then((answer) => answer.text());
    await button(page, 'Record shop').waitFor();
    await ask('{"n":0}');
    await requestRow(page, 'messages').click();
    const pane = paneOf(page);
    // Its body was not recorded.
    assert.ok(await button(page, 'Send again').isDisabled());
    await button(page, 'Record shop').click();
    await button(page, 'Recording shop').waitFor();
    await ask('{"n":1}');
    await until('two rows', async () => await requestRow(page, 'messages').count() === 2);
    await newest(page).click();
    await pane.locator('pre', { hasText: '"n": 1' }).waitFor();
    await button(page, 'Send again').click();
    const dialog = page.getByRole('dialog');
    // The value of the query and the key were not recorded.
    await dialog.getByLabel('Key').fill('typed-key');
    await button(page, 'Send').click();
    await dialog.getByText('put the values that were not recorded').waitFor();
    await shot(page, 'send-again');
    await dialog.getByLabel('Path').fill('/v1/messages?a=2');
    await button(page, 'Send').click();
    await toast(page, 'Sent again: 201').waitFor();
    const sent = { url: '/v1/messages?a=2', method: 'POST', key: 'typed-key', kind: 'application/json', accepts: undefined, body: '{"n":1}' };
    assert.deepEqual(got.at(-1), sent);
    await until('a third row', async () => await requestRow(page, 'messages').count() === 3);
    await newest(page).click();
    await button(page, 'Edit and send…').click();
    await dialog.getByLabel('Path').fill('/v1/other');
    await dialog.getByLabel('Body').fill('{"n":2}');
    assert.equal(await dialog.getByLabel('Key').inputValue(), 'typed-key');
    await shots(page, 'edit-and-send');
    await dialog.locator('form').evaluate((form) => (form.requestSubmit(), form.requestSubmit()));
    await until('a fourth request', () => got.length === 4);
    await dialog.waitFor({ state: 'detached' });
    assert.deepEqual(got.at(-1), { ...sent, url: '/v1/other', body: '{"n":2}' });
    // Nothing is asked for where nothing is missing.
    await until('a row', async () => await requestRow(page, 'other').count() === 1);
    await newest(page).click();
    await button(page, 'Send again').click();
    await until('a fifth request', () => got.length === 5);
    assert.deepEqual(got.at(-1), got.at(-2));
    await until('its row', async () => await requestRow(page, 'other').count() === 2);
    assert.equal(got.length, 5, 'each was sent once');
    const kept = await page.evaluate(() => JSON.stringify({ ...sessionStorage, ...localStorage }) + document.cookie + location.href);
    assert.doesNotMatch(kept + await page.locator('#requests').textContent(), /typed-key/);
    await new Promise((resolve) => serving.removeAllListeners('exit').on('exit', resolve).kill('SIGTERM'));
    await button(page, 'Edit and send…').click();
    await button(page, 'Send').click();
    await page.locator('.wrong code', { hasText: 'ic serve' }).waitFor();
  }, { expects: /status of 404/ });
});
