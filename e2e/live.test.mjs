// What happens is seen as it happens, without a reload.

import assert from "node:assert/strict";
import { after, before, suite, test } from "node:test";
import { Checkout, sample, samples, until } from "./lib/checkout.mjs";
import { launch, open } from "./lib/browser.mjs";

suite("live", () => {
  let system;
  let browser;

  before(async () => {
    system = new Checkout();
    await system.start({ env: { STATS_INTERVAL: "1s" } });
    browser = await launch();
  });
  after(async () => {
    await browser?.close();
    await system?.remove();
  });

  const read = async (key) => (await fetch(`${system.url}/images/${encodeURIComponent(key)}`)).arrayBuffer();

  /** The page of the moment, once the worker says what happens. */
  async function live(address = "/live", options) {
    const visit = await open(browser, system.url, options);
    await visit.go(address);
    await visit.page.locator("[data-live-text]", { hasText: /^Live$/ }).waitFor();
    const events = visit.page.locator("[data-events] tr");
    return { ...visit, events, of: (key) => events.filter({ has: visit.page.getByRole("link", { name: key, exact: true }) }) };
  }

  test("a read is seen with what it was, and leads to its image", async () => {
    const { page, events, of, clean, close } = await live();
    await page.getByText("No event has come since this page was opened").waitFor();
    await read("rocket.jpg");
    await of("rocket.jpg").filter({ hasText: "miss" }).first().waitFor();
    await until("a hit", async () => {
      await read("rocket.jpg");
      return (await of("rocket.jpg").filter({ hasText: "hit" }).count()) > 0;
    }, 10);
    assert.match(await of("rocket.jpg").filter({ hasText: "hit" }).first().innerText(), /110\s*kB/);
    assert.ok(Number(await page.locator("[data-count=miss]").innerText()) >= 1);
    await until("the rate falls", async () => (await page.locator("[data-rate]").innerText()) === "0", 10);
    // The newest is at the top.
    await read("markup <b>&");
    await of("markup <b>&").first().waitFor();
    assert.match(await events.first().innerText(), /markup <b>&/);
    await page.locator("#top-keys").getByRole("link", { name: "rocket.jpg" }).first().waitFor();
    await of("rocket.jpg").first().getByRole("link").click();
    await page.getByRole("heading", { name: "rocket.jpg" }).waitFor();
    clean();
    await close();
  });

  test("a pause holds the stream, and afterwards it goes on", async () => {
    const { page, of, clean, close } = await live();
    const watcher = await live();
    await page.getByRole("button", { name: "Pause" }).click();
    await page.locator("[data-live-text]", { hasText: "Paused" }).waitFor();
    await read("while paused");
    await watcher.of("while paused").first().waitFor();
    assert.equal(await of("while paused").count(), 0);
    await page.getByRole("button", { name: "Resume" }).click();
    await page.locator("[data-live-text]", { hasText: /^Live$/ }).waitFor();
    await read("after the pause");
    await of("after the pause").first().waitFor();
    assert.equal(await of("while paused").count(), 0);
    clean();
    await watcher.close();
    await close();
  });

  test("kinds and a prefix are chosen, and stand in the address", async () => {
    const { page, events, of, clean, close } = await live();
    await page.locator(".kind-miss input").uncheck();
    await page.locator("#prefix").fill("new/");
    await page.waitForURL(/kinds=hit%2Cput%2Cevicted%2Cinvalidated%2Crejected&prefix=new%2F/);
    await page.locator("[data-live-text]", { hasText: /^Live$/ }).waitFor();
    const image = { method: "PUT", body: sample("coffee.png") };
    await read("elsewhere");
    await fetch(`${system.url}/images/new%2Fcoffee`, image);
    await of("new/coffee").filter({ hasText: "invalidated" }).waitFor();
    await read("new/coffee");
    await of("new/coffee").filter({ hasText: "put" }).waitFor();
    assert.equal(await events.filter({ hasText: "miss" }).count(), 0);
    assert.equal(await of("elsewhere").count(), 0);
    const again = await live(new URL(page.url()).pathname + new URL(page.url()).search);
    assert.equal(await again.page.locator(".kind-miss input").isChecked(), false);
    assert.equal(await again.page.locator("#prefix").inputValue(), "new/");
    await again.close();
    clean();
    await close();
  });

  for (const width of [1280, 390]) {
    test(`nothing moves, whatever comes, ${width} px`, async () => {
      const { page, events, clean, close } = await live("/live", { viewport: { width, height: 844 } });
      await page.evaluate(() => {
        window.shifted = [];
        const note = ({ value, sources }) => window.shifted.push(`${value}: ${sources.map(({ node }) => node?.outerHTML ?? node?.textContent)}`);
        new PerformanceObserver((list) => list.getEntries().forEach(note)).observe({ type: "layout-shift", buffered: true });
      });
      await until("many events", async () => {
        for (const key of samples) await read(key);
        await fetch(`${system.url}/images/${"long ".repeat(40)}end`, { method: "PUT", body: sample("coffee.png") });
        await read(`${"long ".repeat(40)}end`);
        return (await events.count()) === 100;
      });
      await page.waitForResponse(/fragment=1/);
      await until("the rate falls", async () => (await page.locator("[data-rate]").innerText()) === "0", 10);
      assert.deepEqual(await page.evaluate(() => window.shifted), []);
      clean();
      await close();
    });
  }

  test("lines that are pointed at stay, and what came meanwhile follows", async () => {
    const { page, events, of, clean, close } = await live();
    await read("before");
    await of("before").first().waitFor();
    await events.first().hover();
    const lines = await events.allInnerTexts();
    await read("meanwhile");
    await page.getByText(/held while you read: \d/).waitFor();
    assert.deepEqual(await events.allInnerTexts(), lines);
    await page.locator("h1").hover();
    await of("meanwhile").first().waitFor();
    clean();
    await close();
  });

  test("the charts follow a window without a reload", async () => {
    const { page, go, clean, close } = await open(browser, system.url);
    await until("there are rows", async () => (await system.json("/api/stats?range=10m")).rows.length > 1);
    const [stream] = await Promise.all([page.waitForResponse(/\/events\/stats/), go("/cache_stats")]);
    assert.equal(stream.status(), 200);
    await page.evaluate(() => (window.sameDocument = true));
    const shown = page.locator("#stats");
    const before = await shown.innerHTML();
    for (let at = 0; at < 5; at++) await read("rocket.jpg");
    await until("the page has followed", async () => (await shown.innerHTML()) !== before, 20);
    assert.equal(await page.evaluate(() => window.sameDocument), true);
    clean();
    await close();
  });

  test("without JavaScript there are the lists, and the commands that show the rest", async () => {
    const { page, go, clean, close } = await open(browser, system.url, { javaScriptEnabled: false });
    await until("cached", async () => {
      await read("astronaut.png");
      return (await go("/live")) && (await page.locator("#top-keys").getByRole("link", { name: "astronaut.png" }).count()) === 2;
    });
    assert.match(await page.locator("main").innerText(), /nats req cache\.watch[^]*nats sub 'cache\.event\.key\.>'/);
    assert.equal(await page.locator("[data-stream]").isVisible(), false);
    clean();
    await close();
  });
});
