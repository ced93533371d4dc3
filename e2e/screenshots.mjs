// Pictures of every page, for the documentation and for a look at all of them at once: node screenshots.mjs FOLDER [URL].
// Without URL a system is started for it, filled, and read from for a while, so that there is something to see.

import { mkdirSync } from "node:fs";
import path from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { Checkout, sample, samples } from "./lib/checkout.mjs";
import { launch, open } from "./lib/browser.mjs";

const [folder, given] = process.argv.slice(2);
// Those of the documentation are fewer.
const looks = given
  ? [1280, 390].flatMap((width) => ["light", "dark"].map((colorScheme) => ({ width, colorScheme })))
  : [{ width: 1280, colorScheme: "light" }, { width: 1280, colorScheme: "dark" }, { width: 390, colorScheme: "light" }];
// As much as the charts show.
const seconds = 620;

/** A system with some images in folders, read by Zipf's law, while somebody changes the settings. */
async function fill() {
  const system = new Checkout();
  await system.start({ env: { STATS_INTERVAL: "1s", CACHE_CAPACITY_MB: "3" } });
  const put = (key, body) => system.fetch(`/images/${encodeURIComponent(key)}`, { method: "PUT", body });
  const keys = [...samples];
  for (const [at, name] of samples.entries()) {
    for (const above of ["albums/2025", "albums/2026"].slice(0, 1 + (at % 2))) {
      keys.push(`${above}/${name}`);
      await put(keys.at(-1), sample(name));
    }
  }
  const set = (change) => system.json("/api/cache", { method: "PUT", headers: { "content-type": "application/json" }, body: JSON.stringify(change) });
  let reading = true;
  const stopped = (async () => {
    for (let at = 0; reading; at++) {
      // A seeded sequence: the same pictures each time, as far as time allows.
      const rank = Math.floor(keys.length ** (((at * 7919) % 1009) / 1009));
      await system.read(keys[rank % keys.length]);
      await delay(8 + 6 * Math.sin(at / 400));
    }
  })();
  for (const change of [{ policy: "random" }, { capacity_mb: 2 }, { policy: "clock_pro", capacity_mb: 4 }]) {
    await delay((seconds * 1000) / 4);
    await set(change);
  }
  await delay((seconds * 1000) / 4);
  const stop = async () => {
    reading = false;
    await stopped;
    await system.remove();
  };
  return { url: system.url, stop };
}

mkdirSync(folder, { recursive: true });
const system = given ? { url: given, stop: async () => {} } : await fill();
let browser;
try {
  browser = await launch();
  const { keys } = await (await fetch(`${system.url}/api/list_keys`, { method: "POST" })).json();
  const key = encodeURIComponent(keys.find((key) => key.endsWith("chelsea.png")) ?? keys[0] ?? "nothing");
  const pages = {
    gallery: "/",
    upload: "/upload_image",
    "image-form": "/image",
    image: `/image?key=${key}`,
    "image-delete": `/image/delete?key=${key}`,
    keys: "/keys_list",
    cache: "/cache_properties",
    stats: "/cache_stats",
    live: "/live",
    system: "/system",
    "not-found": "/no/such/page",
  };
  for (const { width, colorScheme } of looks) {
    const { page, go, close } = await open(browser, system.url, { viewport: { width, height: 844 }, colorScheme });
    // A typeface that comes late is left out, so it is fetched first.
    await go("/no/such/page");
    for (const [name, pathname] of Object.entries(pages)) {
      await go(pathname);
      const { loadEventEnd } = await page.evaluate(() => performance.getEntriesByType("navigation")[0].toJSON());
      // Images below the fold are loaded when they come into view.
      for (const image of await page.locator("main img:visible").all()) await image.scrollIntoViewIfNeeded();
      await page.waitForFunction(() => [...document.images].every((image) => image.complete || !image.checkVisibility()));
      await page.evaluate(() => window.scrollTo(0, 0));
      // A stream that is shown live needs a while to have something to show.
      if (name === "live") await delay(20_000);
      const file = path.join(folder, `${name}-${width}-${colorScheme}.jpg`);
      await page.screenshot({ path: file, fullPage: true, type: "jpeg", quality: 80 });
      console.log(`${file}, loaded after ${Math.round(loadEventEnd)} ms`);
    }
    await close();
  }
} finally {
  await browser?.close();
  await system.stop();
}
