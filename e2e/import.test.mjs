// What bin/import does with a folder.

import assert from "node:assert/strict";
import { cpSync, mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { after, before, suite, test } from "node:test";
import { Checkout, Parts, repository, sample, samples, until } from "./lib/checkout.mjs";

suite("bin/import", () => {
  const token = "the-token-of-this-test";
  let system;
  let parts;
  let folder;
  const stored = async () => (await system.json("/api/list_keys", { method: "POST" })).keys;
  const run = (args, env) => system.bin("import", [folder, ...args], { env: { ADMIN_TOKEN: token, ...env } });

  before(async () => {
    system = new Checkout();
    await system.start();
    await system.bin("stop");
    parts = new Parts(system, { ADMIN_TOKEN: token });
    await parts.startAll();
    folder = mkdtempSync(path.join(tmpdir(), "pixcache import "));
    mkdirSync(path.join(folder, "猫/b c"), { recursive: true });
    for (const name of samples) cpSync(path.join(repository, "samples", name), path.join(folder, "猫/b c", name));
    writeFileSync(path.join(folder, "notes.txt"), "no image");
    writeFileSync(path.join(folder, "cut off.jpg"), sample("rocket.jpg").subarray(0, 300));
  });
  after(async () => {
    await parts?.stopAll();
    await system.remove();
    rmSync(folder, { recursive: true, force: true });
  });

  test("without a gateway it says what to do", async () => {
    const { code, err } = await run(["--url", "http://127.0.0.1:1"]);
    assert.equal(code, 2);
    assert.match(err, /^import: http:\/\/127\.0\.0\.1:1\/: the gateway can't be reached \(Connection refused.*\); start it with bin\/run, or name another one with --url \(after 6 tries\)\n$/);
  });

  test("stores what is an image, skips what is none, and lists what is a broken one with the reason", async () => {
    const { code, out, err } = await run(["--prefix", "photos/"]);
    assert.equal(code, 1, err);
    assert.match(out, /^7 stored, 1 skipped as no image, 1 refused, in [\d.]+ s\.\n$/);
    assert.match(err, /^refused cut off\.jpg: .*cut off before its end.*\n$/);
    assert.deepEqual(await stored(), [...samples.map((name) => `photos/猫/b c/${name}`), ...samples].sort());
    assert.deepEqual((await system.read("photos/猫/b c/rocket.jpg")).bytes, sample("rocket.jpg"));
  });

  test("sends nothing twice, and replaces what differs unless it is told not to", async () => {
    writeFileSync(path.join(folder, "猫/b c/rocket.jpg"), sample("retina.jpg"));
    const kept = await run(["--prefix", "photos/", "--keep"]);
    assert.match(kept.out, /^0 stored, 6 were there already, 1 kept as they were, 1 skipped as no image, 1 refused/);
    assert.deepEqual((await system.read("photos/猫/b c/rocket.jpg")).bytes, sample("rocket.jpg"));
    const replaced = await run(["--prefix", "photos/"]);
    assert.match(replaced.out, /^0 stored, 1 replaced another image, 6 were there already, 1 skipped as no image, 1 refused/);
    assert.deepEqual((await system.read("photos/猫/b c/rocket.jpg")).bytes, sample("retina.jpg"));
  });

  test("sends again what the store has lost", async () => {
    const headers = { authorization: `Bearer ${token}` };
    // All but the id, by which it belongs to the database.
    for (const name of readdirSync(system.at("var/images"), { recursive: true, withFileTypes: true })) {
      if (name.isFile() && !name.name.startsWith("pixcache-")) rmSync(path.join(name.parentPath ?? name.path, name.name));
    }
    await system.fetch("/api/cache/clear", { method: "POST", headers });
    await until("it is missed", async () => (await system.read("photos/猫/b c/rocket.jpg")).status === 500);
    const restored = await run(["--prefix", "photos/", "--keep"]);
    assert.match(restored.out, /^0 stored, 7 restored, whose files were lost, 1 skipped as no image, 1 refused/, restored.all);
    assert.deepEqual((await system.read("photos/猫/b c/rocket.jpg")).bytes, sample("retina.jpg"));
  });

  test("waits for a part that is away for a moment", async () => {
    rmSync(path.join(folder, "notes.txt"));
    rmSync(path.join(folder, "cut off.jpg"));
    await parts.kill("mariadb");
    const importing = run(["--prefix", "later/"]);
    parts.start("mariadb");
    const { code, out, err } = await importing;
    assert.equal(code, 0, err);
    assert.match(out, /^7 stored, 0 refused/);
    await system.ready();
  });

  test("says what is wrong with what it is given", async () => {
    for (const [args, said] of [
      [["/no/such/folder"], /\/no\/such\/folder can't be read/],
      [[folder, "--in-flight", "0"], /from 1 to 64/],
      [[folder, "--url", "nowhere"], /--url/],
      [[], /Usage: bin\/import/],
    ]) {
      const { code, err } = await system.bin("import", args, { env: { ADMIN_TOKEN: token } });
      assert.equal(code, 2, err);
      assert.match(err, said);
    }
    const refused = await run(["--prefix", "x/"], { ADMIN_TOKEN: "another-token-than-that" });
    assert.equal(refused.code, 1);
    assert.match(refused.err, /admin token/);
    await until("nothing was stored", async () => !(await stored()).some((key) => key.startsWith("x/")));
  });
});
