// The web page: how it fits windows of each width, light and dark, what has the focus or the mouse, and statistics.
import assert from 'node:assert/strict';
import { after, before, describe } from 'node:test';

import { SLOW, TOKEN } from './helpers.mjs';
import { Driver, methodsOf, skip, stepper } from './page-driver.mjs';

/** The widths and colours in which the page is looked at. */
const VIEWPORTS = [1440, 768, 320].flatMap((width) => ['light', 'dark'].map((scheme) => [`${width}-${scheme}`, width, scheme]));

const BINARY = Buffer.from(Array.from({ length: 256 }, (_, index) => index));
const METADATA = '{"number":12345678901234567890, "a":"ü世"}';
/** As long as a name may be, without a place to break it. */
const LONG_NAME = `${'W'.repeat(400)}\u202e${'世'.repeat(36)}`;

describe('the look of the web page', { skip, ...SLOW }, () => {
  let driver, page, id;
  const {
    apiJson, until, text, isHidden, says, focused, shot, press, tabTo, activate, replace, oneRequest, open, withModifier,
    other, conflict, refused,
  } = methodsOf(() => driver);
  const step = stepper();

  before(async () => {
    driver = await Driver.withKeys({ pairs: [{ key: 'binary', value: BINARY.toString('base64'), base64: true }] });
    await apiJson('POST', '', { title: LONG_NAME });
    await other(LONG_NAME, LONG_NAME, { metadata: JSON.stringify(LONG_NAME), query: '?expiration_ttl=86400' });
    ({ page, id } = driver);
    await page.goto(driver.url('/'));
    await driver.signIn(TOKEN);
  });

  after(() => driver?.stop());

  step('draws the segments', async () => {
    await until('the namespaces are there', () => document.querySelectorAll('#namespace-rows a').length === 3);
    await tabTo('a[href="#statistics"]');
    await oneRequest('GET', /\/embercask\/statistics$/, async () => {
      await press('Enter');
      await until('the picture is there', () => document.querySelector('#picture svg .live')?.getBoundingClientRect().width > 0);
    });
    const numbers = await (await fetch(`${driver.server.rest}/embercask/statistics`, { headers: { authorization: `Bearer ${TOKEN}` } })).json();
    assert.equal(await page.$$eval('#picture g', (bars) => bars.length), numbers.result.segments.length);
    const shown = await text('#numbers');
    for (const wanted of [`Keys${numbers.result.keys.toLocaleString('en')}`, 'Memory', 'Compaction', 'tombstones']) assert(shown.includes(wanted), wanted);
    await shot('statistics');
  });

  step('shows statistics live', async () => {
    await activate('a[href="#statistics"]');
    await says('Updated at');
    await tabTo('#statistics-live');
    await press('Enter');
    await until('there is a rate', () => document.querySelector('#numbers .spark'));
    await other('during live', 'a');
    await until('a write was counted', () => document.querySelector('.spark').getAttribute('aria-label').match(/at most ([\d.]+)/)[1] > 0
      && document.querySelector('#numbers').textContent.includes('Keys in this time+1'));
    // Measuring goes on while something has the focus, which stays.
    await tabTo('summary');
    await press('Enter');
    const before = await page.$eval('.spark polyline', (found) => found.getAttribute('points'));
    await until('it is measured again', (before) => document.querySelector('.spark polyline').getAttribute('points') !== before, before);
    assert(await page.$eval('details', (found) => found.open));
    await focused('summary');
    await shot('live');
    await activate('a[href="#namespaces"]');
    await focused('#namespaces-title');
    assert.equal(await page.$eval('#statistics-live', (button) => button.ariaPressed), 'false');
  });

  /** Takes a picture of the view that is open, and checks that nothing in it is wider than the window. */
  async function fits(name, width) {
    await shot(name);
    const wide = await page.evaluate(() => [document.documentElement, ...document.querySelectorAll('dialog[open]')].map((part) => part.scrollWidth));
    assert(Math.max(...wide) <= width, `${name} is ${wide} pixels wide in a window of ${width}`);
  }

  for (const [name, width, scheme] of VIEWPORTS) {
    const view = (what) => fits(`${name}-${what}`, width);

    step(`fits a window with ${width} pixels, ${scheme}`, async () => {
      await page.setViewport({ width, height: 740 });
      await page.emulateMediaFeatures([{ name: 'prefers-color-scheme', value: scheme }]);
      await page.goto(driver.url('/#statistics'));
      await until('the picture is there', () => document.querySelector('#picture svg'));
      await view('statistics');
      await page.goto(driver.url('/#namespaces'));
      await until('the numbers of keys are there', () => document.querySelector('#namespace-rows .number').textContent);
      await view('namespaces');
      await activate('#namespace-rows a', 'first');
      await says('Page 1: 100 keys');
      await view('keys');
      await open('W');
      await view('value');
      await open('binary');
      await view('hex');
      await press('Escape');
      await focused('.open-key');
      await press('x');
      await view('selection');
      await activate('#delete-selected');
      await view('delete');
      await press('Escape');
      await activate('#clear-selection');
    });

    step(`fits a window with ${width} pixels, ${scheme}, also in its dialogs`, async () => {
      await open('binary');
      await activate('#edit-key');
      await view('edit');
      await tabTo('#metadata-text');
      await replace('{"a": "quite long metadata that have to wrap somewhere"}');
      await other('binary', Buffer.concat([BINARY, Buffer.from(name)]), { metadata: METADATA });
      await withModifier('Control', 'Enter');
      await conflict();
      await view('conflict');
      await press('Escape');
      await view('editor');
      await activate('#key-dialog .cancel');
      await until('it asks', () => /not saved/.test(document.querySelector('#key-dialog [role=alert]').textContent));
      await press('Enter');
      await activate('#import-keys');
      await view('import');
      await press('Escape');
      await page.goto(driver.url(`/#namespace/${id}?contains=0`));
      await says('matches in');
      await view('search');
      refused(1);
    });
  }

  step('every control has a name, and shows when the mouse is over it', async () => {
    await page.setViewport({ width: 1280, height: 800 });
    await page.goto(driver.url(`/#namespace/${id}?prefix=binary&key=binary`));
    await until('the key is open', () => document.querySelector('#value-title').textContent === 'binary');
    const unnamed = await page.evaluate(() => [...document.querySelectorAll('button, input, select, textarea, a')]
      .filter((control) => !(control.ariaLabel || control.textContent.trim() || control.labels?.[0]?.textContent.trim()
        || control.closest('label')?.textContent.trim()))
      .map((control) => control.outerHTML));
    // These are named when they are opened.
    assert.deepEqual(unnamed.filter((html) => !/id="keep-|class="risky"/.test(html)), []);
    for (const control of ['#edit-key', '.open-key', '#create-key', '#namespaces-next']) {
      const look = () => page.$eval(control, (found) => {
        const { backgroundColor, borderColor, textDecoration } = getComputedStyle(found);
        return [backgroundColor, borderColor, textDecoration].join();
      });
      if (await isHidden(control)) continue;
      await page.mouse.move(0, 0);
      const before = await look();
      await page.hover(control);
      assert.notEqual(await look(), before, `${control} shows that the mouse is over it`);
    }
  });

  step('every control can be reached by Tab, and shows that it has the focus', async () => {
    const views = {
      namespaces: () => until('the namespaces are there', () => document.querySelector('#namespace-rows a')),
      [`namespace/${id}?prefix=binary&key=binary`]: async () => {
        await focused('#value-title');
        await page.click('.pick');
      },
      statistics: () => until('the picture is there', () => document.querySelector('#picture svg')),
    };
    for (const [address, ready] of Object.entries(views)) {
      await page.goto('about:blank');
      await page.goto(driver.url(`/#${address}`));
      await ready();
      // In the editor, one radio button stands for all.
      for (const within of address.includes('key=') ? ['main', '#key-dialog'] : ['main']) {
        if (within !== 'main') await activate('#edit-key');
        const wanted = await page.$$eval(`${within} :is(button, input, select, textarea, a, summary, pre)`, (found) => found
          .filter((each) => each.checkVisibility() && !each.disabled && !(each.type === 'radio' && !each.checked))
          .map((each) => each.outerHTML));
        assert(wanted.length > 2, wanted.join());
        const missing = new Set(wanted);
        for (let steps = 0; missing.size && steps < 100; steps += 1) {
          await press('Tab');
          const [html, visible] = await page.evaluate(() => {
            const { activeElement: at } = document, { outlineStyle, outlineWidth } = getComputedStyle(at);
            return [at.outerHTML, at === document.body || (outlineStyle !== 'none' && parseFloat(outlineWidth) >= 2)];
          });
          assert(visible, html);
          missing.delete(html);
        }
        assert.deepEqual([...missing], []);
      }
    }
    await press('Escape');
  });

  step('nothing of it went wrong', () => {
    assert.deepEqual(driver.problems, []);
    assert.deepEqual(driver.dialogs, []);
  });
});
