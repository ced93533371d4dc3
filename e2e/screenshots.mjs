// Pictures of every page, for a look at all of them at once: node screenshots.mjs FOLDER URL

import { mkdirSync } from "node:fs";
import path from "node:path";
import { launch, open } from "./lib/browser.mjs";

const [folder, url] = process.argv.slice(2);
mkdirSync(folder, { recursive: true });
const { keys } = await (await fetch(`${url}/api/list_keys`, { method: "POST" })).json();
const key = encodeURIComponent(keys[0] ?? "nothing");
const pages = {
  home: "/",
  upload: "/upload_image",
  "image-form": "/image",
  image: `/image?key=${key}`,
  "image-delete": `/image/delete?key=${key}`,
  keys: "/keys_list",
  cache: "/cache_properties",
  stats: "/cache_stats",
  "not-found": "/no/such/page",
};

const browser = await launch();
try {
  for (const width of [1280, 390]) {
    for (const colorScheme of ["light", "dark"]) {
      const { page, go, close } = await open(browser, url, { viewport: { width, height: 844 }, colorScheme });
      for (const [name, pathname] of Object.entries(pages)) {
        await go(pathname);
        // Images below the fold are loaded when they come into view.
        for (const image of await page.locator("main img").all()) await image.scrollIntoViewIfNeeded();
        await page.waitForFunction(() => [...document.images].every((image) => image.complete));
        await page.evaluate(() => window.scrollTo(0, 0));
        const file = path.join(folder, `${name}-${width}-${colorScheme}.png`);
        await page.screenshot({ path: file, fullPage: true });
        console.log(file);
      }
      await close();
    }
  }
} finally {
  await browser.close();
}
