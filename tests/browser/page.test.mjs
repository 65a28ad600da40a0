// The page of `ic ui` in a browser: every action, live updates, hostile names, both colour schemes, a phone, the keyboard.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import http from 'node:http';
import { after, before } from 'node:test';
import { Feed, button, check, clipboard, fetchOnce, here, launch, onPage, requestRow, shot, shutDown, toast, until } from './support.mjs';

before(launch);
after(() => shutDown());

// The page lists all interceptors of the machine, also those of other tests.
const anyRow = (page, name) => page.locator('#projects-list .row', { hasText: name });
const projectRow = (page, name) => anyRow(page, name).filter({ hasText: here.folder });
const allocated = (page, number) => page.locator('#projects p.facts', { hasText: `: ${number} allocated` }).waitFor();
const choose = async (page, name) => {
  await button(page, 'Registry').click();
  await page.getByRole('menuitem', { name, exact: true }).click();
};
const live = (page) => page.locator('#link[data-state=on]').waitFor({ state: 'attached' });

/** Three projects; `shop` exists, `gone` does not, `notes` is pinned. */
function three(home) {
  home.mkdir('notes');
  home.writeRegistry({ [home.path('shop')]: home.port, [home.path('gone')]: home.port + 1, [home.path('notes')]: home.port + 2 },
    { ic: { projects: { [home.path('notes')]: { pinned: true, last_used: 1_700_000_000 } } } });
}

check('projects are listed with their state', async (home) => {
  three(home);
  await home.serve('shop');
  const { url } = await home.ui();
  await onPage(url, async (page) => {
    await projectRow(page, 'shop').filter({ has: page.locator('.dot[aria-label=Running]') }).waitFor();
    await projectRow(page, 'shop').filter({ hasText: 'http://127.0.0.1:' }).waitFor();
    await projectRow(page, 'gone').filter({ has: page.locator('.dot[aria-label="Folder is gone"]') }).waitFor();
    await projectRow(page, 'notes').filter({ hasText: 'pinned' }).waitFor();
    assert.match(await button(page, /^Deleted/).textContent(), /1$/);
    await button(page, /^Pinned/).click();
    await projectRow(page, 'shop').waitFor({ state: 'detached' });
    assert.equal(await projectRow(page, 'notes').count(), 1);
    await button(page, /^All\s*\d/).click();
    await page.getByText(`Ports ${home.port}–${home.port + 1111}: 3 allocated`).waitFor();
    await shot(page, 'projects');
  });
});

check('the number of requests and their rate are shown', async (home) => {
  await home.serve('shop');
  const { url } = await home.ui();
  await onPage(url, async (page) => {
    await projectRow(page, 'shop').waitFor();
    for (let n = 0; n < 7; n++) await (await fetchOnce(`http://127.0.0.1:${home.port}/v1/models`)).text();
    await projectRow(page, 'shop').filter({ has: page.locator('.requests', { hasText: /^7/ }) }).waitFor();
    await until('a rate', async () => !/^0/.test(await projectRow(page, 'shop').locator('.cell.rate').textContent()));
    assert.ok(await projectRow(page, 'shop').locator('polyline').getAttribute('points'));
  });
});

check('a port is allocated, and the allocation undone', async (home) => {
  const { url } = await home.ui();
  await onPage(url, async (page) => {
    await allocated(page, 0);
    await page.keyboard.press('a');
    const path = page.getByLabel('Folder');
    await path.fill('shop');
    await page.keyboard.press('Enter');
    await page.getByText('give an absolute path').waitFor();
    await path.fill('~/shop');
    // Its edge is a part of it.
    await page.getByRole('dialog').click({ position: { x: 5, y: 50 } });
    assert.equal(await path.inputValue(), '~/shop');
    await page.getByLabel('Pin it').check();
    await shot(page, 'allocate');
    await button(page, 'Allocate').click();
    await toast(page, `shop has port ${home.port}`).waitFor();
    await projectRow(page, 'shop').filter({ hasText: 'pinned' }).waitFor();
    assert.deepEqual(home.mappings(), { [home.path('shop')]: home.port });
    await toast(page, 'shop has port').getByText('Undo').click();
    await toast(page, `Undone: shop has port ${home.port}`).waitFor();
    await projectRow(page, 'shop').waitFor({ state: 'detached' });
    assert.deepEqual(home.mappings(), {});
  }, { expects: /status of 400/ });
});

check('a misspelled folder is reported, and only a running interceptor has a view of requests', async (home) => {
  await home.serve('shop');
  const { url } = await home.ui();
  await onPage(url, async (page) => {
    await projectRow(page, 'shop').click();
    await page.getByText('for ').first().waitFor();
    assert.ok(await page.locator('aside .buttons').getByRole('button', { name: 'Requests' }).isEnabled());
    await page.keyboard.press('a');
    await page.getByLabel('Folder').fill('~/shpo');
    await button(page, 'Allocate').click();
    await toast(page, 'the folder does not exist yet').waitFor();
    await projectRow(page, 'shpo').click();
    await page.getByRole('heading', { name: 'shpo' }).waitFor();
    assert.ok(await page.locator('aside .buttons').getByRole('button', { name: 'Requests' }).isDisabled());
    await page.keyboard.press('r');
    assert.equal(await page.getByRole('tab', { name: 'Projects' }).getAttribute('aria-selected'), 'true');
  });
});

check('a project is pinned and unpinned with the keyboard and the mouse', async (home) => {
  three(home);
  const { url } = await home.ui();
  await onPage(url, async (page) => {
    const row = projectRow(page, 'shop');
    await row.hover();
    assert.deepEqual(await row.getByRole('button').allTextContents(), ['Copy']);
    await row.getByRole('button').click();
    assert.equal(await clipboard(page), `http://localhost:${home.port}`);
    await row.click();
    await button(page, 'Pin').click();
    await row.filter({ hasText: 'pinned' }).waitFor();
    await page.keyboard.press('p');
    await toast(page, 'Unpinned shop').waitFor();
    await page.keyboard.press('u');
    await toast(page, 'Undone: Unpinned shop').waitFor();
    await row.filter({ hasText: 'pinned' }).waitFor();
  });
});

check('a project is removed after a confirmation, and undo restores its pin and last use', async (home) => {
  three(home);
  const before = fs.readFileSync(home.registry, 'utf8');
  const { url } = await home.ui();
  await onPage(url, async (page) => {
    await projectRow(page, 'notes').click();
    await page.getByRole('button', { name: 'Remove…' }).click();
    await page.getByText(`loses port ${home.port + 2}`).waitFor();
    await shot(page, 'remove');
    await page.keyboard.press('Escape');
    await page.locator('dialog').waitFor({ state: 'detached' });
    assert.equal(fs.readFileSync(home.registry, 'utf8'), before, 'nothing changes before the confirmation');
    await page.keyboard.press('Delete');
    await button(page, 'Remove').last().click();
    await projectRow(page, 'notes').waitFor({ state: 'detached' });
    assert.equal(home.mappings()[home.path('notes')], undefined);
    await button(page, 'Undo').first().click();
    await toast(page, 'Undone: Removed notes').waitFor();
    assert.equal(await toast(page, /^Removed notes/).count(), 0, 'what it offered is done');
    await projectRow(page, 'notes').filter({ hasText: 'pinned' }).waitFor();
    const registry = JSON.parse(fs.readFileSync(home.registry, 'utf8'));
    assert.equal(registry.mappings[home.path('notes')], home.port + 2);
    assert.deepEqual(registry.ic.projects[home.path('notes')], { pinned: true, last_used: 1_700_000_000 });
  });
});

