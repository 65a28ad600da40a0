// Every user can read and reach everything: contrast, and what axe-core finds, in both views, both schemes, on a phone and a desktop.

import assert from 'node:assert/strict';
import fs from 'node:fs';
import { createRequire } from 'node:module';
import test, { after, before } from 'node:test';
import { Feed, check, launch, onPage, shot, shutDown, until } from './support.mjs';

before(launch);
after(() => shutDown());

const AXE = createRequire(`${process.env.MODULES}/`)('axe-core').source;

for (const colorScheme of ['light', 'dark']) {
  for (const width of [390, 1440]) {
    check(`every text can be read, and axe finds nothing, in the ${colorScheme} scheme at ${width} pixels`, async (home) => {
      home.mkdir('notes');
      home.writeRegistry({ [home.path('shop')]: home.port, [home.path('gone')]: home.port + 1, [home.path('notes')]: home.port + 2 },
        { ic: { projects: { [home.path('notes')]: { pinned: true, last_used: 1_700_000_000 } } } });
      await home.serve('shop');
      const feed = new Feed(home, 4242);
      const { url } = await home.ui();
      await onPage(url, async (page) => {
        const findings = [];
        const look = async (where) => {
          await shot(page, `${where}-${colorScheme}-${width}`.replaceAll(' ', '-'));
          findings.push(...[...await faint(page), ...await axe(page)].map((finding) => `${where}: ${finding}`));
        };
        const dialog = page.locator('dialog');
        const lookAtDialog = async (where) => {
          await dialog.waitFor();
          await look(where);
          await page.keyboard.press('Escape');
          await dialog.waitFor({ state: 'detached' });
        };
        const underPointer = async (where, what = ':is(main, header) button, .row:nth-child(-n + 8)') => {
          for (const one of await page.locator(what).filter({ visible: true }).all()) {
            if (await one.isDisabled()) continue;
            await one.hover({ force: true });
            findings.push(...(await faint(page, await one.elementHandle())).map((finding) => `${where}, under the pointer: ${finding}`));
          }
        };
        await page.locator('#projects-list .row', { hasText: 'gone' }).first().waitFor();
        const bright = await page.evaluate(() => getComputedStyle(document.documentElement).backgroundColor.match(/\d+/g).map(Number)[0] > 127);
        assert.equal(bright, colorScheme === 'light');
        await look('projects');
        await underPointer('projects');
        for (const [name, keys] of [['keys', '?'], ['allocate', 'a']]) {
          await page.keyboard.press(keys);
          await lookAtDialog(name);
        }
        for (const name of ['Prune…', 'Import…']) {
          await page.keyboard.press('m');
          await page.getByRole('menuitem', { name }).waitFor();
          if (name === 'Prune…') await look('the menu');
          await page.getByRole('menuitem', { name }).click();
          await lookAtDialog(name);
        }
        await page.locator('#projects-list .row', { hasText: 'shop' }).first().click();
        await page.locator('#projects aside').getByRole('tab').first().waitFor();
        await look('a project');
        await underPointer('a project', '#projects aside button');
        await page.keyboard.press('Escape');
        await page.keyboard.press('Delete');
        await lookAtDialog('remove');

        await page.keyboard.press('2');
        await page.locator('#requests select option', { hasText: 'played' }).waitFor({ state: 'attached' });
        await page.locator('#requests select').selectOption('played:9');
        await look('no request');
        await page.getByRole('button', { name: 'Record played', exact: true }).click();
        await page.getByRole('button', { name: 'Recording played', exact: true }).waitFor();
        const said = [{ role: 'user', content: 'Hello' }];
        for (const [id, status] of [200, 301, 404, 500, 200, 200].entries()) {
          said.push({ role: 'assistant', content: 'Moo' }, { role: 'user', content: `And ${id}?` });
          feed.exchange(id, {
            start: { path: '/v1/chat/completions', fields: [['A', 'b']], added: [['Via', '1.1 ic']] }, head: { status },
            bodies: { request: JSON.stringify({ messages: said }), response: 'y' },
            end: { status, model: 'gpt-4o-2024-08-06', input_tokens: 1, output_tokens: 2, outcome: id === 4 ? 'client_gone' : id === 5 ? 'origin_cut' : 'complete', message: status === 500 ? 'overloaded' : null },
          });
        }
        feed.send({ event: 'start', id: 9, at: Date.now() / 1000, method: 'GET', path: '/open', fields: [] });
        await page.locator('#requests-list .row', { hasText: 'overloaded' }).waitFor();
        await until('all rows', async () => await page.locator('#requests-list .row').count() === 7);
        await look('requests');
        const cut = await page.locator('#requests-list .row').evaluateAll((rows) => rows.flatMap((row) => [...row.querySelectorAll('.name, .port, .status, .model, .tokens')])
          .filter((cell) => cell.scrollWidth > cell.clientWidth && getComputedStyle(cell).display !== 'inline').map((cell) => cell.textContent));
        assert.deepEqual(cut, [], 'project, status and model are whole at every width');
        await underPointer('requests');
        await page.locator('#requests-list .row', { hasText: 'overloaded' }).click();
        await page.locator('#requests aside').getByRole('group', { name: 'Error' }).waitFor();
        for (const summary of await page.locator('#requests summary').filter({ visible: true }).all()) await summary.click();
        await look('a failed request');
        await underPointer('a failed request');
        await page.keyboard.press('Escape');
        for (let row = 0; row < 7; row++) {
          await page.keyboard.press('j');
          findings.push(...(await faint(page)).map((finding) => `the chosen row: ${finding}`));
        }
        await page.keyboard.press('v');
        await page.locator('#requests-list .row[aria-expanded]').click();
        await page.keyboard.press('Space');
        await look('conversations');
        assert.deepEqual(findings, []);
      }, { colorScheme, viewport: { width, height: 800 } });
      await feed.end();
      fs.rmSync(home.registry);
      await onPage(url, async (page) => {
        await page.getByRole('region', { name: 'Connect a first project' }).waitFor();
        await shot(page, `first-run-${colorScheme}-${width}`);
        assert.deepEqual([...await faint(page), ...await axe(page)], []);
      }, { colorScheme, viewport: { width, height: 800 } });
    });
  }
}

