// What existing clients of the JSON API send and get, and images too large for the cache, through the whole system.

import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { after, before, suite, test } from "node:test";
import { Checkout, sample, until } from "./lib/checkout.mjs";

const images = {
  "a.png": sample("chelsea.png"),
  "a.jpg": sample("rocket.jpg"),
  "a.gif": Buffer.from("R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7", "base64"),
  "a.webp": Buffer.from("UklGRhoAAABXRUJQVlA4TA0AAAAvAAAAEAcQERGIiP4HAA==", "base64"),
};

/** A JPEG of a given size: a photograph with comments that no decoder looks at. */
function photograph(bytes) {
  const jpeg = sample("retina.jpg");
  const parts = [jpeg.subarray(0, 2)];
  for (let left = bytes - jpeg.length; left > 0; ) {
    // The rest must leave room for the four bytes of another segment's head.
    const size = left <= 65_000 ? left : Math.min(65_000, left - 4);
    const segment = Buffer.alloc(size, createHash("sha256").update(String(left)).digest());
    segment.writeUInt16BE(0xfffe, 0);
    segment.writeUInt16BE(size - 2, 2);
    parts.push(segment);
    left -= size;
  }
  parts.push(jpeg.subarray(2));
  return Buffer.concat(parts);
}

/** A multipart body, written as plain clients write it. */
function multipart(parts) {
  const boundary = "----pixcache-test-boundary";
  const chunks = [];
  for (const { name, headers = [], disposition = "", value } of parts) {
    chunks.push(Buffer.from([`--${boundary}`, `Content-Disposition: form-data; name="${name}"${disposition}`, ...headers, "", ""].join("\r\n")), Buffer.from(value), Buffer.from("\r\n"));
  }
  chunks.push(Buffer.from(`--${boundary}--\r\n`));
  return { method: "POST", headers: { "content-type": `multipart/form-data; boundary=${boundary}` }, body: Buffer.concat(chunks) };
}

suite("existing clients", () => {
  let system;
  before(async () => {
    system = new Checkout();
    await system.start();
  });
  after(() => system.remove());

  const post = (pathname, options = { method: "POST" }) => system.json(pathname, options);

  test("upload, list, fetch as base64 and delete all, with every allowed type", async () => {
    assert.deepEqual(await post("/api/delete_all"), { success: "true" });
    for (const [key, bytes] of Object.entries(images)) {
      const file = { name: "file", disposition: `; filename="${key}"`, headers: ["Content-Type: image/png"], value: bytes };
      assert.deepEqual(await post("/api/upload", multipart([{ name: "key", value: key }, file])), { success: "true", key });
    }
    assert.deepEqual(await post("/api/list_keys"), { success: "true", keys: Object.keys(images).sort() });
    for (const [key, bytes] of Object.entries(images)) {
      assert.deepEqual(await post(`/api/key/${encodeURIComponent(key)}`), { success: "true", key, content: bytes.toString("base64") });
      const { bytes: raw, headers } = await system.read(key);
      assert.deepEqual(raw, bytes);
      assert.equal(headers.get("content-type"), { png: "image/png", jpg: "image/jpeg", gif: "image/gif", webp: "image/webp" }[key.split(".")[1]]);
    }
    assert.deepEqual(await post("/api/delete_all"), { success: "true" });
    assert.deepEqual(await post("/api/list_keys"), { success: "true", keys: [] });
  });

  test("a file without name or type, parts in any order, fields in the query string too", async () => {
    const key = { name: "key", value: "bare" };
    const bare = { name: "file", value: images["a.jpg"] };
    for (const [query, parts] of [
      ["", [key, bare]],
      ["", [bare, key]],
      ["?key=other&file=other.png", [key, bare]],
    ]) {
      assert.deepEqual(await post(`/api/upload${query}`, multipart(parts)), { success: "true", key: "bare" });
      assert.deepEqual((await post("/api/list_keys")).keys, ["bare"]);
      assert.deepEqual((await system.read("bare")).bytes, images["a.jpg"]);
      await post("/api/delete_all");
    }
  });

  test("a failure has the shape that clients read", async () => {
    for (const [pathname, options, code] of [
      ["/api/key/nothing", { method: "POST" }, 404],
      ["/api/upload", multipart([{ name: "key", value: "no file" }]), 400],
      ["/api/upload", multipart([{ name: "key", value: "" }, { name: "file", value: images["a.png"] }]), 400],
      ["/api/upload", multipart([{ name: "key", value: "text" }, { name: "file", value: "hello" }]), 415],
      ["/api/upload", multipart([{ name: "key", value: "cut" }, { name: "file", value: images["a.png"].subarray(0, 999) }]), 422],
      ["/api/upload", { method: "GET" }, 405],
      ["/api/no-such", { method: "POST" }, 404],
    ]) {
      const response = await system.fetch(pathname, options);
      const answer = await response.json();
      assert.equal(response.status, code, JSON.stringify(answer));
      assert.equal(answer.success, "false");
      assert.equal(answer.error.code, code);
      assert.ok(answer.error.message.length > 10);
    }
    assert.deepEqual((await post("/api/list_keys")).keys, []);
  });

  test("a photograph of 2.9 MB is cached, one of 12 MB is served from the origin and says why", async () => {
    const large = photograph(2_900_000);
    const huge = photograph(12_000_000);
    for (const [key, body] of [["large", large], ["huge", huge]]) {
      const stored = await system.fetch(`/images/${key}`, { method: "PUT", body });
      assert.ok(stored.ok, await stored.text());
    }
    await until("the large one is cached", async () => (await system.read("large")).what === "hit", 10);
    assert.deepEqual((await system.read("large")).bytes, large);

    // A busy machine may take longer than the budget for the cache.
    const reasons = [];
    await until("three reads say why", async () => {
      const read = await system.read("huge");
      assert.deepEqual(read.bytes, huge);
      assert.notEqual(read.what, "hit");
      reasons.push(/detail=(too-large|cache-timeout)/.exec(read.cacheStatus)?.[1]);
      return reasons.filter((reason) => reason === "too-large").length === 3;
    });
    assert.ok(reasons.every(Boolean), String(reasons));
    const refused = await system.fetch("/images/over", { method: "PUT", body: photograph(21_000_000) });
    assert.equal(refused.status, 413);
    const { rejection_count: rejected } = JSON.parse((await system.bin("nats", ["req", "cache.stats", "", "--raw"])).out);
    assert.ok(rejected >= 1, "it is counted as rejected");
  });
});
