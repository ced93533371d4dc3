// What every page keeps to: at two widths, in both themes, with and without JavaScript, with keys that nobody would
// wish for, with many of them, and while a part is away.

import assert from "node:assert/strict";
import { readdirSync, readFileSync, statSync } from "node:fs";
import { createRequire } from "node:module";
import path from "node:path";
import { after, before, suite, test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { Checkout, Parts, repository, sample, samples, until } from "./lib/checkout.mjs";
import { launch, open } from "./lib/browser.mjs";

const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
// What turns the text behind it around, or hides. Pages show it by its number.
const hidden = "invoice\u202egpj.exe\u2066\u2069\u200e\u200f\u061c\u200b";
const shown = "invoice‹U+202E›gpj.exe‹U+2066›‹U+2069›‹U+200E›‹U+200F›‹U+061C›‹U+200B›";
// 255 bytes each: Latin, Greek, Arabic and Chinese letters have 1, 2, 2 and 3 bytes. And markup.
const keys = ["l".repeat(255), `a${"λ".repeat(127)}`, `a${"ع".repeat(127)}`, "猫".repeat(85), "<img src=x onerror=alert(1)>&amp;\"'`${7*7}{{7*7}}", hidden];
// More changes than a page shows without scrolling.
const CHANGES = 24;

suite("every page", () => {
  let system;
  let parts;
  let browser;
  let pages;

  before(async () => {
    system = new Checkout();
    await system.start();
    await system.bin("stop");
    // Each part by itself, so that one can be taken away.
    parts = new Parts(system, { STATS_INTERVAL: "1s" });
    await parts.startAll();
    for (const key of keys) {
      const response = await system.fetch(`/images/${encodeURIComponent(key)}`, { method: "PUT", body: sample("rocket.jpg") });
      assert.equal(response.status, 201, await response.text());
      await until("a hit", async () => (await system.read(key)).what === "hit");
    }
    for (let at = 0; at < CHANGES; at++) {
      const response = await system.fetch("/api/cache", { method: "PUT", headers: { "content-type": "application/json" }, body: JSON.stringify({ capacity_mb: 64 + (at % 2) }) });
      assert.equal(response.status, 200, await response.text());
    }
    browser = await launch();
    const { page, go, close } = await open(browser, system.url);
    await until("the changes are marked", async () => {
      await go("/cache_stats");
      return (await page.locator(".marks li").count()) >= CHANGES;
    });
    await go("/");
    const linked = await page.locator("nav a").evaluateAll((links) => links.map((link) => link.getAttribute("href")));
    const image = (key) => `/image?key=${encodeURIComponent(key)}`;
    pages = [...new Set(linked), ...keys.map(image), image("nothing"), `/image/delete?key=${encodeURIComponent(keys[4])}`, "/keys_list?prefix=nothing", "/no/such/page"];
    assert.ok(["/upload_image", "/keys_list", "/cache_properties", "/cache_stats"].every((page) => pages.includes(page)), String(pages));
    await close();
  });
  after(async () => {
    await browser?.close();
    await parts?.stopAll();
    await system.remove();
  });

  const expected = (pathname) => (/nothing$|no\/such/.test(pathname) && !pathname.includes("prefix") ? 404 : 200);
  const missing = /the server responded with a status of 404/;

  for (const width of [1280, 390]) {
    test(`is accessible and fits, ${width} px, light and dark`, async () => {
      const { page, go, clean, close } = await open(browser, system.url, { viewport: { width, height: 844 }, colorScheme: "light" });
      await page.addInitScript(() => {
        window.shifted = 0;
        new PerformanceObserver((list) => list.getEntries().forEach((entry) => (window.shifted += entry.value))).observe({ type: "layout-shift", buffered: true });
      });
      const fits = async (what) => {
        const wider = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
        assert.ok(wider <= 0, `${wider} px wider than the window: ${what}`);
      };
      const accessible = async (what, options) => {
        const { violations } = await page.evaluate((options) => window.axe.run(document, options), options);
        const told = violations.map(({ id, impact, nodes }) => `${impact} ${id}: ${nodes.map((node) => node.html).join(" ").slice(0, 300)}`);
        assert.deepEqual(told, [], what);
      };
      for (const pathname of pages) {
        assert.equal((await go(pathname)).status(), expected(pathname), pathname);
        assert.equal(await page.locator("h1").count(), 1, pathname);
        assert.match(await page.title(), /^.+ · pixcache$/, pathname);
        await fits(pathname);
        await page.evaluate(axe);
        await accessible(pathname, { rules: { "target-size": { enabled: true } } });
        // The theme changes colours only.
        await page.emulateMedia({ colorScheme: "dark" });
        await page.evaluate(() => Promise.allSettled(document.getAnimations().map((animation) => animation.finished)));
        await fits(`${pathname}, dark`);
        await accessible(`${pathname}, dark`, { runOnly: { type: "rule", values: ["color-contrast", "link-in-text-block"] } });
        await page.emulateMedia({ colorScheme: "light" });
        // Whoever has no pointer reaches what scrolls: itself, under a name, or by something in it.
        const unreached = await page.evaluate(() =>
          [...document.querySelectorAll("body *")]
            .filter((element) => {
              const { overflowX, overflowY } = getComputedStyle(element);
              const scrolls = (overflow, size, room) => ["auto", "scroll"].includes(overflow) && size > room + 1;
              return scrolls(overflowX, element.scrollWidth, element.clientWidth) || scrolls(overflowY, element.scrollHeight, element.clientHeight);
            })
            .filter((element) => !element.matches("textarea") && !element.querySelector("a[href], button:not([disabled]), input"))
            .filter((element) => element.tabIndex < 0 || !(element.ariaLabel || element.getAttribute("aria-labelledby")))
            .map((element) => element.outerHTML.slice(0, 120)),
        );
        assert.deepEqual(unreached, [], pathname);
        // On a busy machine a part may seem to be away for a moment, and the page says so. What shifts by itself does it again.
        let shifted = await page.evaluate(() => window.shifted);
        for (let again = 0; shifted >= 0.05 && again < 2; again++) {
          await page.reload();
          await delay(1000);
          shifted = await page.evaluate(() => window.shifted);
        }
        assert.ok(shifted < 0.05, `shifts by ${shifted}: ${pathname}`);
        // The widest windows have the layout of wide ones.
        if (width < 1000) continue;
        await page.setViewportSize({ width: 2560, height: 1440 });
        await fits(`${pathname}, 2560 px`);
        await page.setViewportSize({ width, height: 844 });
      }
      clean(missing);
      await close();
    });
  }

  test("says the same without JavaScript", async () => {
    const { page, go, clean, close } = await open(browser, system.url, { javaScriptEnabled: false });
    for (const pathname of pages) {
      assert.equal((await go(pathname)).status(), expected(pathname), pathname);
      assert.equal(await page.locator("h1").count(), 1, pathname);
      // What only the scripts bring to life is not shown.
      assert.equal(await page.locator("[data-copy]:visible, [data-live]:visible").count(), 0, pathname);
    }
    for (const [at, key] of keys.entries()) {
      await go(pages.find((pathname) => pathname.startsWith(`/image?key=${encodeURIComponent(key)}`)));
      assert.equal((await page.locator("h1").innerText()).trim(), key === hidden ? shown : key, `key ${at}`);
    }
    clean(missing);
    await close();
  });

  test("shows what is hidden in a key wherever it shows the key, and links to the key itself", async () => {
    const { page, go, clean, close } = await open(browser, system.url);
    const image = `/image?key=${encodeURIComponent(hidden)}`;
    for (const pathname of ["/", "/keys_list", "/keys_list?prefix=invoice", "/cache_properties", "/live", image, `/image/delete?key=${encodeURIComponent(hidden)}`, `${image}x`]) {
      await go(pathname);
      if (pathname === "/live") {
        await until("a read is shown", async () => {
          await system.read(hidden);
          return (await page.locator(".event-key a", { hasText: shown }).count()) > 0;
        });
        const link = page.locator(".event-key a", { hasText: shown }).first();
        assert.equal(await link.evaluate((link) => link.getAttribute("href")), image);
      }
      const { text, titles, links } = await page.evaluate(() => ({
        text: document.body.innerText + document.title,
        titles: [...document.querySelectorAll("[title], [alt], [aria-label]")].map((element) => element.title + element.getAttribute("alt") + element.ariaLabel).join(" "),
        links: [...document.links].map((link) => decodeURIComponent(link.href)).join(" "),
      }));
      assert.doesNotMatch(text + titles, /[\u202a-\u202e\u2066-\u2069\u200b-\u200f\u061c]/, pathname);
      if (["/", "/keys_list", image].includes(pathname)) {
        assert.ok(text.includes(shown), pathname);
        assert.ok(links.includes(hidden), pathname);
      }
    }
    clean(missing);
    await close();
  });

  test("shows where the focus is, from the first key press on", async () => {
    const { page, go, close } = await open(browser, system.url);
    for (const pathname of pages) {
      await go(pathname);
      const seen = new Set();
      for (let at = 0; at < 12; at++) {
        await page.keyboard.press("Tab");
        const { shown, html } = await page.evaluate(() => {
          const focused = document.activeElement;
          // A choice is marked at the label around it.
          const marked = [focused, focused.closest("label")].filter(Boolean).map((element) => getComputedStyle(element));
          return {
            shown: focused === document.body || marked.some(({ outlineStyle, outlineWidth }) => outlineStyle !== "none" && outlineWidth !== "0px"),
            html: focused.outerHTML.slice(0, 120),
          };
        });
        assert.ok(shown, `${pathname}: no outline at ${html}`);
        seen.add(html);
      }
      assert.ok(seen.size > 6, `${pathname}: the focus stays within ${[...seen]}`);
    }
    await close();
  });

  test("takes no more than 100 kB of styles and scripts, all of them together", () => {
    const files = ["css", "js"].flatMap((folder) => {
      const at = path.join(repository, "templates/static", folder);
      return readdirSync(at).map((name) => path.join(at, name));
    });
    const bytes = files.reduce((sum, file) => sum + statSync(file).size, 0);
    assert.ok(bytes > 10_000 && bytes <= 100_000, `${bytes} bytes`);
  });

  test("of values is read with the pointer and the arrow keys", async () => {
    const { page, go, clean, close } = await open(browser, system.url);
    await until("reads are charted", async () => {
      await system.read(keys[0]);
      await go("/cache_stats");
      return (await page.locator(".chart-hit-ratio .chart-line").count()) > 0;
    });
    const size = page.locator("[data-chart]").filter({ hasText: "Size against capacity" });
    const ratio = page.locator("[data-chart]").filter({ hasText: "Hit ratio" });
    await size.focus();
    await page.keyboard.press("End");
    assert.match(await size.locator("[data-reading]").innerText(), /^\d\d:\d\d:\d\d\s*[\d.]+\s(B|kB|MB)$/);
    assert.match(await page.getByRole("status").last().innerText(), /^Size against capacity: [\d.]+\s(B|kB|MB) at \d\d:\d\d:\d\d$/);
    assert.equal(await page.locator(".chart-cursor").count(), await page.locator("[data-chart]").count());
    const last = await ratio.locator("[data-reading]").innerText();
    await page.keyboard.press("ArrowLeft");
    assert.notEqual(await ratio.locator("[data-reading]").innerText(), last);
    // New charts leave it where it is, and the focus too.
    const drawn = await page.locator("#stats").innerHTML();
    await until("the charts are drawn anew", async () => (await page.locator("#stats").innerHTML()) !== drawn);
    assert.equal(await page.locator(".chart-cursor").count(), await page.locator("[data-chart]").count());
    assert.ok(await size.evaluate((figure) => figure === document.activeElement));
    await page.keyboard.press("Escape");
    assert.equal(await page.locator(".chart-cursor").count(), 0);
    await ratio.locator("svg").hover();
    await page.locator(".chart-cursor").first().waitFor({ state: "attached" });
    await page.locator("h1").hover();
    await until("the line is gone", async () => (await page.locator(".chart-cursor").count()) === 0);
    clean();
    await close();
  });

  test("stays fast and right with a hundred thousand keys", async () => {
    await system.sql(
      "INSERT INTO images SELECT CONCAT('zz/', LPAD(seq, 6, '0')), CONCAT('none/', seq), 'image/png', 1000 + seq, 640, 480, REPEAT('x', 32), '2020-01-01', '2020-01-01' FROM seq_1_to_100000",
    );
    const { page, go, close } = await open(browser, system.url);
    const listed = await system.json("/api/list_keys", { method: "POST" });
    assert.equal(listed.keys.length, 100_000 + keys.length + samples.length);
    for (const pathname of ["/", "/keys_list", "/keys_list?prefix=zz/0999"]) {
      assert.equal((await go(pathname)).status(), 200);
    }
    const rows = page.locator("main").getByText(/zz\/0999\d\d/);
    assert.ok((await rows.count()) >= 20);
    // They have no files.
    await system.sql("DELETE FROM images WHERE image_key LIKE 'zz/%'");
    await close();
  });

  test("says which part is away and what that means, and still answers", async () => {
    const labels = { memcache: "Cache worker", mariadb: "Database" };
    const own = pages.filter((pathname) => !/\?|no\/such/.test(pathname));
    for (const [part, label] of Object.entries(labels)) {
      const watched = await open(browser, system.url);
      await watched.go("/system");
      const noticed = watched.page.locator("#notices").getByText(`${label} is down`);
      assert.equal(await noticed.count(), 0);
      await parts.kill(part);
      await until(`${part} is noticed`, async () => (await system.fetch("/readyz")).status === 503);
      // The page of the parts says it by itself.
      await noticed.waitFor();
      await watched.close();
      const { page, go, faults, close } = await open(browser, system.url);
      for (const pathname of own) {
        // What cannot be shown without the part is said in its place, not instead of the page.
        assert.equal((await go(pathname)).status(), 200, `${pathname} without ${part}`);
        await page.getByRole("status").filter({ hasText: `${label} is down` }).waitFor();
        assert.equal(await page.locator("h1").count(), 1, pathname);
      }
      // Thumbnails that no cache holds have no origin now.
      assert.deepEqual(faults.filter((fault) => !/images\/|status of 503/.test(fault)), [], part);
      await close();
      parts.start(part);
      await system.ready();
    }
    const { page, go, clean, close } = await open(browser, system.url);
    // A part that has just come back may take longer to answer a page than a page waits for it.
    await until("no part is down", async () => {
      await go("/");
      return (await page.getByText("is down").count()) === 0;
    }, 10);
    clean();
    await close();
  });
});
