// What the page says about connecting clients, and the menu of the registry: on a phone and on a wide screen.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import { after, before } from 'node:test';
import { check, fetchOnce, launch, onPage, shot, shutDown, until } from './support.mjs';

before(launch);
after(() => shutDown());

const WIDTHS = [390, 1440];
const at = (width) => ({ viewport: { width, height: 844 } });
const clipboard = (page) => page.evaluate(() => navigator.clipboard.readText());
const button = (page, name) => page.getByRole('button', { name, exact: true });
const toast = (page, text) => page.locator('.toast', { hasText: text });
const row = (page, home, name) => page.locator('#projects-list .row', { hasText: home.path(name) });
const connect = (page) => page.getByRole('region', { name: 'Connect' });
const tab = (page, name) => connect(page).getByRole('tab', { name, exact: true });
const shownText = (page) => connect(page).getByRole('tabpanel').locator('pre').textContent();

/** Fails if something reaches over the right edge. */
async function fits(page, width) {
  const wide = await page.evaluate(() => [...document.querySelectorAll('main *, dialog *')]
    .filter((one) => one.checkVisibility({ visibilityProperty: true }) && !one.closest('.chips, .scroller'))
    .map((one) => [one.getBoundingClientRect().right, one.className, one.textContent.slice(0, 30)]).filter(([right]) => right > innerWidth + 0.5));
  assert.deepEqual(wide, [], `${width} pixels`);
}