check('pruning shows the mappings before it removes them', async (home) => {
  three(home);
  const { url } = await home.ui();
  await onPage(url, async (page) => {
    await projectRow(page, 'gone').waitFor();
    await choose(page, 'Prune…');
    await page.locator('.mapping', { hasText: 'deleted' }).waitFor();
    assert.equal(await page.locator('.mapping').count(), 1);
    await shot(page, 'prune');
    assert.ok(home.path('gone') in home.mappings());
    await button(page, 'Remove 1 mapping').click();
    await projectRow(page, 'gone').waitFor({ state: 'detached' });
    await toast(page, 'Removed 1 mapping').getByText('Undo').click();
    await projectRow(page, 'gone').waitFor();
    assert.equal(home.mappings()[home.path('gone')], home.port + 1);
    await choose(page, 'Prune…');
    await page.locator('.mapping').waitFor();
    await page.getByLabel('Also ports not used for').selectOption('30');
    // The unused one is pinned.
    await until('another look', async () => await page.locator('.mapping').count() === 1);
    await page.mouse.click(5, 5);
    await page.locator('dialog').waitFor({ state: 'detached' });
  });
});

check('mappings are exported', async (home) => {
  three(home);
  const { url } = await home.ui();
  await onPage(url, async (page) => {
    await projectRow(page, 'shop').waitFor();
    const [download] = await Promise.all([page.waitForEvent('download'), choose(page, 'Export')]);
    assert.equal(download.suggestedFilename(), 'port_registry.json');
    assert.equal(fs.readFileSync(await download.path(), 'utf8'), home.ic('export'));
  });
});

check('an import shows its changes before it makes them', async (home) => {
  three(home);
  const { url } = await home.ui();
  await onPage(url, async (page) => {
    await projectRow(page, 'shop').waitFor();
    await choose(page, 'Import…');
    const file = (name, text) => page.getByLabel('File', { exact: true }).setInputFiles({ name, mimeType: 'text/plain', buffer: Buffer.from(text) });
    await file('bad.txt', 'nothing');
    await page.getByText('bad.txt holds no mappings').waitFor();
    await file('ports.json', JSON.stringify({ mappings: { '/new': home.port, '/caf\u00e9': home.port + 9 } }));
    await page.getByText('1 conflict: nothing is imported').waitFor();
    assert.ok(await button(page, 'Import').isDisabled());
    await page.getByLabel('Let the file win').check();
    await page.locator('.mapping', { hasText: `here it is the port of ${home.path('shop')}, which loses it` }).waitFor();
    assert.equal(await page.locator('.mapping').count(), 2, 'a row for each project of the file');
    await shot(page, 'import');
    await button(page, 'Import 2 mappings').click();
    await anyRow(page, '/new').waitFor();
    assert.equal(home.mappings()['/caf\u00e9'], home.port + 9);
    assert.equal(home.mappings()[home.path('shop')], undefined);
    await toast(page, 'Imported 2 mappings').waitFor();
  }, { expects: /status of 500/ });
});

check('an undo that conflicts is reported', async (home) => {
  three(home);
  const { url } = await home.ui();
  await onPage(url, async (page) => {
    await projectRow(page, 'shop').click();
    await page.keyboard.press('Escape');
    await page.keyboard.press('Delete');
    await button(page, 'Remove').last().click();
    await projectRow(page, 'shop').waitFor({ state: 'detached' });
    const other = home.mkdir('other');
    home.ic('allocate', other);
    await projectRow(page, 'other').waitFor();
    assert.equal(home.mappings()[other], home.port);
    await page.keyboard.press('u');
    await page.getByText(`port ${home.port} belongs to ${other} now`).waitFor();
    assert.equal(home.mappings()[home.path('shop')], undefined);
  });
});

check('changes by other programs are shown, and interceptors that start and stop', async (home) => {
  const { url } = await home.ui();
  await onPage(url, async (page) => {
    await allocated(page, 0);
    home.ic('allocate');
    await projectRow(page, 'shop').waitFor();
    const other = home.ends(http.createServer()).listen(home.port, '127.0.0.1');
    await projectRow(page, 'shop').filter({ hasText: 'Port in use' }).filter({ hasText: `pid ${process.pid}` }).waitFor();
    await new Promise((resolve) => other.close(resolve));
    const serving = await home.serve('shop');
    await projectRow(page, 'shop').filter({ has: page.locator('.dot[aria-label=Running]') }).waitFor();
    serving.removeAllListeners('exit').kill('SIGTERM');
    await projectRow(page, 'shop').filter({ has: page.locator('.dot[aria-label="Not running"]') }).waitFor();
    await projectRow(page, 'shop').click();
    await page.getByLabel('Filter').focus();
    home.ic('remove');
    await page.locator('#projects aside').waitFor({ state: 'hidden' });
    assert.ok(await page.getByLabel('Filter').evaluate((filter) => filter === document.activeElement), 'typed keys are no shortcuts');
  });
});

check('of 1112 projects only the visible rows are in the document', async (home) => {
  const mappings = Object.fromEntries(Array.from({ length: 1112 }, (_, at) => [`/work/service-${String(at).padStart(4, '0')}`, home.port + at]));
  home.writeRegistry(mappings);
  const { url } = await home.ui();
  await onPage(url, async (page) => {
    await allocated(page, '1\u2009112');
    await anyRow(page, 'service-0000').waitFor();
    assert.ok(await page.locator('#projects-list .row').count() < 60);
    await page.locator('#projects-list .scroller').focus();
    await page.keyboard.press('End');
    await anyRow(page, 'service-1111').filter({ hasText: String(home.port + 1111) }).waitFor();
    await page.keyboard.press('/');
    await page.keyboard.type('/work/ service-077');
    await until('ten rows', async () => await page.locator('#projects-list .row').count() === 10);
    await page.keyboard.press('Enter');
    await page.keyboard.press('Enter');
    await page.getByRole('heading', { name: 'service-0770' }).waitFor();
    await shot(page, 'many');
  });
});

check('the keyboard reaches everything, and the focus is visible', async (home) => {
  three(home);
  const { url } = await home.ui();
  await onPage(url, async (page) => {
    await projectRow(page, 'shop').waitFor();
    const chosen = () => page.locator('#projects-list [aria-selected=true] .name').textContent();
    await page.getByLabel('Filter').fill(home.folder);
    await page.getByLabel('Filter').blur();
    await page.keyboard.press('j');
    assert.equal(await chosen(), 'shop');
    await page.keyboard.press('ArrowDown');
    assert.equal(await chosen(), 'gone');
    await page.keyboard.press('j');
    await page.keyboard.press('k');
    assert.equal(await chosen(), 'gone');
    const list = page.locator('#projects-list .scroller');
    assert.equal(await list.getAttribute('aria-activedescendant'), await page.locator('#projects-list [aria-selected=true]').getAttribute('id'));
    await page.keyboard.press('Enter');
    await page.getByRole('heading', { name: 'gone', exact: true }).waitFor();
    await page.keyboard.press('Escape');
    await page.getByRole('heading', { name: 'gone', exact: true }).waitFor({ state: 'hidden' });
    assert.equal(await page.evaluate(() => document.activeElement.getAttribute('role')), 'grid', 'the focus is back on the list');
    await page.keyboard.press('y');
    assert.equal(await clipboard(page), `http://localhost:${home.port + 1}`);
    await page.keyboard.press('/');
    await page.keyboard.type(`${home.folder} notes`);
    await until('one row', async () => await page.locator('#projects-list .row').count() === 1);
    await page.keyboard.press('Escape');
    await projectRow(page, 'shop').waitFor();
    await page.keyboard.press('Escape');
    await page.keyboard.press('?');
    await page.getByRole('heading', { name: 'Keyboard' }).waitFor();
    await shot(page, 'help');
    await page.keyboard.press('Escape');
    await page.keyboard.press('2');
    await page.locator('#requests .empty code', { hasText: 'ic serve' }).waitFor();
    await page.keyboard.press('1');
    await page.locator('#projects').waitFor();
    // Every element that Tab reaches shows a focus ring.
    await page.locator('h1').evaluate((start) => ((start.tabIndex = -1), start.focus()));
    const stops = new Set();
    for (let n = 0; n < 40; n++) {
      await page.keyboard.press('Tab');
      const stop = await page.evaluate(() => {
        const { activeElement: element } = document;
        if (element === document.body) return null;
        const ring = [element, ...element.querySelectorAll('[aria-selected=true]')].some((one) => {
          const style = getComputedStyle(one);
          return (style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) > 0) || style.boxShadow !== 'none';
        });
        return { name: element.getAttribute('aria-label') ?? element.textContent, ring };
      });
      if (!stop) break;
      assert.ok(stop.ring, `no ring on ${stop.name}`);
      stops.add(stop.name);
    }
    for (const name of ['Filter', 'Projects', 'Allocate…', 'Registry', 'Keyboard shortcuts']) assert.ok(stops.has(name), `${name}: ${[...stops]}`);
  });
});