/** What axe-core finds in the page, and which elements it is about. */
async function axe(page) {
  await page.evaluate(AXE);
  const violations = await page.evaluate(async () => (await window.axe.run(document, { resultTypes: ['violations'] })).violations);
  return violations.map(({ id, help, nodes }) => `${id}: ${help}: ${nodes.map(({ html }) => html.slice(0, 150)).join(' ')}`);
}

test('the colours of the page can be told apart in every state', () => {
  const css = fs.readFileSync(new URL('../../src/ui/page/page.css', import.meta.url), 'utf8');
  const colors = [...css.matchAll(/--([\w-]+): light-dark\((#\w{6}), (#\w{6})\);/g)];
  for (const scheme of [2, 3]) {
    const palette = new Map(colors.map((color) => [color[1], [1, 3, 5].map((at) => parseInt(color[scheme].slice(at, at + 2), 16))]));
    const check = (above, below, least) => {
      const found = contrast(palette.get(above), palette.get(below));
      assert.ok(found >= least, `${above} on ${below}: ${found.toFixed(2)}`);
    };
    for (const below of ['bg', 'raised', 'hover', 'chosen']) {
      for (const text of ['text', 'dim', 'accent', 'good', 'warn', 'bad']) check(text, below, 4.5);
      // Borders of controls, and bars.
      for (const shape of ['edge', 'waiting']) check(shape, below, 3);
    }
  }
});

/** The contrast ratio of two colours (WCAG 2.2). */
function contrast(one, other) {
  const luminance = (color) => {
    const [r, g, b] = color.map((part) => (part / 255 <= 0.04045 ? part / 255 / 12.92 : ((part / 255 + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const [dark, bright] = [luminance(one), luminance(other)].sort((a, b) => a - b);
  return (bright + 0.05) / (dark + 0.05);
}

/** Texts in view with a contrast below 4.5, and borders of controls below 3 (WCAG 2.2, 1.4.3 and 1.4.11); what is disabled is exempt. */
async function faint(page, within = null) {
  const seen = await page.evaluate((within) => {
    const canvas = new OffscreenCanvas(1, 1).getContext('2d', { willReadFrequently: true });
    const rgba = (color) => {
      canvas.clearRect(0, 0, 1, 1);
      canvas.fillStyle = color;
      canvas.fillRect(0, 0, 1, 1);
      return [...canvas.getImageData(0, 0, 1, 1).data];
    };
    const over = ([r, g, b, a], [R, G, B]) => [[r, R], [g, G], [b, B]].map(([top, below]) => (top * a + below * (255 - a)) / 255);
    const backdrop = (element) => {
      if (!element) return [255, 255, 255];
      const [r, g, b, a] = rgba(getComputedStyle(element).backgroundColor);
      return a === 255 ? [r, g, b] : over([r, g, b, a], backdrop(element.matches('dialog') ? document.documentElement : element.parentElement));
    };
    const isSeen = (element) => element.checkVisibility({ visibilityProperty: true, opacityProperty: true }) && !element.closest(':disabled, noscript, option');
    const seen = [];
    const root = within ?? document.querySelector('dialog') ?? document.body;
    const walker = document.createTreeWalker(root, NodeFilter.SHOW_TEXT);
    while (walker.nextNode()) {
      const { parentElement: element, textContent } = walker.currentNode;
      if (!textContent.trim() || !isSeen(element)) continue;
      let opacity = 1;
      for (let one = element; one; one = one.parentElement) opacity *= getComputedStyle(one).opacity;
      const behind = backdrop(element);
      const [r, g, b, a] = rgba(getComputedStyle(element).color);
      seen.push({ what: `${textContent.trim().slice(0, 30)} (${element.className})`, least: 4.5, colors: [over([r, g, b, a * opacity], behind), behind] });
    }
    for (const control of root.querySelectorAll('button, input, select, textarea')) {
      const { borderTopColor, borderTopWidth } = getComputedStyle(control);
      const [r, g, b, a] = rgba(borderTopColor);
      if (a && parseFloat(borderTopWidth) && isSeen(control)) {
        const behind = backdrop(control.parentElement);
        seen.push({ what: `border of ${control.textContent} (${control.className})`, least: 3, colors: [over([r, g, b, a], behind), behind] });
      }
    }
    return seen;
  }, within);
  return seen.map((one) => ({ ...one, ratio: contrast(...one.colors) })).filter(({ ratio, least }) => ratio < least)
    .map(({ what, ratio }) => `${what}: ${ratio.toFixed(2)}`);
}