for (const width of WIDTHS) {
  check(`a page without projects says what to do first at ${width} pixels`, async (home) => {
    const { url } = await home.ui();
    await onPage(url, async (page) => {
      const first = page.getByRole('region', { name: 'Connect a first project' });
      assert.deepEqual(await first.getByRole('heading', { level: 3 }).allTextContents(), ['Give the project a port', 'Start its interceptor', 'Point the client at it']);
      await fits(page, width);
      await shot(page, `first-${width}`);
      const copied = [];
      for (const one of await first.getByRole('button', { name: 'Copy the command' }).all()) {
        await one.click();
        copied.push(await clipboard(page));
      }
      assert.deepEqual(copied, ['ic allocate', 'ic serve', 'eval "$(ic env)"']);
      await first.getByRole('button', { name: 'Allocate…' }).click();
      await page.getByLabel('Folder').fill('~/shop');
      await page.keyboard.press('Enter');
      await connect(page).getByText('Not running').waitFor();
      assert.deepEqual(await connect(page).getByRole('heading', { level: 3 }).allTextContents(), ['Address', 'Not running', 'Point the client at it'], 'the same steps');
      await first.waitFor({ state: 'hidden' });
    }, at(width));
  });

  check(`the commands on a page for another registry use that one at ${width} pixels`, async (home) => {
    const registry = home.path('it\'s.json');
    const { url } = await home.ui('--registry', registry);
    await onPage(url, async (page) => {
      await page.getByText(`ic --registry '${home.path('it')}'\\''s.json' serve`).waitFor();
      await fits(page, width);
    }, at(width));
  });

  check(`a project's pane begins with how to connect to it at ${width} pixels`, async (home) => {
    home.mkdir('notes');
    home.writeRegistry({ [home.path('shop')]: home.port, [home.path('notes')]: home.port + 2 });
    const { url } = await home.ui();
    await onPage(url, async (page) => {
      await row(page, home, 'shop').click();
      await connect(page).waitFor();
      assert.ok(await page.locator('.pane:not([hidden]) > :nth-child(2)').evaluate((one) => one.matches('.connect')), 'the first thing below the title');
      for (const address of [`http://localhost:${home.port}/v1`, `http://localhost:${home.port}`]) {
        await connect(page).getByRole('button', { name: `Copy ${address}`, exact: true }).click();
        assert.equal(await clipboard(page), address);
        await toast(page, `Copied ${address}`).first().waitFor();
      }
      await tab(page, 'Claude Code').click();
      assert.equal(await shownText(page), home.ic('snippet', 'claude'));
      await fits(page, width);
      await shot(page, `connect-${width}`);
      await button(page, 'Copy the text for Claude Code').click();
      assert.equal(await clipboard(page), home.ic('snippet', 'claude'));

      // The command works in any folder, and the page notices.
      await button(page, 'Copy the command').click();
      const command = await clipboard(page);
      assert.equal(command, `ic serve --project ${home.path('shop')}`);
      await home.start([...command.split(' ').slice(1), '--mock'], /Port from:.*\n/, { cwd: 'notes' });
      await connect(page).getByRole('heading', { name: 'Running' }).waitFor();
      await button(page, 'Copy the command').waitFor({ state: 'detached' });
      await page.locator('.pane dd', { hasText: /^\d+, ic serve, for/ }).waitFor();
      await shot(page, `connect-running-${width}`);
      // Another project is shown for the same client.
      await button(page, 'Close').click();
      await row(page, home, 'notes').click();
      await until('its text', async () => (await shownText(page)).includes(String(home.port + 2)));
      assert.equal(await shownText(page), home.ic('snippet', 'claude', home.path('notes')));
      assert.equal(await tab(page, 'Claude Code').getAttribute('aria-selected'), 'true');
    }, at(width));
  });

  check(`the clients are chosen with the arrow keys at ${width} pixels`, async (home) => {
    home.ic('allocate');
    const { url } = await home.ui();
    await onPage(url, async (page) => {
      await row(page, home, 'shop').waitFor();
      await page.getByLabel('Filter').fill(home.folder);
      await page.keyboard.press('Enter');
      await page.keyboard.press('Enter');
      await tab(page, 'sh, bash, zsh').waitFor();
      assert.ok(await page.evaluate(() => Boolean(document.activeElement.closest('.pane'))), 'the focus is in the pane');
      await until('the tabs', async () => (await page.keyboard.press('Tab'), page.evaluate(() => document.activeElement.getAttribute('role') === 'tab')));
      const focused = () => page.evaluate(() => document.activeElement.textContent);
      const isChosen = async (name, text) => {
        assert.equal(await focused(), name);
        assert.equal(await tab(page, name).getAttribute('aria-selected'), 'true');
        assert.equal(await shownText(page), text, name);
      };
      await isChosen('sh, bash, zsh', home.ic('env'));
      await page.keyboard.press('ArrowRight');
      await isChosen('fish', home.ic('env', '--shell', 'fish'));
      await page.keyboard.press('End');
      await isChosen('goose', home.ic('snippet', 'goose'));
      await page.keyboard.press('ArrowRight');
      await isChosen('sh, bash, zsh', home.ic('env'));
      await page.keyboard.press('ArrowLeft');
      await page.keyboard.press('ArrowLeft');
      await isChosen('Zed', home.ic('snippet', 'zed'));
      // One stop of Tab; the next is the text.
      await page.keyboard.press('Tab');
      assert.equal(await page.evaluate(() => document.activeElement.tagName), 'PRE');
      await page.keyboard.press('Escape');
      await connect(page).waitFor({ state: 'hidden' });
    }, at(width));
  });

  check(`an installed service is started from a project's pane at ${width} pixels`, async (home) => {
    const bin = home.mkdir('bin');
    const pid = home.path('pid');
    const unit = home.path('.config/systemd/user/ic.service');
    fs.writeFileSync(`${bin}/systemctl`, `#!/bin/sh
case "$*" in
*show-environment) ;;
*show*) [ -e "${unit}" ] || { echo LoadState=not-found; exit; }
  echo LoadState=loaded; echo "FragmentPath=${unit}"
  [ -e "${pid}" ] && { echo ActiveState=active; echo "MainPID=$(cat "${pid}")"; } || { echo ActiveState=inactive; echo MainPID=0; } ;;
*restart*) "${process.env.IC}" serve --all --mock >"${home.path('log')}" 2>&1 & echo $! >"${pid}" ;;
esac
`, { mode: 0o755 });
    home.environment.PATH = `${bin}:${home.environment.PATH}`;
    home.ends({ end: () => fs.existsSync(pid) && process.kill(Number(fs.readFileSync(pid, 'utf8')), 'SIGKILL') });
    home.ic('allocate');
    const { url } = await home.ui();
    await onPage(url, async (page) => {
      await row(page, home, 'shop').click();
      await button(page, 'Copy the command').waitFor();
      assert.ok(await button(page, 'Start').isHidden(), 'no service is installed');
      await button(page, 'Close').click();
      fs.mkdirSync(home.path('.config/systemd/user'), { recursive: true });
      fs.writeFileSync(unit, '[Service]\n');
      await row(page, home, 'shop').click();
      await button(page, 'Start').click();
      await toast(page, 'Started shop').waitFor();
      await connect(page).getByRole('heading', { name: 'Running' }).waitFor();
      await page.locator('.pane dd', { hasText: /^\d+, ic serve --all, for/ }).waitFor();
      await button(page, 'Start').waitFor({ state: 'hidden' });
      assert.equal((await fetchOnce(`http://127.0.0.1:${home.port}/v1/models`)).status, 200);
    }, at(width));
  });

  check(`the menu of the registry has the keys of a menu at ${width} pixels`, async (home) => {
    home.ic('allocate');
    const { url } = await home.ui();
    await onPage(url, async (page) => {
      await row(page, home, 'shop').waitFor();
      for (const name of ['Prune…', 'Import…', 'Export', 'Undo']) assert.ok(await page.getByText(name, { exact: true }).isHidden(), `${name} is in the menu, or not needed`);
      const focused = () => page.evaluate(() => document.activeElement.textContent);
      const menu = page.getByRole('menu');
      await page.keyboard.press('m');
      await until('the first item', async () => await focused() === 'Prune…');
      await fits(page, width);
      await shot(page, `menu-${width}`);
      await page.keyboard.press('ArrowUp');
      assert.equal(await focused(), 'Export');
      await page.keyboard.press('ArrowDown');
      await page.keyboard.press('ArrowDown');
      assert.equal(await focused(), 'Import…');
      await page.keyboard.press('End');
      assert.equal(await focused(), 'Export');
      await page.keyboard.press('Escape');
      await menu.waitFor({ state: 'hidden' });
      const registry = button(page, 'Registry');
      await registry.focus();
      await page.keyboard.press('ArrowUp');
      await until('the last item', async () => await focused() === 'Export');
      assert.equal(await registry.getAttribute('aria-expanded'), 'true');
      await page.keyboard.press('Escape');
      await until('the focus on the button', async () => await focused() === 'Registry');
      await until('closed', async () => await registry.getAttribute('aria-expanded') === 'false');
      // The button opens and closes it; a click elsewhere closes it.
      await registry.click();
      await menu.waitFor();
      await registry.click();
      await menu.waitFor({ state: 'hidden' });
      await registry.click();
      await page.locator('#projects p.facts').click();
      await menu.waitFor({ state: 'hidden' });
      await page.keyboard.press('m');
      await until('open', async () => await focused() === 'Prune…');
      await page.keyboard.press('ArrowDown');
      await page.keyboard.press('Enter');
      await page.getByRole('heading', { name: 'Import mappings' }).waitFor();
    }, at(width));
  });

  check(`an import shows one row for each conflict at ${width} pixels`, async (home) => {
    const [shop, notes] = [home.path('shop'), home.path('notes')];
    home.writeRegistry({ [shop]: home.port, [notes]: home.port + 1 });
    const { url } = await home.ui();
    await onPage(url, async (page) => {
      await row(page, home, 'shop').waitFor();
      await page.keyboard.press('m');
      await page.getByRole('menuitem', { name: 'Import…' }).click();
      // Each has another port here, and its port belongs to the other.
      const file = JSON.stringify({ mappings: { [shop]: home.port + 1, [notes]: home.port, '/new': home.port + 7 } });
      await page.getByLabel('File', { exact: true }).setInputFiles({ name: 'ports.json', mimeType: 'text/plain', buffer: Buffer.from(file) });
      await page.getByText('2 conflicts: nothing is imported').waitFor();
      const rows = page.locator('.mapping');
      assert.equal(await rows.count(), 2);
      await rows.filter({ hasText: `has port ${home.port} here; here it is the port of ${notes}` }).waitFor();
      await page.getByLabel('Let the file win').check();
      await until('the new one too', async () => await rows.count() === 3);
      await fits(page, width);
      await shot(page, `conflicts-${width}`);
      await button(page, 'Import 3 mappings').click();
      await toast(page, 'Imported 3 mappings').waitFor();
      assert.deepEqual(home.mappings(), { [shop]: home.port + 1, [notes]: home.port, '/new': home.port + 7 });
    }, at(width));
  });
}