check('columns sort', async (home) => {
  three(home);
  const { url } = await home.ui();
  await onPage(url, async (page) => {
    await projectRow(page, 'shop').waitFor();
    await page.getByLabel('Filter').fill(home.folder);
    const names = () => page.locator('#projects-list .row').evaluateAll((rows) => rows
      .sort((a, b) => a.getAttribute('aria-rowindex') - b.getAttribute('aria-rowindex')).map((row) => row.querySelector('.name').textContent));
    assert.deepEqual(await names(), ['shop', 'gone', 'notes']);
    await button(page, 'Project').click();
    assert.deepEqual(await names(), ['gone', 'notes', 'shop']);
    await button(page, 'Last used').click();
    assert.deepEqual(await names(), ['notes', 'shop', 'gone']);
    assert.equal(await page.locator('#projects-list [aria-sort]').textContent(), 'Last used');
  });
});

const EVIL = '<img src=x onerror=window.pwned=1>"\'`</script><script>window.pwned=1</script>';

check('hostile names of projects are shown as text', async (home) => {
  const names = [EVIL.replaceAll('/', '∕'), 'javascript:window.pwned=1', '\u202egnp.exe', 'a\nb', '__proto__', 'constructor', '😀 ünïcode'];
  const mappings = Object.fromEntries(names.map((name, at) => [home.mkdir(name), home.port + at]));
  // A byte that is not UTF-8, as Python's json writes it.
  home.writeRegistry(mappings);
  fs.writeFileSync(home.registry, fs.readFileSync(home.registry, 'utf8').replace('"mappings":{', `"mappings":{"/caf\\udce9":${home.port + 99},`));
  const { url } = await home.ui();
  await onPage(url, async (page) => {
    for (const [at, name] of names.entries()) {
      const row = page.locator('#projects-list .row').filter({ has: page.locator('.port', { hasText: String(home.port + at) }) });
      await row.waitFor();
      assert.equal(await row.locator('.name').textContent(), name.replace(/[\u202e\n]/g, '\ufffd'));
      await row.click();
      await page.getByRole('heading', { level: 2 }).first().waitFor();
      await page.keyboard.press('Escape');
    }
    assert.equal(await anyRow(page, 'caf\\xe9').count(), 1);
    assert.equal(await page.locator('img:not(h1 img), script:not([type=module])').count(), 0);
    await shot(page, 'hostile');
    // They can be changed like others.
    await anyRow(page, 'caf\\xe9').click();
    await page.keyboard.press('Escape');
    await page.keyboard.press('p');
    await anyRow(page, 'caf\\xe9').filter({ hasText: 'pinned' }).waitFor();
    await projectRow(page, '<img').click();
    await page.keyboard.press('Escape');
    await page.keyboard.press('Delete');
    await page.getByRole('heading', { name: 'Remove <img' }).waitFor();
    await button(page, 'Remove').last().click();
    await toast(page, 'Removed <img').getByText('Undo').click();
    await toast(page, 'Undone: Removed <img').waitFor();
  });
});

check('hostile values in requests are shown as text', async (home) => {
  const feed = new Feed(home, 4242, { project: EVIL, instance_id: EVIL, target: EVIL });
  const { url } = await home.ui();
  await onPage(url, async (page) => {
    await page.keyboard.press('2');
    await button(page, `Record ${EVIL}`).waitFor();
    feed.send('no json', '{"event":"start","id":', '[]', 'null', '7', '"x"', '{"event":"head","id":99}', '{"event":"start"}', '{"event":{}}');
    feed.exchange(1, {
      start: { method: EVIL, path: `/${EVIL}\u202e\u0000`, fields: [[EVIL, EVIL], ['x', '\u001b[31m\u0007']], client: EVIL },
      head: { reason: EVIL, fields: [['Content-Type', 'application/json'], [EVIL, EVIL]] },
      bodies: { request: JSON.stringify({ messages: [{ role: EVIL, content: EVIL }], [EVIL]: EVIL }), response: JSON.stringify({ choices: [{ message: { content: EVIL, tool_calls: [{ function: { name: EVIL, arguments: EVIL } }] }, finish_reason: EVIL }] }) },
      end: { model: EVIL, error: EVIL, outcome: EVIL },
    });
    feed.exchange(2, { start: { path: '__proto__', fields: null }, head: { fields: null }, end: { model: {}, input_tokens: 'x', status: '<b>', outcome: 'toString' } });
    await requestRow(page, '__proto__').click();
    await requestRow(page, '/<img').click();
    await page.getByText(`calls ${EVIL}`).waitFor();
    for (const summary of await page.locator('#requests summary').all()) await summary.click();
    assert.equal(await page.locator('img:not(h1 img), script:not([type=module]), b').count(), 0);
    await page.keyboard.press('Escape');
    await page.keyboard.press('c');
    const words = execFileSync('sh', ['-c', `curl() { printf '%s\\0' "$@"; }\n${await clipboard(page)}`], { env: {} }).toString();
    assert.ok(words.includes(`${EVIL}: ${EVIL}`), words);
  });
});

