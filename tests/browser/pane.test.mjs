// The pane of one request in a browser: its answer, its images, what is copied.

import assert from 'node:assert/strict';
import { after, before } from 'node:test';
import { Feed, button, check, clipboard, launch, onPage, requestRow, shot, shutDown, toast, until } from './support.mjs';

before(launch);
after(() => shutDown());

const paneOf = (page) => page.getByRole('complementary', { name: 'Request' });
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
    feed.exchange(2, { start: { path, at: at + 9, fields: JSON_FIELDS }, head: { fields: JSON_FIELDS }, bodies: { request: JSON.stringify({ contents }), response } });
    await until('two rows', async () => await requestRow(page, 'gemini-9').count() === 2);
    await requestRow(page, 'gemini-9').first().click();
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
    await button(page, 'Copy response').click();
    await toast(page, /^Copied the response×$/).waitFor();
    assert.equal(await clipboard(page), response);
    await shot(page, 'images');

    feed.exchange(3, { start: { path: '/v1/embeddings' }, bodies: { request: JSON.stringify({ input: 'a text' }) } });
    feed.exchange(4, { start: { path: '/v1/embeddings' }, bodies: { request: JSON.stringify({ input: 'a text' }) } });
    await until('two more rows', async () => await requestRow(page, '/v1/embeddings').count() === 2);
    await requestRow(page, '/v1/embeddings').first().click();
    await pane.locator('pre', { hasText: '"a text"' }).waitFor();
    assert.equal(await pane.getByText('New since').count(), 0);
    assert.equal(await button(page, 'Copy response').count(), 0);
    feed.send({ event: 'body', id: 4, side: 'response', encoding: 'utf8', data: 'begin', truncated: true, total: 2_000_000 });
    await button(page, 'Copy response').click();
    await toast(page, 'Copied the response, without the part that was not recorded').waitFor();
    assert.equal(await clipboard(page), 'begin');
  });
});
