// A headless Chromium, and what every page has to keep to in it.

import assert from "node:assert/strict";
import { accessSync, constants } from "node:fs";
import path from "node:path";
import { chromium } from "playwright-core";

/** The browser that the machine has. */
function executable() {
  for (const name of ["chromium-headless-shell", "chromium", "chromium-browser", "google-chrome"]) {
    for (const folder of [...process.env.PATH.split(":"), "/usr/bin"]) {
      const file = path.join(folder, name);
      try {
        accessSync(file, constants.X_OK);
        return file;
      } catch (error) {
        if (error.code !== "ENOENT" && error.code !== "ENOTDIR" && error.code !== "EACCES") throw error;
      }
    }
  }
  throw new Error("there is no Chromium: bin/test installs it");
}

export const launch = (more = []) =>
  chromium.launch({
    executablePath: executable(),
    args: ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking", "--disable-component-update", "--no-first-run", ...more],
  });

/** A page that notes everything a visitor should never meet: script errors, failed requests, other hosts. */
export async function open(browser, url, options = {}) {
  const context = await browser.newContext({ locale: "en-GB", timezoneId: "Europe/Berlin", viewport: { width: 1280, height: 800 }, ...options });
  const page = await context.newPage();
  page.setDefaultTimeout(20_000);
  const faults = [];
  const own = new URL(url).host;
  page.on("pageerror", (error) => faults.push(`script error: ${error.message}`));
  page.on("console", (message) => {
    if (message.type() === "error" || message.type() === "warning") faults.push(`${message.type()}: ${message.text()} (${message.location().url})`);
  });
  page.on("request", (request) => {
    const { protocol, host } = new URL(request.url());
    if (host !== own && !["data:", "blob:", "about:"].includes(protocol)) faults.push(`request to another host: ${request.url()}`);
  });
  page.on("response", (response) => {
    if (response.status() >= 500) faults.push(`${response.status()} from ${response.url()}`);
  });
  return {
    page,
    context,
    faults,
    go: (pathname) => page.goto(url + pathname),
    /** Fails if something was noted; what is expected is taken out first. */
    clean(expected = /$^/) {
      assert.deepEqual(faults.filter((fault) => !expected.test(fault)), []);
      faults.length = 0;
    },
    close: () => context.close(),
  };
}