check('requests of real interceptors appear as they start, and end', async (home) => {
  await home.serve('shop', '--mock-interval-ms', '150');
  const { url } = await home.ui();
  await onPage(url, async (page) => {
    await page.keyboard.press('2');
    await button(page, 'Record shop').waitFor();
    const chat = (content, more) => fetchOnce(`http://127.0.0.1:${home.port}/v1/chat/completions?key=secret`, {
      method: 'POST', headers: { 'Content-Type': 'application/json', Authorization: 'Bearer sk-very-secret-0123456789abcdef' },
      body: JSON.stringify({ model: 'mock-1', stream: true, stream_options: { include_usage: true }, messages: [{ role: 'user', content }], ...more }),
    });
    const answer = await chat('Hello there');
    const row = requestRow(page, '/v1/chat/completions').first();
    await row.and(page.locator('[data-state=open]')).waitFor();
    await row.filter({ hasText: '200' }).waitFor();
    await answer.text();
    await row.and(page.locator('[data-state=done]')).waitFor();
    await row.filter({ hasText: 'mock-1' }).filter({ hasText: '→' }).waitFor();
    assert.match(await row.locator('.duration').textContent(), /^\d.* m?s$/);
    assert.match(await row.locator('.pace').textContent(), /^\d+\.\d$/);
    assert.ok(await row.locator('.body').evaluate((bar) => bar.getBoundingClientRect().width) > 20, 'the waterfall');
    await row.click();
    await page.getByText('Bodies are recorded while recording is on').waitFor();
    assert.doesNotMatch(await page.locator('#requests').textContent(), /secret/);

    await button(page, 'Record shop').click();
    await button(page, 'Recording shop').waitFor();
    await (await chat('What is new?')).text();
    const [first, second] = [{ role: 'user', content: 'What is new?' }, { role: 'assistant', content: 'Nothing.' }];
    await (await chat('', { messages: [first, second, { role: 'user', content: 'And now sk-very-secret-0123456789abcdef?' }] })).text();
    await until('three rows', async () => await requestRow(page, 'chat').count() === 3);
    await page.locator('#requests-list .row[aria-rowindex="2"]').click();
    await page.getByText('1 message as before').waitFor();
    assert.equal(await page.locator('.message.new').count(), 2);
    await page.locator('.message', { hasText: 'You said:' }).first().waitFor();
    await page.getByText('Ended: stop').waitFor();
    assert.doesNotMatch(await page.locator('#requests').textContent(), /very-secret/);
    await shot(page, 'request');
    await page.getByRole('button', { name: 'Show that request' }).click();
    await page.locator('#requests-list .row[aria-rowindex="3"][aria-selected=true]').waitFor();

    // The copied command works with the key in the environment.
    await button(page, 'Copy as curl').click();
    await toast(page, 'Copied as curl').waitFor();
    const command = await clipboard(page);
    assert.match(command, /-H "Authorization: Bearer \$API_KEY"/);
    const repeated = execFileSync('sh', ['-c', `${command} -sS`], { env: { PATH: process.env.PATH, API_KEY: 'k' }, encoding: 'utf8' });
    assert.match(repeated, /data: \[DONE\]/);
    await until('a fourth row', async () => await requestRow(page, 'chat').count() === 4);

    // A page that is opened later gets the requests, with the bodies that were recorded.
    await onPage(url, async (later) => {
      await later.keyboard.press('2');
      await button(later, 'Recording shop').waitFor();
      await until('the requests', async () => await requestRow(later, 'chat').count() === 4);
      await later.locator('#requests-list .row[aria-rowindex="2"]').click();
      await later.locator('.message', { hasText: 'You said:' }).first().waitFor();
      await later.locator('#requests-list .row[aria-rowindex="5"]').click();
      await later.getByText('No body was recorded for this request').waitFor();
    });
    await button(page, 'Recording shop').click();
    await button(page, 'Record shop').waitFor();
  });
});

check('requests of one process for all projects are those of their projects', async (home) => {
  three(home);
  const notes = home.port + 2;
  await home.start(['serve', '--all', '--mock'], /^\d+ projects?/m);
  const { url } = await home.ui();
  const ask = (port) => fetchOnce(`http://127.0.0.1:${port}/v1/models`).then((answer) => answer.text());
  await onPage(url, async (page) => {
    await projectRow(page, 'shop').filter({ has: page.locator('.dot[aria-label=Running]') }).waitFor();
    await projectRow(page, 'notes').filter({ has: page.locator('.dot[aria-label=Running]') }).waitFor();
    await page.keyboard.press('2');
    await button(page, 'Record all').waitFor();
    await ask(home.port);
    await ask(notes);
    const rows = page.locator('#requests-list .row');
    await rows.filter({ hasText: 'shop' }).waitFor();
    await rows.filter({ hasText: 'notes' }).waitFor();
    await page.locator('#requests select').selectOption({ label: `notes · ${notes}` });
    await rows.filter({ hasText: 'shop' }).waitFor({ state: 'detached' });
    assert.equal(await rows.count(), 1);

    // A project that comes later has requests too; those of one that goes can still be chosen.
    home.mkdir('later');
    const port = Number(home.ic('allocate', '-q', home.path('later')));
    await page.locator('#requests select option', { hasText: 'later' }).waitFor({ state: 'attached' });
    home.ic('remove', home.path('notes'));
    await page.locator('#requests select option', { hasText: `notes · ${notes}, ended` }).waitFor({ state: 'attached' });
    await page.locator('#requests select').selectOption('');
    await ask(port);
    await rows.filter({ hasText: 'later' }).waitFor();
  });
});

check('a failed request shows its message, its project and what ic adds, also after the interceptor ended', async (home) => {
  const feed = new Feed(home, 4242, { project: 'mine', path: '/work/mine', port: 8890 });
  const { url } = await home.ui();
  await onPage(url, async (page) => {
    await page.keyboard.press('2');
    await button(page, 'Record mine').waitFor();
    feed.exchange(1, { start: { path: '/v1/told', added: [['x-memory-user-id', 'mine'], ['Via', '1.1 ic']] }, head: { status: 429 }, end: { status: 429, message: 'You exceeded your quota.' } });
    feed.exchange(2, { start: { path: '/v1/read' }, head: { status: 400, fields: [['Content-Type', 'application/json']] }, bodies: { response: '{"error":{"message":"no such model"}}' }, end: { status: 400 } });
    feed.exchange(3, { start: { path: '/v1/good' }, head: { fields: [['Content-Type', 'application/json']] }, bodies: { response: '{"message":"welcome"}' } });
    const pane = page.getByRole('complementary', { name: 'Request' });
    const problem = pane.getByRole('group', { name: 'Error' });
    await requestRow(page, '/v1/told').click();
    await problem.getByText('You exceeded your quota.').waitFor();
    assert.notEqual(await problem.locator('p').evaluate((text) => getComputedStyle(text).userSelect), 'none');
    await problem.getByRole('button', { name: 'Copy' }).click();
    await toast(page, 'Copied the message').waitFor();
    assert.equal(await clipboard(page), 'You exceeded your quota.');
    assert.equal(await pane.locator('summary').first().textContent(), 'Added by ic');
    await pane.getByText('x-memory-user-id').waitFor();
    for (const width of [390, 1024, 1440]) {
      await page.setViewportSize({ width, height: 800 });
      await pane.getByText('mine · /work/mine · port 8890').waitFor();
      await shot(page, `error-${width}`);
    }
    await pane.getByRole('button', { name: 'Close' }).click();
    await requestRow(page, '/v1/read').click();
    await problem.getByText('no such model').waitFor();
    await requestRow(page, '/v1/good').click();
    await pane.getByText('welcome').waitFor({ state: 'attached' });
    assert.equal(await problem.isVisible(), false);
    await feed.end();
    await button(page, 'Record mine').waitFor({ state: 'detached' });
    await pane.getByText('mine · /work/mine · port 8890').waitFor();
  });
});

