// What a person does in a browser.

import assert from "node:assert/strict";
import { createServer } from "node:http";
import { after, afterEach, before, suite, test } from "node:test";
import { built, Checkout, sample, samples, until } from "./lib/checkout.mjs";
import { launch, open } from "./lib/browser.mjs";

suite("in the browser", () => {
  let system;
  let browser;

  before(async () => {
    system = new Checkout();
    await system.start({ env: { STATS_INTERVAL: "1s" } });
    browser = await launch();
  });
  after(async () => {
    await browser?.close();
    await system.remove();
  });
  // Each test begins with the seven photographs, even after one that failed.
  afterEach(async () => {
    for (const context of browser.contexts()) await context.close();
    for (const key of await stored()) {
      if (!samples.includes(key)) assert.equal((await system.fetch(`/images/${encodeURIComponent(key)}`, { method: "DELETE" })).status, 204, key);
    }
  });

  // A thumbnail may be on its way while its image is deleted.
  const deleted = /status of 404 .*\/images\//;
  const visit = (options) => open(browser, system.url, options);
  const photograph = (name, buffer = sample(name)) => ({ name, mimeType: name.endsWith("png") ? "image/png" : "image/jpeg", buffer });
  const stored = async () => (await system.json("/api/list_keys", { method: "POST" })).keys;

  async function upload(page, key, file) {
    await page.goto(`${system.url}/upload_image`);
    await page.locator("input[type=file]").setInputFiles(file);
    await page.locator("input[name=key]").fill(key);
    await page.getByRole("button", { name: "Store" }).click();
  }

  test("the gallery shows the seven photographs", async () => {
    const { page, go, clean, close } = await visit();
    await go("/");
    for (const name of samples) await page.getByRole("link", { name }).first().waitFor();
    // Those below are loaded when they come into view.
    const images = page.locator("main img");
    assert.equal(await images.count(), samples.length);
    for (let at = 0; at < samples.length; at++) {
      await images.nth(at).scrollIntoViewIfNeeded();
      await until(`image ${at} has its pixels`, () => images.nth(at).evaluate((image) => image.complete && image.naturalWidth > 0), 10);
    }
    clean();
    await close();
  });

  test("a photograph is uploaded, seen, read through the cache, found in the list and deleted", async () => {
    const { page, go, clean, close } = await visit();
    // Slashes, another script, and what would be markup if it were not escaped.
    const key = "holiday 2024/Pâté & <b>猫</b>?#%2E.jpg";
    await upload(page, key, photograph("rocket.jpg"));
    await page.getByRole("heading", { name: key }).waitFor();
    assert.ok((await stored()).includes(key));

    const picture = page.locator("main img").first();
    await until("the picture is drawn", () => picture.evaluate((image) => image.complete && image.naturalWidth === 640), 10);
    const image = `/image?key=${encodeURIComponent(key)}`;
    // The first read may be the one that fills the cache; the next ones are hits.
    await until("a hit", async () => {
      await go(image);
      return /hit/i.test(await page.locator(".badge").innerText());
    });
    const ms = await page.locator(".read-time").innerText();
    assert.match(ms, /^\d+([.,]\d+)?\s*ms$/);

    await go("/keys_list");
    await page.getByRole("link", { name: key }).waitFor();
    await page.locator("input[name=prefix]").fill("holiday");
    await page.keyboard.press("Enter");
    await page.waitForURL(/prefix=holiday/);
    assert.equal(await page.locator("main table tbody tr").count(), 1);
    await page.getByRole("link", { name: key }).click();

    await page.getByRole("link", { name: "Delete" }).click();
    await page.getByRole("button", { name: "Delete" }).click();
    await page.getByRole("status").getByText(key).waitFor();
    assert.deepEqual(await stored(), samples);
    clean(deleted);
    await close();
  });

  test("the form for a key looks one up, and says so when there is none", async () => {
    const { page, go, clean, close } = await visit();
    await go("/image");
    await page.locator("input[name=key]").fill("rocket.jpg");
    await page.keyboard.press("Enter");
    await page.getByRole("heading", { name: "rocket.jpg" }).waitFor();
    await go("/image");
    await page.locator("input[name=key]").fill("no such key");
    await page.keyboard.press("Enter");
    await page.getByText(/no image is stored under/i).first().waitFor();
    // Chromium notes each answer that is no success.
    clean(/the server responded with a status of 404/);
    await close();
  });

  const drop = (page, files) =>
    page.evaluate((files) => {
      const dataTransfer = new DataTransfer();
      const bytes = (base64) => Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
      for (const [name, content] of files) dataTransfer.items.add(new File([bytes(content)], name));
      document.querySelector(".drop").dispatchEvent(new DragEvent("drop", { dataTransfer, bubbles: true, cancelable: true }));
    }, files.map(([name, content]) => [name, content.toString("base64")]));

  test("files are dropped, checked one by one, and stored with their progress", async () => {
    const { page, go, clean, close } = await visit();
    await go("/upload_image");
    await page.getByLabel("In front of each key").fill("trip/");
    await drop(page, [["猫.png", sample("chelsea.png")], ["notes.txt", Buffer.from("hello")], ["cup.png", sample("coffee.png")], ["rocket.jpg", sample("rocket.jpg")]]);
    const lines = page.locator(".queued");
    await page.getByRole("button", { name: "Store 3 images" }).waitFor();
    assert.deepEqual(await lines.locator("input").evaluateAll((inputs) => inputs.map((input) => input.value)), ["trip/猫.png", "trip/notes.txt", "trip/cup.png", "trip/rocket.jpg"]);
    assert.match(await lines.nth(1).innerText(), /must be a PNG, JPEG, GIF or WebP image/);
    assert.match(await lines.nth(0).innerText(), /451 × 300 · 235 kB/);

    // Under this key something is stored already; and no two of them may have the same.
    await lines.nth(3).locator("input").fill("rocket.jpg");
    await lines.nth(3).getByText("Replaces the image stored under this key (640 × 427, 110 kB).").waitFor();
    await lines.nth(2).locator("input").fill("trip/猫.png");
    await lines.nth(2).getByText("The key must differ from the others of this list.").waitFor();
    await page.getByRole("button", { name: "Store 3 images" }).click();
    assert.equal((await stored()).length, samples.length, "nothing is sent while a key is wrong");
    await lines.nth(2).locator("input").fill("trip/cup.png");

    // What comes in between is not replaced unasked.
    await lines.nth(2).locator("input").blur();
    const inBetween = async (route) => {
      await system.fetch("/images/trip%2Fcup.png", { method: "PUT", body: sample("grass.png") });
      await route.continue();
    };
    // Once: to take a route away lets go what it holds.
    await page.route("**/images/trip/cup.png", inBetween, { times: 1 });
    await page.getByRole("button", { name: "Store 3 images" }).click();
    await page.getByText("2 stored, 1 refused, 1 failed.").waitFor();
    assert.match(await lines.nth(0).innerText(), /Stored\. Show it/);
    assert.match(await lines.nth(3).innerText(), /It replaced the image under this key/);
    assert.match(await lines.nth(2).innerText(), /An image is stored under this key already\. Try again to replace it/);
    await page.getByRole("button", { name: "Try cup.png again" }).click();
    await page.getByText("3 stored, 1 refused.").waitFor();
    assert.equal((await system.json("/api/images/trip%2Fcup.png")).width, 600);

    // Nor is what is stored under a key of which nobody was told so yet.
    await page.route("**/api/images?*", () => {});
    await drop(page, [["again.png", sample("grass.png")]]);
    await lines.nth(4).getByText("512 × 512").waitFor();
    await lines.nth(4).locator("input").fill("coffee.png");
    await page.getByRole("button", { name: "Store", exact: true }).click();
    await page.getByText("3 stored, 1 refused, 1 failed.").waitFor();
    assert.match(await lines.nth(4).innerText(), /An image is stored under this key already/);
    await lines.nth(4).locator("input").fill("trip/again.png");
    await lines.nth(4).getByText("Try again to replace it").waitFor({ state: "detached" });
    await page.getByRole("button", { name: "Store", exact: true }).click();
    await page.getByText("4 stored, 1 refused.").waitFor();
    assert.equal((await system.json("/api/images/coffee.png")).width, 600);
    clean(/the server responded with a status of 412/);

    await lines.nth(0).getByRole("link", { name: "Show it" }).click();
    await page.getByRole("heading", { name: "trip/猫.png" }).waitFor();
    await close();
  });

  test("the list is sorted, goes forwards and back, and several are deleted", async () => {
    const { page, go, clean, close } = await visit();
    for (let n = 0; n < 60; n++) await system.fetch(`/images/many%2F${String(n).padStart(2, "0")}`, { method: "PUT", body: sample("rocket.jpg") });
    await go("/keys_list");
    const keys = () => page.locator("tbody .key").allInnerTexts();
    await page.getByLabel("Sorted by").selectOption("largest");
    await page.waitForURL(/sort=largest/);
    assert.equal((await keys())[0], "astronaut.png");
    await page.getByLabel("Keys that begin with").fill("many/");
    await page.keyboard.press("Enter");
    await page.waitForURL(/prefix=many/);
    await page.getByRole("link", { name: "Key", exact: true }).click();
    await page.waitForURL(/sort=key|prefix=many[^&]*$/);
    const first = await keys();
    assert.equal(first.length, 50);
    await page.getByRole("link", { name: "Next" }).click();
    await page.waitForURL(/after=/);
    assert.deepEqual(await keys(), Array.from({ length: 10 }, (_, n) => `many/${50 + n}`));
    await page.getByRole("link", { name: "Previous" }).click();
    await page.waitForURL(/before=/);
    assert.deepEqual(await keys(), first);

    const remove = page.getByRole("button", { name: "Delete selected" });
    assert.ok(await remove.isDisabled());
    await page.getByLabel("Select many/03").check();
    await page.getByLabel("Select many/05").click({ modifiers: ["Shift"] });
    await page.getByText("3 selected").waitFor();
    await remove.click();
    await page.getByRole("heading", { name: "Delete 3 images?" }).waitFor();
    await page.getByRole("button", { name: "Delete 3 images" }).click();
    await page.getByText("3 images are deleted.").waitFor();
    assert.ok(!(await keys()).some((key) => ["many/03", "many/04", "many/05"].includes(key)));

    // As pictures, all of a page.
    await page.getByRole("link", { name: "Pictures" }).click();
    await page.waitForURL((url) => url.pathname === "/");
    await page.getByLabel("Select all on this page").check();
    await page.getByText("48 selected").waitFor();
    await remove.click();
    await page.getByRole("button", { name: "Delete 48 images" }).click();
    await page.getByText("48 images are deleted.").waitFor();
    clean(deleted);
    await close();
  });

  test("an image is invalidated, and one that can't be shown says so", async () => {
    const { page, go, clean, close } = await visit();
    await until("cached", async () => (await system.read("rocket.jpg")).what === "hit", 10);
    await go("/image?key=rocket.jpg");
    await page.getByRole("button", { name: "Invalidate" }).click();
    await page.getByText("Dropped from the cache.").waitFor();
    assert.match(await page.locator(".badge").first().innerText(), /Miss|Bypass/);
    clean();
    await page.route("**/images/rocket.jpg?*", (route) => route.fulfill({ contentType: "image/jpeg", body: "no picture" }));
    await page.reload();
    await page.getByText("This browser can’t show the image.").waitFor();
    await go("/");
    await page.locator(".frame.is-broken").first().waitFor();
    // Where there is no thumbnail, the browser shows the original.
    await page.unrouteAll();
    await page.route(/\/images\/rocket\.jpg\?.*\bw=/, (route) => route.fulfill({ status: 422, contentType: "application/json", body: "{}" }));
    await go("/");
    const frame = page.locator(".frame", { has: page.locator('img[src*="rocket.jpg"]') });
    await frame.scrollIntoViewIfNeeded();
    await until("the original is shown", () => frame.locator("img").evaluate((image) => image.naturalWidth === 640 && !image.currentSrc.includes("w=")), 10);
    assert.equal(await page.locator(".frame.is-broken").count(), 0);
    await close();
  });

  test("an image is stored, found, selected and deleted with the keyboard alone", async () => {
    const { page, go, clean, close } = await visit();
    const press = async (...keys) => {
      for (const key of keys) await page.keyboard.press(key);
    };
    const tabTo = async (what, locator) => {
      for (let at = 0; at < 60; at++) {
        if (await locator.evaluate((element) => element === document.activeElement)) return;
        await press("Tab");
      }
      assert.fail(`no way to ${what}`);
    };
    await go("/");
    await tabTo("the upload page", page.getByRole("navigation", { name: "Pages" }).getByRole("link", { name: "Upload" }));
    await press("Enter");
    await page.waitForURL(/upload_image/);
    // Asked for well before: the browser is told of it beside the keys.
    const chooser = page.waitForEvent("filechooser");
    await tabTo("the files", page.locator("input[type=file]"));
    await press("Enter");
    await (await chooser).setFiles(photograph("hubble_deep_field.jpg"));
    const key = page.getByLabel("Key of hubble_deep_field.jpg");
    await key.waitFor();
    await tabTo("its key", key);
    await press("Control+a");
    await page.keyboard.type("0 by keyboard.jpg");
    await page.locator("[data-state=ready]").waitFor();
    await press("Enter");
    await page.getByRole("heading", { name: "0 by keyboard.jpg" }).waitFor();

    await go("/keys_list");
    await tabTo("its box", page.getByLabel("Select 0 by keyboard.jpg"));
    await press("Space");
    await tabTo("the deletion", page.getByRole("button", { name: "Delete selected" }));
    await press("Enter");
    const sure = page.getByRole("button", { name: "Delete 1 image" });
    await sure.waitFor();
    await tabTo("the last word", sure);
    await press("Enter");
    await page.getByText("1 image is deleted.").waitFor();
    assert.deepEqual(await stored(), samples);
    clean(deleted);
    await close();
  });

  test("what is no image is refused with a sentence, and nothing is stored", async () => {
    // As the server says it; with scripts, most of it is said before anything is sent.
    const { page, clean, close } = await visit({ javaScriptEnabled: false });
    for (const [name, buffer, words] of [
      ["text.png", Buffer.from("hello, I am text"), /PNG, JPEG, GIF/],
      ["cut.png", sample("chelsea.png").subarray(0, 20_000), /cut off|ends|truncated|incomplete|breaks off|missing/i],
      ["huge.png", Buffer.concat([sample("chelsea.png").subarray(0, 16), Buffer.from([0, 0, 0xea, 0x60, 0, 0, 0xea, 0x60]), sample("chelsea.png").subarray(24)]), /megapixel|pixels|CRC|checksum/i],
    ]) {
      await upload(page, name, photograph(name, buffer));
      const alert = page.getByRole("alert");
      await alert.waitFor();
      assert.match(await alert.innerText(), words, name);
    }
    assert.deepEqual(await stored(), samples);
    clean(/the server responded with a status of 4\d\d/);
    await close();
  });

  test("capacity and policy are changed, a bad value is refused, and the cache is cleared", async () => {
    const { page, go, clean, close } = await visit();
    await go("/cache_properties");
    await page.locator("input[name=capacity_mb]").fill("32");
    await page.locator("input[name=policy][value=clock_pro]").check();
    await page.getByRole("button", { name: "Apply" }).click();
    await page.locator(".notice-done").waitFor();
    const live = await system.json("/api/cache");
    assert.deepEqual([live.capacity_mb, live.policy], [32, "clock_pro"]);
    assert.equal(await page.locator("input[name=capacity_mb]").inputValue(), "32");
    assert.ok(await page.locator("input[name=policy][value=clock_pro]").isChecked());

    // As a browser without checks of its own would send it.
    await page.locator("form[action='/cache_properties']").evaluate((form) => (form.noValidate = true));
    await page.locator("input[name=capacity_mb]").fill("0");
    await page.getByRole("button", { name: "Apply" }).click();
    await page.getByRole("alert").waitFor();
    assert.match(await page.getByRole("alert").innerText(), /capacity_mb|1 to/i);
    assert.equal((await system.json("/api/cache")).capacity_mb, 32);

    for (const name of samples) await system.read(name);
    await go("/cache_properties");
    await page.getByRole("button", { name: "Clear the cache" }).click();
    await page.locator(".notice-done").waitFor();
    // On a busy machine a read may give the cache up before it answers.
    await until("a read misses", async () => (await system.read("rocket.jpg")).what === "miss");

    await until("the history tells of it", async () => {
      await go("/cache_properties");
      return (await page.locator("section[aria-labelledby=history-title] tbody tr").count()) >= 3;
    });
    clean(/the server responded with a status of 4\d\d/);
    await close();
  });

  test("charts show the last ten minutes and other ranges, and follow by themselves", async () => {
    const { page, go, clean, close } = await visit();
    for (const name of samples) await system.read(name);
    await until("there are rows", async () => (await system.json("/api/stats?range=10m")).rows.length > 1);
    await go("/cache_stats");
    const charts = page.locator("figure svg.chart, .chart-panel svg");
    const count = await charts.count();
    assert.ok(count > 1, `${count} charts`);
    for (let at = 0; at < count; at++) {
      // The page puts new charts in the place of the old ones every few seconds.
      const box = await until(`chart ${at} is laid out`, () => charts.nth(at).boundingBox());
      assert.ok(box.width > 200 && box.height > 80, `chart ${at} is ${box.width} x ${box.height}`);
      assert.ok((await charts.nth(at).locator("text, tspan").count()) > 3, `chart ${at} has no labels`);
      assert.ok((await charts.nth(at).locator("polyline, path, polygon, line, rect, circle").count()) > 3, `chart ${at} is empty`);
    }
    // Reads made now are drawn without a reload.
    const before = await page.locator("#stats").innerHTML();
    for (const name of samples) await system.read(name);
    await until("the page has followed", async () => (await page.locator("#stats").innerHTML()) !== before, 20);
    for (const range of ["1h", "24h", "7d"]) {
      await page.locator(`a[href*="range=${range}"]`).first().click();
      await page.waitForURL(new RegExp(`range=${range}`));
      assert.equal(await charts.count(), count, range);
    }
    clean();
    await close();
  });

  test("everything works without JavaScript", async () => {
    const { page, go, clean, close } = await visit({ javaScriptEnabled: false });
    await upload(page, "no script.png", photograph("coffee.png"));
    await page.getByRole("heading", { name: "no script.png" }).waitFor();
    await page.getByRole("button", { name: "Invalidate" }).click();
    await page.getByText("Dropped from the cache.").waitFor();
    await go("/keys_list?prefix=no");
    await page.getByLabel("Sorted by").selectOption("newest");
    await page.getByRole("button", { name: "Show" }).click();
    await page.waitForURL(/sort=newest/);
    await page.getByLabel("Select no script.png").check();
    await page.getByRole("button", { name: "Delete selected" }).click();
    await page.getByRole("button", { name: "Delete 1 image" }).click();
    await page.getByText("1 image is deleted.").waitFor();
    await upload(page, "no script.png", photograph("coffee.png"));
    await go("/cache_stats");
    assert.ok((await page.locator(".chart-panel svg").count()) > 1);
    await go("/cache_properties");
    await page.locator("input[name=capacity_mb]").fill("40");
    await page.getByRole("button", { name: "Apply" }).click();
    await page.locator(".notice-done").waitFor();
    assert.equal((await system.json("/api/cache")).capacity_mb, 40);
    await go("/image/delete?key=no%20script.png");
    await page.getByRole("button", { name: "Delete" }).click();
    await page.getByRole("status").first().waitFor();
    assert.deepEqual(await stored(), samples);
    clean();
    await close();
  });

  test("a form on another web site changes nothing", async () => {
    const elsewhere = createServer((request, response) => {
      response.setHeader("content-type", "text/html");
      response.end(`<form method="post" action="${system.url}/cache_properties/clear"><button>win a prize</button></form>`);
    });
    await new Promise((done) => elsewhere.listen(0, "127.0.0.1", done));
    try {
      await until("cached", async () => (await system.read("rocket.jpg")).what === "hit", 10);
      const { page, close } = await visit();
      await page.goto(`http://localhost:${elsewhere.address().port}/`);
      const [response] = await Promise.all([page.waitForResponse(/cache_properties/), page.getByRole("button").click()]);
      assert.equal(response.status(), 403);
      let what;
      // On a busy machine a read may have to do without the cache.
      await until("the cache answers", async () => (what = (await system.read("rocket.jpg")).what) !== "bypass", 10);
      assert.equal(what, "hit", "the cache was cleared");
      await close();
    } finally {
      elsewhere.close();
    }
  });

  test("a page whose own name leads to this machine reads nothing and changes nothing", async () => {
    const before = await system.json("/api/cache");
    // Newer Chromiums ask before a page of another network reaches this machine; other browsers don't.
    const rebinding = await launch(["--host-resolver-rules=MAP rebound.example 127.0.0.1", "--disable-features=LocalNetworkAccessChecks,PrivateNetworkAccessSendPreflights,BlockInsecurePrivateNetworkRequests"]);
    try {
      const page = await (await rebinding.newContext()).newPage();
      const theirs = `http://rebound.example:${system.env.PORT}`;
      // What their own server sent, before the name led here.
      await page.route(`${theirs}/prize`, (route) => route.fulfill({ contentType: "text/html", body: "<title>win a prize</title>" }));
      await page.goto(`${theirs}/prize`);
      // For the browser it is the page's own server, so that its scripts read every answer.
      const answers = await page.evaluate(async () => {
        const form = new FormData();
        form.set("key", "theirs");
        form.set("file", new Blob(["GIF89a"]));
        const ask = async (path, options) => {
          const answer = await fetch(path, options);
          return [path, answer.status, await answer.text()];
        };
        return [
          await ask("/api/list_keys", { method: "POST" }),
          await ask("/images/rocket.jpg"),
          await ask("/images/rocket.jpg?w=160"),
          await ask("/api/key/rocket.jpg", { method: "POST" }),
          await ask("/", {}),
          await ask("/readyz", {}),
          await ask("/api/cache", { method: "PUT", headers: { "content-type": "application/json" }, body: '{"policy":"none"}' }),
          await ask("/api/upload", { method: "POST", body: form }),
          await ask("/images/rocket.jpg", { method: "DELETE" }),
          await ask("/api/delete_all", { method: "POST" }),
        ];
      });
      for (const [path, status, text] of answers) {
        assert.equal(status, 421, path);
        assert.match(text, /ALLOWED_HOSTS/, path);
      }
      const streamed = await page.evaluate(() => new Promise((done) => {
        const events = new EventSource("/events/keys");
        events.onopen = () => done(true);
        events.onerror = () => done(false);
      }));
      assert.equal(streamed, false);
    } finally {
      await rebinding.close();
    }
    assert.deepEqual(await stored(), samples);
    assert.deepEqual(await system.json("/api/cache"), before);
  });

  test("other sites show its images only where that is set", async (t) => {
    const port = await new Promise((done) => {
      const server = createServer();
      server.listen(0, "127.0.0.1", () => {
        const { port } = server.address();
        server.close(() => done(port));
      });
    });
    const embedding = `http://127.0.0.1:${port}`;
    const elsewhere = createServer((request, response) => {
      response.setHeader("content-type", "text/html");
      response.end(`<img id="shut" src="${system.url}/images/rocket.jpg"><img id="open" src="${embedding}/images/rocket.jpg">`);
    });
    await new Promise((done) => elsewhere.listen(0, "127.0.0.1", done));
    t.after(() => elsewhere.close());
    const token = "a-token-of-this-test-alone";
    const env = { ...system.env, PORT: String(port), IMAGE_EMBEDDING: "cross-origin", ADMIN_TOKEN: token, CORS_ORIGINS: `http://localhost:${elsewhere.address().port}` };
    const open = system.spawn(system.at(built, "gateway"), [], { env });
    await until("the second gateway serves", async () => (await fetch(`${embedding}/images/rocket.jpg`)).ok);
    const { page, close } = await visit();
    await page.goto(`http://localhost:${elsewhere.address().port}/`);
    const width = (id) => page.locator(id).evaluate((image) => (image.complete ? image.naturalWidth : undefined));
    await until("both are settled", async () => (await width("#shut")) !== undefined && (await width("#open")) !== undefined, 10);
    assert.deepEqual([await width("#shut"), await width("#open")], [0, 640]);
    // Its scripts read, and change with the token, where its origin is allowed; the browser asks first.
    const says = (gateway, method, headers = {}) =>
      page.evaluate(
        async ([address, method, headers]) => {
          try {
            const body = method === "PUT" ? await (await fetch(address)).blob() : undefined;
            const answer = await fetch(method === "GET" ? address : `${address}-of-elsewhere`, { method, headers, body });
            return [answer.status, answer.headers.has("etag")];
          } catch (error) {
            return error.name;
          }
        },
        [`${gateway}/images/rocket.jpg`, method, headers],
      );
    const authorization = `Bearer ${token}`;
    assert.equal(await says(system.url, "GET"), "TypeError");
    assert.deepEqual(await says(embedding, "GET"), [200, true]);
    assert.deepEqual(await says(embedding, "PUT"), [401, false]);
    assert.deepEqual(await says(embedding, "PUT", { authorization }), [201, true]);
    assert.deepEqual(await says(embedding, "DELETE", { authorization }), [204, false]);
    await close();
    assert.equal(await open.end(), 0);
  });

  test("an address is not broken inside its port, at any width, and is copied as it is", async () => {
    const { page, go, clean, close } = await visit();
    for (const width of [320, 347, 375, 414, 768]) {
      await page.setViewportSize({ width, height: 700 });
      for (const path of [`/image?key=${samples[0]}`, "/upload_image"]) {
        await go(path);
        const ports = page.locator("main .port");
        assert.ok((await ports.count()) >= 1, path);
        for (const port of await ports.all()) {
          assert.equal(await port.innerText(), `:${system.env.PORT}`);
          assert.equal(await port.evaluate((element) => element.getClientRects().length), 1, `${path} at ${width} px`);
          assert.equal(await port.evaluate((element) => element.parentElement.innerText), system.url);
          assert.ok(await port.evaluate((element) => element.parentElement.getBoundingClientRect().height < 1.8 * element.getBoundingClientRect().height), `${path} at ${width} px: the address has two lines`);
        }
        const code = await page.locator("main .snippet code").first().evaluate((element) => element.textContent);
        assert.ok(code.includes(`${system.url}/`) && !code.includes("\n"), code);
      }
    }
    clean();
    await close();
  });

  test("an unknown address is a page with the way back", async () => {
    const { page, go, clean, close } = await visit();
    const response = await go("/no/such/page");
    assert.equal(response.status(), 404);
    await page.getByRole("link", { name: "Gallery" }).first().click();
    await page.waitForURL(`${system.url}/`);
    clean(/the server responded with a status of 404/);
    await close();
  });

  test("deleting everything asks for the words, then does it", async () => {
    const { page, go, clean, close } = await visit();
    await go("/cache_properties");
    await page.locator("input[name=confirmation]").fill("please");
    await page.getByRole("button", { name: "Delete everything" }).click();
    await page.getByRole("alert").waitFor();
    assert.deepEqual(await stored(), samples);
    await page.locator("input[name=confirmation]").fill("delete everything");
    await page.getByRole("button", { name: "Delete everything" }).click();
    await page.getByRole("status").first().waitFor();
    assert.deepEqual(await stored(), []);
    await go("/");
    await page.getByText("No image is stored yet").waitFor();
    clean(/the server responded with a status of 4\d\d/);
    await close();
  });
});