check('texts mark code and show no backticks, also those of errors', async (home) => {
  const { url } = await home.ui();
  await onPage(url, async (page) => {
    const none = async (where) => assert.doesNotMatch(await page.evaluate(() => document.body.innerText), /`/, where);
    await page.getByText('Connect a first project').waitFor();
    await none('first run');
    await page.keyboard.press('a');
    await page.locator('dialog code', { hasText: 'ic prune' }).waitFor();
    await page.getByLabel('Folder').fill('shop');
    await page.keyboard.press('Enter');
    await page.locator('.wrong code', { hasText: '~/' }).waitFor();
    await none('a refused folder');
    await page.getByLabel('Folder').fill('~/shop');
    await page.keyboard.press('Enter');
    for (const one of await connect(page).getByRole('tab').all()) {
      await one.click();
      assert.doesNotMatch(await connect(page).locator('.client p').textContent(), /`/);
    }
    await page.evaluate(() => sessionStorage.clear());
    await page.reload();
    await page.locator('dialog code', { hasText: 'ic ui' }).waitFor();
    await none('signing in');
  }, { expects: /status of 40[01]/ });
});

check('a path that a terminal would act on is in no command', async (home) => {
  const hostile = home.mkdir('a\u001b[201~\nid `b` $(c)');
  home.writeRegistry({ [hostile]: home.port });
  const { url } = await home.ui();
  await onPage(url, async (page) => {
    await page.locator('#projects-list .row').filter({ has: page.locator('.port', { hasText: String(home.port) }) }).click();
    await connect(page).getByText('Start it with ic serve in the project’s folder.').waitFor();
    assert.equal(await button(page, 'Copy the command').count(), 0);
    const shell = execFileSync('sh', ['-c', `${await shownText(page)} printf %s "$OPENAI_BASE_URL"`], { encoding: 'utf8' });
    assert.equal(shell, `http://localhost:${home.port}/v1`);
  });
});