check('requests are filtered by text, project, class and errors', async (home) => {
  const feeds = [new Feed(home, 4242, { project: 'one', port: 1 }), new Feed(home, 4243, { project: 'two', port: 2 })];
  const { url } = await home.ui();
  await onPage(url, async (page) => {
    await page.keyboard.press('2');
    await page.locator('#requests select option', { hasText: 'two' }).waitFor({ state: 'attached' });
    await page.locator('#requests select option', { hasText: 'one' }).waitFor({ state: 'attached' });
    feeds[0].exchange(1, { start: { path: '/v1/good' }, end: { model: 'gpt' } });
    feeds[0].exchange(2, { start: { path: '/v1/limited' }, head: { status: 429 }, end: { status: 429 } });
    feeds[1].exchange(1, { start: { path: '/v1/broken' }, head: { status: 500 }, end: { status: 500 } });
    feeds[1].exchange(2, { start: { path: '/v1/left' }, end: { outcome: 'client_gone' } });
    const shows = (...expected) => until(String(expected), async () => {
      const found = await page.locator('#requests-list .what').allTextContents();
      return JSON.stringify(found.sort()) === JSON.stringify(expected.sort());
    });
    await shows('good', 'limited', 'broken', 'left');
    await button(page, /^Errors/).click();
    await shows('limited', 'broken');
    await button(page, /^Client left/).click();
    await shows('left');
    await button(page, /^4xx/).click();
    await shows('limited');
    await button(page, /^All\s*\d/).click();
    await page.locator('#requests select').selectOption('two:2');
    await shows('broken', 'left');
    await page.locator('#requests select').selectOption('');
    await page.keyboard.press('/');
    await page.getByLabel('Filter').fill('GPT');
    await shows('good');
    await page.getByLabel('Filter').fill('one post');
    await shows('good', 'limited');
    await page.getByLabel('Filter').fill('one -good');
    await shows('limited');
    feeds[0].exchange(3, { start: { path: '/v1/said' }, bodies: { request: 'a purple cow' } });
    await page.getByLabel('Filter').fill('body:"purple cow"');
    await shows('said');
    await page.getByLabel('Filter').fill('');
    await button(page, 'Clear').click();
    await page.getByText('Requests appear here as they start').waitFor();
  });
});

for (const width of [390, 1024, 1440]) {
  check(`every click hits the row under the pointer while requests stream at ${width} pixels`, async (home) => {
    const feed = new Feed(home, 4242);
    const { url } = await home.ui();
    await onPage(url, async (page) => {
      await page.keyboard.press('2');
      await button(page, 'Record played').waitFor();
      let id = 0;
      const stream = setInterval(() => feed.exchange(++id), 20);
      try {
        await until('a full list', async () => await page.locator('#requests-list .row').count() > 12);
        for (let n = 0; n < 16; n++) {
          await page.mouse.move(150 + n, 300 + (n % 4) * 50);
          // What is painted: rows can have another height once the pane has closed.
          const under = await page.evaluate(async ([x, y]) => {
            for (let frame = 0; frame < 2; frame++) await new Promise(requestAnimationFrame);
            return document.elementFromPoint(x, y).closest('.row').id;
          }, [150 + n, 300 + (n % 4) * 50]);
          // A hand takes this long.
          const seen = id;
          await until('more requests', () => id > seen + 10);
          await page.mouse.down();
          await page.mouse.up();
          assert.equal(await page.locator('#requests-list .row[aria-selected=true]').getAttribute('id'), under);
          await page.locator('#requests aside').getByRole('heading').waitFor();
          await page.keyboard.press('Escape');
        }
        await page.mouse.move(5, 5);
        await page.keyboard.press('Space');
        await button(page, 'Paused').waitFor();
        const [first] = await page.locator('#requests-list .row[aria-rowindex="2"]').evaluateAll((rows) => rows.map((row) => row.id));
        await page.locator('.pill', { hasText: /^↑ \d+ new$/ }).filter({ visible: true }).waitFor();
        assert.equal(await page.locator('#requests-list .row[aria-rowindex="2"]').getAttribute('id'), first);
        await page.keyboard.press('f');
        await button(page, 'Pause').waitFor();
        await until('it goes on', async () => await page.locator('#requests-list .row[aria-rowindex="2"]').getAttribute('id') !== first);
      } finally {
        clearInterval(stream);
      }
    }, { viewport: { width, height: 760 } });
    await feed.end();
  });
}

check('what is shown is in the address, and Back leads to what was shown before', async (home) => {
  const feed = new Feed(home, 4242, { project: 'shop', port: 8888 });
  const { url } = await home.ui();
  await onPage(url, async (page) => {
    await page.keyboard.press('2');
    await page.waitForURL(/#\/requests$/);
    await button(page, 'Record shop').waitFor();
    feed.exchange(1, { start: { path: '/v1/good' } });
    feed.exchange(2, { start: { path: '/v1/bad' }, head: { status: 500 }, end: { status: 500, message: 'the model is overloaded' } });
    await page.locator('#requests-list .row .message', { hasText: 'the model is overloaded' }).waitFor();
    await page.locator('#requests select').selectOption('shop:8888');
    await page.waitForURL(/#\/requests\/shop:8888$/);
    await button(page, /^Errors/).click();
    await page.getByLabel('Filter').fill('bad');
    await page.waitForURL(/#\/requests\/shop:8888\?show=errors&q=bad$/);
    await requestRow(page, 'bad').click();
    await page.waitForURL(/#\/requests\/shop:8888\/4242-2\?show=errors&q=bad$/);
    await page.keyboard.press('l');
    assert.equal(await clipboard(page), `${new URL(url).origin}/#/requests/shop:8888/4242-2`);
    await page.goBack();
    await page.locator('#requests aside').waitFor({ state: 'hidden' });
    await page.goForward();
    await page.getByRole('heading', { name: 'POST /v1/bad' }).waitFor();
    await page.reload();
    await button(page, 'Record shop').waitFor();
    assert.equal(await page.getByLabel('Filter').inputValue(), 'bad');
    assert.equal(await page.locator('#requests select').inputValue(), 'shop:8888');
    assert.equal(await button(page, /^Errors/).getAttribute('aria-pressed'), 'true');
    await page.getByRole('heading', { name: 'POST /v1/bad' }).waitFor();
    // An open request stays open, whatever the filter shows.
    await page.getByLabel('Filter').fill('nothing');
    await page.getByText('No request matches').waitFor();
    await button(page, 'Clear').click();
    assert.ok(await page.getByRole('heading', { name: 'POST /v1/bad' }).isVisible());
    await page.getByRole('tab', { name: 'Projects' }).click();
    feed.exchange(7, { head: { status: 500 }, end: { status: 500 } });
    await until('the title', async () => await page.title() === '(1) ic');
    await page.keyboard.press('2');
    await until('the title', async () => await page.title() === 'ic');
  });
  await feed.end();
});

check('a page that is opened or reloaded has the last requests, and a link opens one', async (home) => {
  const feed = new Feed(home, 4242);
  const other = new Feed(home, 4343, { project: 'other', port: 10 });
  const { url } = await home.ui();
  const now = Date.now() / 1000;
  const send = () => {
    feed.exchange(1, { start: { at: now - 60 }, head: { status: 500 }, end: { status: 500, message: 'the model is overloaded' } });
    feed.exchange(3, { start: { at: now - 40 } });
    other.exchange(2, { start: { at: now - 50 } });
  };
  const both = (page) => until('both interceptors', async () => (await page.locator('#requests select').innerText()).split('\n').join() === 'All projects,played · 9,other · 10');
  await onPage(url, async (page) => {
    await page.keyboard.press('2');
    await both(page);
  });
  send();
  feed.send({ event: 'start', id: 4, at: now - 30, method: 'GET', path: '/v1/n4', fields: [] });
  const rows = (page) => page.locator('#requests-list .row').evaluateAll((all) => all
    .sort((a, b) => a.getAttribute('aria-rowindex') - b.getAttribute('aria-rowindex')).map((row) => row.querySelector('.what').textContent).join(' '));
  await onPage(url, async (page) => {
    await page.keyboard.press('2');
    await until('all in the order of time', async () => await rows(page) === 'n4 n3 n2 n1');
    await requestRow(page, 'n4').and(page.locator('[data-state=open]')).waitFor();
    assert.equal(await page.title(), 'ic', 'old failures are none that were missed');
    await requestRow(page, 'n1').click();
    await page.locator('#requests aside', { hasText: 'the model is overloaded' }).waitFor();
    // What an interceptor sends again after the connection to it was lost is not shown twice.
    for (const one of [feed, other]) one.disconnect();
    await until('each once', async () => {
      send();
      feed.exchange(5, { start: { at: now - 20 } });
      other.exchange(6, { start: { at: now - 10 } });
      return await rows(page) === 'n6 n5 n4 n3 n2 n1';
    });
    await feed.end();
    await page.locator('#requests select option', { hasText: 'played · 9, ended' }).waitFor({ state: 'attached' });
    await page.reload();
    await page.getByRole('heading', { name: 'POST /v1/n1' }).waitFor();
    await until('all but the one without an end', async () => await rows(page) === 'n6 n5 n3 n2 n1');
    await page.locator('#requests select option', { hasText: 'played · 9, ended' }).waitFor({ state: 'attached' });
    await button(page, 'Record other').waitFor();
  });
  await onPage(`${url.split('#')[0]}#/requests/all/4343-2`, async (page) => {
    await page.getByLabel('Address or token').fill(url);
    await page.keyboard.press('Enter');
    await page.getByRole('heading', { name: 'POST /v1/n2' }).waitFor();
  }, { expects: /status of 401/ });
});

check('requests are sorted by a column, with the keyboard too, and the border of the pane moves', async (home) => {
  const feed = new Feed(home, 4242);
  const { url } = await home.ui();
  await onPage(url, async (page) => {
    await page.keyboard.press('2');
    await button(page, 'Record played').waitFor();
    for (const [id, duration_ms] of [[1, 50], [2, 900], [3, 7]]) feed.exchange(id, { end: { duration_ms } });
    await requestRow(page, 'n3').waitFor();
    const order = () => page.locator('#requests-list .row').evaluateAll((rows) => rows
      .sort((a, b) => a.getAttribute('aria-rowindex') - b.getAttribute('aria-rowindex')).map((row) => row.querySelector('.what').textContent).join(' '));
    await button(page, 'Duration').focus();
    await page.keyboard.press('Enter');
    await until('the longest first', async () => await order() === 'n2 n1 n3');
    assert.equal(await page.locator('#requests-list [aria-sort=descending]').textContent(), 'Duration');
    await page.keyboard.press('Enter');
    await until('the shortest first', async () => await order() === 'n3 n1 n2');
    await requestRow(page, 'n1').click();
    const pane = page.locator('#requests aside');
    const before = (await pane.boundingBox()).width;
    await page.getByRole('separator').and(page.locator('#requests *')).focus();
    for (let n = 0; n < 5; n++) await page.keyboard.press('ArrowLeft');
    const after = (await pane.boundingBox()).width;
    assert.ok(after > before + 50, `${before} ${after}`);
    const grip = await page.locator('#requests .grip').boundingBox();
    await page.mouse.move(grip.x + 4, 400);
    await page.mouse.down();
    await page.mouse.move(grip.x + 204, 400);
    await page.mouse.up();
    assert.ok((await pane.boundingBox()).width < after - 150);
  });
  await feed.end();
});

check('recorded requests are grouped by conversation', async (home) => {
  const feed = new Feed(home, 4242);
  const { url } = await home.ui();
  await onPage(url, async (page) => {
    await page.keyboard.press('2');
    await button(page, 'Record played').click();
    await button(page, 'Recording played').waitFor();
    const said = [{ role: 'user', content: 'Hello cow' }];
    for (let id = 1; id <= 3; id++) {
      feed.exchange(id, { start: { path: '/v1/chat/completions' }, bodies: { request: JSON.stringify({ messages: said }) }, end: { duration_ms: 1000, input_tokens: 1000, output_tokens: 100, cached_tokens: 600 } });
      said.push({ role: 'assistant', content: 'Moo' }, { role: 'user', content: `And ${id}?` });
    }
    feed.exchange(4, { bodies: { request: JSON.stringify({ messages: [{ role: 'user', content: 'Another' }] }) } });
    await page.locator('.said', { hasText: 'And 2?' }).waitFor();
    await button(page, 'Conversations').click();
    const group = page.locator('#requests-list .row[aria-expanded]');
    await group.filter({ hasText: '3 turns' }).filter({ hasText: '1.8k cached' }).filter({ hasText: '3.00 s' }).filter({ hasText: '3.0k → 300' }).filter({ hasText: 'And 2?' }).waitFor();
    assert.equal(await page.locator('#requests-list .row').count(), 2);
    await group.click();
    await until('its requests', async () => await page.locator('#requests-list .row').count() === 5);
    await page.keyboard.press('ArrowLeft');
    await until('folded', async () => await page.locator('#requests-list .row').count() === 2);
    // Where a key moves the border of the pane, it does nothing else.
    await page.locator('#requests-list .row', { hasText: 'Another' }).click();
    await page.getByRole('heading', { name: 'POST /v1/n4' }).waitFor();
    await group.click();
    await until('its requests', async () => await page.locator('#requests-list .row').count() === 5);
    const grip = page.locator('#requests').getByRole('separator');
    const share = await grip.getAttribute('aria-valuenow');
    await grip.press('ArrowLeft');
    assert.equal(Number(await grip.getAttribute('aria-valuenow')), Number(share) + 2);
    await page.waitForTimeout(100);
    assert.equal(await page.locator('#requests-list .row').count(), 5, 'it is not folded');
  });
  await feed.end();
});

check('requests show what they cost, as the target says, or by the prices of their tokens', async (home) => {
  fs.writeFileSync(home.path('prices.json'), JSON.stringify({
    'gpt-4o': { input_cost_per_token: 2.5e-6, output_cost_per_token: 1e-5, cache_read_input_token_cost: 1.25e-6, litellm_provider: 'openai' },
    'text-embedding-3-small': { input_cost_per_token: 2e-8, output_cost_per_token: 0 },
  }));
  const feed = new Feed(home, 4242);
  const { url } = await home.ui('--prices', home.path('prices.json'));
  await onPage(url, async (page) => {
    await page.keyboard.press('2');
    await button(page, 'Record played').click();
    await button(page, 'Recording played').waitFor();
    const facts = (text) => page.locator('#requests p.facts', { hasText: text }).waitFor();
    const end = { input_tokens: 10_000, cached_tokens: 4000, output_tokens: 1000 };
    const chat = (...said) => ({ request: JSON.stringify({ messages: said.map((content) => ({ role: 'user', content })) }) });
    feed.exchange(1, { start: { path: '/v1/chat/completions' }, bodies: chat('one'), end: { ...end, model: 'openai/gpt-4o', cost: 0.5 } });
    await facts(/, \$0\.50, /);
    // 6000 × 2.5e-6 + 4000 × 1.25e-6 + 1000 × 1e-5
    feed.exchange(2, { start: { path: '/v1/chat/completions' }, bodies: chat('one', 'two'), end: { ...end, model: 'openai/gpt-4o' } });
    await facts(/, ≈ \$0\.53, /);
    feed.exchange(3, { end: { input_tokens: 500, model: 'text-embedding-3-small' } });
    feed.exchange(4, { start: { path: '/v1/models' } });
    await facts(/^4 requests.*, ≈ \$0\.53, /);
    await requestRow(page, 'n3').click();
    const fact = (name) => page.locator('#requests dt', { hasText: name }).locator('xpath=following-sibling::dd[1]');
    assert.equal(await fact('Cost').textContent(), '≈ $0.00001');
    await requestRow(page, 'models').click();
    assert.equal(await fact('Cost').isVisible(), false);
    await page.keyboard.press('Escape');
    feed.exchange(5, { start: { path: '/v1/unpriced' }, end: { ...end, model: '__proto__' } });
    await facts(/, at least \$0\.53, /);
    await page.getByLabel('Filter').fill('unpriced');
    await facts(/^1 request · 10k → 1\.0k, 4\.0k cached, 50 ms/);
    await page.getByLabel('Filter').fill('');
    await button(page, 'Conversations').click();
    await page.locator('#requests-list .row[aria-expanded]', { hasText: '8.0k cached, ≈ $0.53' }).waitFor();
  });
  await feed.end();
});

check('what the filter shows is saved as an HTTP Archive', async (home) => {
  await home.serve('shop');
  const feed = new Feed(home, 4242);
  const { url } = await home.ui();
  await onPage(url, async (page) => {
    await page.keyboard.press('2');
    await button(page, 'Record all').click();
    await button(page, /^Recording \d of \d/).waitFor();
    await (await fetchOnce(`http://127.0.0.1:${home.port}/v1/chat/completions?key=secret&n=1`, {
      method: 'POST', headers: { 'Content-Type': 'application/json', Authorization: 'Bearer sk-very-secret-0123456789abcdef' },
      body: JSON.stringify({ model: 'mock-1', messages: [{ role: 'user', content: 'Hello' }] }),
    })).text();
    feed.exchange(1, { start: { path: '/v1/odd/\ud800\u0000', version: '1.0', fields: null }, head: { status: null, fields: null }, end: { status: null, outcome: 'error', error: 'refused' } });
    feed.send({ event: 'start', id: 2, at: Date.now() / 1000, method: 'GET', path: '/v1/open', fields: [] });
    feed.exchange(3, { start: { path: '/v1/left out' } });
    await requestRow(page, 'left out').waitFor();
    await until('the answer', async () => /done/.test(await requestRow(page, /chat/).getAttribute('data-state')));
    await page.getByLabel('Filter').fill('-out');
    await requestRow(page, 'left out').waitFor({ state: 'detached' });
    const [saved] = await Promise.all([page.waitForEvent('download'), button(page, 'Export HAR').click()]);
    assert.equal(saved.suggestedFilename(), 'requests.har');
    const text = fs.readFileSync(await saved.path(), 'utf8');
    assert.doesNotMatch(text, /secret/);
    const { log } = JSON.parse(text);
    assert.deepEqual(Object.keys(log), ['version', 'creator', 'entries']);
    assert.equal(log.version, '1.2');
    assert.equal(log.creator.name, 'ic');
    for (const entry of log.entries) isEntry(entry);
    const [chat, odd, open] = log.entries;
    assert.equal(log.entries.length, 3, text);
    assert.match(chat.request.url, new RegExp(`^http://localhost:${home.port}/v1/chat/completions\\?key=`));
    assert.deepEqual(chat.request.queryString[0], { name: 'key', value: '…' });
    assert.equal(JSON.parse(chat.request.postData.text).messages[0].content, 'Hello');
    assert.match(JSON.parse(chat.response.content.text).choices[0].message.content, /Hello/);
    assert.deepEqual([chat.response.status, chat._project, chat._model], [200, 'shop', 'mock-1']);
    assert.deepEqual([odd.response.status, odd._outcome, open.response.status, open.request.method], [0, 'error', 0, 'GET']);
  });
  await feed.end();
});

/** Checks that an entry has the members that HAR 1.2 requires, with values of their types. */
function isEntry(entry) {
  assert.match(entry.startedDateTime, /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/);
  const has = (object, type, ...names) => names.forEach((name) => assert.equal(typeof object[name], type, `${name} in ${JSON.stringify(object)}`));
  has(entry, 'number', 'time');
  has(entry.timings, 'number', 'send', 'wait', 'receive');
  assert.ok(Math.abs(entry.timings.send + entry.timings.wait + entry.timings.receive - entry.time) < 1e-6 && entry.time >= 0);
  assert.deepEqual(entry.cache, {});
  has(entry.request, 'string', 'method', 'url', 'httpVersion');
  assert.ok(URL.canParse(entry.request.url) && /^[\x21-\x7e]+$/.test(entry.request.url), entry.request.url);
  has(entry.response, 'string', 'statusText', 'httpVersion', 'redirectURL');
  has(entry.response, 'number', 'status');
  has(entry.response.content, 'number', 'size');
  has(entry.response.content, 'string', 'mimeType');
  for (const side of [entry.request, entry.response]) {
    has(side, 'number', 'headersSize', 'bodySize');
    assert.deepEqual(side.cookies, []);
    for (const header of [...side.headers, ...(side.queryString ?? [])]) has(header, 'string', 'name', 'value');
  }
  assert.ok(Array.isArray(entry.request.queryString));
}

check('a page keeps the last two thousand of ten thousand requests, and only visible rows are in the document', async (home) => {
  const feed = new Feed(home, 4242);
  const { url } = await home.ui();
  await onPage(url, async (page) => {
    await page.keyboard.press('2');
    await button(page, 'Record played').waitFor();
    const send = async (from, to) => {
      for (let id = from; id <= to; id++) {
        feed.exchange(id, { start: { at: 1_700_000_000 + id } });
        // As fast as the page reads.
        if (id % 200 === 0) await requestRow(page, new RegExp(`^n${id}$`)).waitFor();
      }
      const session = await page.context().newCDPSession(page);
      await session.send('HeapProfiler.collectGarbage');
      return (await session.send('Runtime.getHeapUsage')).usedSize / 1e6;
    };
    const early = await send(1, 3000);
    const late = await send(3001, 10_000);
    assert.ok(late < early * 1.1, `${early} MB after 3000 requests, ${late} MB after 10000`);
    await page.getByText('the last 2\u2009000 are kept').waitFor();
    assert.ok(await page.locator('#requests-list .row').count() < 60);
    // The visible rows stay in place while others wait.
    const list = page.locator('#requests-list .scroller');
    await list.evaluate((scroller) => (scroller.scrollTop = 3000));
    const inView = () => page.evaluate(() => document.elementFromPoint(400, 400).closest('.row').querySelector('.what').textContent);
    await until('rows', () => page.evaluate(() => Boolean(document.elementFromPoint(400, 400).closest('.row'))));
    const before = await inView();
    for (let id = 10_001; id <= 10_010; id++) feed.exchange(id, { start: { at: 1_700_000_000 + id } });
    await button(page, '↑ 10 new').waitFor();
    assert.equal(await list.evaluate((scroller) => scroller.scrollTop), 3000);
    assert.equal(await inView(), before);
    await button(page, '↑ 10 new').click();
    await requestRow(page, /^n10010$/).waitFor();
    assert.equal(await list.evaluate((scroller) => scroller.scrollTop), 0);
    feed.send({ event: 'lost', count: 7 });
    await page.getByText('7 lines missed').waitFor();
    // Requests that are open when the interceptor ends are not shown as in flight.
    feed.send({ event: 'start', id: 99_999, at: 1_800_000_000, method: 'GET', path: '/last', fields: [] });
    await list.evaluate((scroller) => (scroller.scrollTop = 0));
    await requestRow(page, '/last').waitFor();
    await feed.end();
    await requestRow(page, '/last').and(page.locator('[data-state=left]')).waitFor();
    await page.reload();
    await requestRow(page, /^n10010$/).waitFor();
    await page.getByText('1\u2009999 requests').waitFor();
    assert.ok(await page.locator('#requests-list .row').count() < 60);
  });
});

check('the page needs the token, and removes it from the address bar', async (home) => {
  three(home);
  const { url } = await home.ui();
  const [address, token] = url.split('#token=');
  await onPage(address, async (page) => {
    await page.getByRole('heading', { name: 'Open the printed address' }).waitFor();
    assert.equal(await page.locator('#projects-list .row').count(), 0);
    // A field of a request can have no quotation marks like these.
    for (const wrong of ['0'.repeat(32), '“0”']) {
      await page.getByLabel('Address or token').fill(wrong);
      await page.keyboard.press('Enter');
      await page.getByText('The token was refused').waitFor();
      await until('another question', async () => await page.getByLabel('Address or token').inputValue() === '');
    }
    await page.getByLabel('Address or token').fill(url);
    await page.keyboard.press('Enter');
    await projectRow(page, 'shop').waitFor();
    await page.reload();
    await projectRow(page, 'shop').waitFor();
  }, { expects: /status of 401/ });
  await onPage(url, async (page) => {
    await projectRow(page, 'shop').waitFor();
    assert.equal(page.url(), address);
    assert.ok(!(await page.content()).includes(token));
    assert.deepEqual(await page.context().cookies(), []);
  });
});

check('`ic ui` opens the browser with a code that is valid once', async (home) => {
  three(home);
  fs.mkdirSync(home.path('bin'));
  fs.writeFileSync(home.path('bin/xdg-open'), `#!/bin/sh\nprintf %s "$1" >"${home.path('opened.new')}" && mv "${home.path('opened.new')}" "${home.path('opened')}"\n`, { mode: 0o755 });
  const environment = { DISPLAY: ':9', PATH: `${home.path('bin')}:${process.env.PATH}` };
  const { found } = await home.start(['ui', '--port', '0'], /^(http:\S+)\n/m, { environment });
  const opened = await until('the browser', () => fs.existsSync(home.path('opened')) && fs.readFileSync(home.path('opened'), 'utf8'));
  assert.match(opened, /^\/.*\.html$/, 'every user can read command lines');
  const [code] = fs.readFileSync(opened, 'utf8').match(/#code=[0-9a-f]{32}/);
  const { host } = new URL(found[1]);
  await onPage(`file://${opened}`, (page) => projectRow(page, 'shop').waitFor(), { host });
  assert.ok(!fs.existsSync(opened), 'removed after use');
  await onPage(`${found[1].split('#')[0]}${code}`, (page) => page.getByText('this address was valid once').waitFor(), { expects: /status of 401/ });
});

check('no other page can frame it, send it requests, or read from it', async (home) => {
  three(home);
  const { url } = await home.ui();
  const [address, token] = url.split('#token=');
  const before = fs.readFileSync(home.registry, 'utf8');
  const evil = home.ends(http.createServer((_, response) => response.setHeader('Content-Type', 'text/html').end(`<!doctype html><title>evil</title><iframe src="${url}"></iframe>`)));
  await new Promise((resolve) => evil.listen(0, '127.0.0.1', resolve));
  const expects = /./;
  await onPage(`http://127.0.0.1:${evil.address().port}/`, async (page) => {
    await until('a frame', () => page.frames().length === 2);
    const framed = await until('the frame', () => page.frames()[1].url() !== '' && page.frames()[1]);
    assert.equal(await framed.locator('header').count(), 0, 'not framed');
    const outcomes = await page.evaluate(async ([address, token, path]) => {
      const ask = (name, options) => fetch(`${address}api/${name}`, options).then(() => 'answered', () => 'refused');
      const body = JSON.stringify({ path });
      return [
        await ask('export?format=json', {}),
        await ask('export?format=json', { headers: { 'X-Ic-Token': token } }),
        await ask('remove', { method: 'POST', headers: { 'X-Ic-Token': token, 'Content-Type': 'application/json' }, body }),
        await fetch(`${address}api/remove`, { method: 'POST', mode: 'no-cors', body }).then((response) => response.type, () => 'refused'),
      ];
    }, [address, token, home.path('shop')]);
    assert.deepEqual(outcomes, ['refused', 'refused', 'refused', 'refused']);
  }, { expects });
  assert.equal(fs.readFileSync(home.registry, 'utf8'), before);
});

check('a page reconnects to `ic ui`, and shows when it is disconnected', async (home) => {
  three(home);
  const { child, url } = await home.ui();
  const { port } = new URL(url);
  await onPage(url, async (page) => {
    await projectRow(page, 'shop').waitFor();
    await live(page);
    child.removeAllListeners('exit').kill('SIGTERM');
    await page.getByText('Reconnecting…').waitFor();
    await page.locator('#banner', { hasText: `ic ui --port ${port}` }).waitFor();
    await page.locator('body[data-gone]').waitFor();
    await choose(page, 'Export');
    await toast(page, 'does not answer').waitFor();
    // A restarted `ic ui` has another secret.
    const { found } = await home.start(['ui', '--no-open', '--port', port], /^(http:\S+)\n/m);
    await page.getByLabel('Address or token').fill(found[1]);
    await page.keyboard.press('Enter');
    await live(page);
  }, { expects: /ERR_|status of 401|Failed to load/ });
});

check('a damaged registry is shown with a warning', async (home) => {
  three(home);
  fs.writeFileSync(home.registry, fs.readFileSync(home.registry, 'utf8').slice(0, -60));
  const { url } = await home.ui();
  await onPage(url, async (page) => {
    await page.locator('#banner', { hasText: 'damaged' }).waitFor();
    await projectRow(page, 'shop').waitFor();
  });
});

check('the page fits a phone', async (home) => {
  three(home);
  const feed = new Feed(home, 4242);
  const { url } = await home.ui();
  await onPage(url, async (page) => {
    const fits = async (where) => {
      const wide = await page.evaluate(() => [document.scrollingElement.scrollWidth, ...[...document.querySelectorAll('main > section:not([hidden]), .pane:not([hidden]), dialog')]
        .map((one) => one.getBoundingClientRect().right)]);
      assert.ok(wide.every((right) => right <= 360), `${where}: ${wide}`);
    };
    await projectRow(page, 'shop').waitFor();
    await fits('projects');
    await shot(page, 'phone-projects');
    for (const name of ['Allocate…', 'Registry']) {
      await button(page, name).first().scrollIntoViewIfNeeded();
      const box = await button(page, name).first().boundingBox();
      assert.ok(box.x >= 0 && box.x + box.width <= 361 && box.height >= 32, `${name} can be reached and hit: ${JSON.stringify(box)}`);
    }
    await projectRow(page, 'shop').tap();
    await page.getByRole('heading', { name: 'shop' }).waitFor();
    await fits('a project');
    await shot(page, 'phone-project');
    await page.getByRole('button', { name: 'Pin', exact: true }).tap();
    await toast(page, 'Pinned shop').waitFor();
    await page.getByRole('button', { name: 'Close' }).tap();
    await button(page, 'Allocate…').tap();
    await fits('a dialog');
    await shot(page, 'phone-dialog');
    await button(page, 'Cancel').tap();
    await page.getByRole('tab', { name: 'Requests' }).tap();
    await button(page, 'Record played').waitFor();
    feed.exchange(1, { start: { path: '/v1/chat/completions/with/a/rather/long/path', fields: [['A-Rather-Long-Name-Of-A-Field', 'x'.repeat(300)]] } });
    await fits('requests');
    await requestRow(page, '/v1/chat').tap();
    await page.getByRole('heading', { name: 'POST /v1/chat' }).waitFor();
    await page.getByText('Request fields').tap();
    await fits('a request');
    await shot(page, 'phone-request');
  }, { viewport: { width: 360, height: 740 }, hasTouch: true, isMobile: true, deviceScaleFactor: 2 });
});
