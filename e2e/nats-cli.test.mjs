// The operator's way: the nats CLI, through bin/nats, as the README tells it.

import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { after, before, suite, test } from "node:test";
import { Checkout, command, repository, sample, samples, until } from "./lib/checkout.mjs";

suite("nats CLI", () => {
  let system;
  let folder;

  before(async () => {
    system = new Checkout();
    folder = mkdtempSync(path.join(tmpdir(), "pixcache-cli-"));
    await system.start({ env: { STATS_INTERVAL: "1s" } });
  });
  after(async () => {
    rmSync(folder, { recursive: true, force: true });
    await system.remove();
  });

  const nats = (args, options) => system.bin("nats", args, { cwd: folder, ...options });

  /** A request whose answer is JSON. */
  async function ask(subject, payload = "") {
    const run = await nats(["req", subject, payload, "--raw"]);
    assert.equal(run.code, 0, run.all);
    try {
      return JSON.parse(run.out);
    } catch (error) {
      throw new Error(`${subject} answered: ${run.all}`, { cause: error });
    }
  }

  /** A request that is refused: the code and the sentence of its headers. */
  async function refused(subject, payload = "", options) {
    const run = await nats(["req", subject, ...(options?.input === undefined ? [payload] : ["--force-stdin", "--no-templates"])], options);
    const code = /Nats-Service-Error-Code: *(\d+)/.exec(run.all)?.[1];
    const message = /Nats-Service-Error: *(.+)/.exec(run.all)?.[1] ?? "";
    assert.ok(code, `${subject} was not refused, or not answered:\n${run.all}`);
    assert.ok(message.length > 10, `${subject}: no sentence:\n${run.all}`);
    return { code: Number(code), message };
  }

  const put = (key, bytes) => nats(["req", `cache.put.${key}`, "--force-stdin", "--no-templates"], { input: bytes });

  async function get(key) {
    const file = path.join(folder, "got");
    rmSync(file, { force: true });
    const run = await command("bash", ["-c", `"$0" req "cache.get.${key}" '' --translate 'tee got' > /dev/null`, system.at("bin/nats")], { cwd: folder });
    assert.equal(run.code, 0, run.all);
    return readFileSync(file);
  }

  test("services are listed, described, counted and answer a ping", async () => {
    const list = (await nats(["micro", "ls"])).out;
    assert.match(list, /memcache/);
    assert.match(list, /recorder/);
    const info = (await nats(["micro", "info", "memcache"])).out;
    for (const subject of ["cache.get.>", "cache.put.>", "cache.invalidate.>", "cache.clear", "cache.config", "cache.stats", "cache.keys", "cache.watch"]) {
      assert.ok(info.includes(subject), `${subject} is not in:\n${info}`);
    }
    const recorder = (await nats(["micro", "info", "recorder"])).out;
    for (const subject of ["stats.series", "stats.config_history"]) assert.ok(recorder.includes(subject), recorder);
    await ask("cache.stats");
    const stats = JSON.parse((await nats(["micro", "stats", "memcache", "--json"])).out);
    const all = JSON.stringify(stats);
    assert.ok(/"num_requests":\s*[1-9]/.test(all), all);
    assert.match((await nats(["micro", "ping", "memcache"])).all, /memcache/);
  });

  test("an image comes out byte for byte, of any size that the bus carries", async () => {
    for (const name of samples) {
      await until(`${name} is cached`, async () => (await system.read(name)).what === "hit", 10);
      assert.deepEqual(await get(name.replace(".", "%2E")), sample(name), name);
    }
  });

  test("an image goes in from a file, also with braces in its bytes, and is served", async () => {
    // A JPEG with a comment that the CLI would take for a template.
    const jpeg = sample("rocket.jpg");
    const comment = Buffer.from("{{.Count}} {{ Random 10 100 }} {{");
    const segment = Buffer.concat([Buffer.from([0xff, 0xfe, 0, comment.length + 2]), comment]);
    const braces = Buffer.concat([jpeg.subarray(0, 2), segment, jpeg.subarray(2)]);
    const stored = JSON.parse((await nats(["req", "cache.put.from-cli", "--force-stdin", "--no-templates", "--raw"], { input: braces })).out);
    assert.equal(stored.stored, true);
    assert.equal(stored.content_type, "image/jpeg");
    assert.equal(stored.bytes, braces.length);
    assert.deepEqual(await get("from-cli"), braces);
  });

  test("what is no image is refused with the right code, and leaves nothing", async () => {
    const png = sample("chelsea.png");
    assert.equal((await refused("cache.put.bad", "", { input: "hello, world" })).code, 415);
    assert.equal((await refused("cache.put.bad", "", { input: "<svg xmlns='http://www.w3.org/2000/svg'/>" })).code, 415);
    assert.equal((await refused("cache.put.bad", "", { input: png.subarray(0, 5000) })).code, 422);
    assert.equal((await refused("cache.put.bad")).code, 422);
    assert.equal((await refused("cache.get.bad")).code, 404);
  });

  test("invalidating says whether the image was resident", async () => {
    await put("to-go", sample("rocket.jpg"));
    const { incarnation } = await ask("cache.stats");
    assert.deepEqual(await ask("cache.invalidate.to-go"), { resident: true, incarnation });
    assert.deepEqual(await ask("cache.invalidate.to-go"), { resident: false, incarnation });
    assert.equal((await refused("cache.get.to-go")).code, 404);
  });

  test("the configuration is read and changed, and a bad value changes nothing", async () => {
    const before = await ask("cache.config.get");
    assert.equal(before.policy, "lru");
    assert.equal(before.capacity_mb, 64);
    const changed = await ask("cache.config.set", '{"capacity_mb":48,"policy":"clock_pro"}');
    assert.deepEqual([changed.capacity_mb, changed.policy], [48, "clock_pro"]);
    assert.ok(changed.revision > before.revision);
    const named = await ask("cache.config.set", '{"policy":"Random Replacement"}');
    assert.deepEqual([named.capacity_mb, named.policy], [48, "random"]);

    for (const [payload, word] of [
      ['{"capacity_mb":0}', "0"],
      ['{"capacity_mb":-1}', "-1"],
      ['{"capacity_mb":1e12}', "capacity_mb"],
      ['{"capacity_mb":"abc"}', "abc"],
      ['{"policy":"mru"}', "mru"],
      ['{"colour":"red"}', "colour"],
      ["{}", "capacity_mb"],
      ["64", "JSON"],
      ["no json", "JSON"],
    ]) {
      const { code, message } = await refused("cache.config.set", payload);
      assert.equal(code, 400, payload);
      assert.ok(message.includes(word), `${payload}: ${message}`);
    }
    const { revision, capacity_mb, policy } = await ask("cache.config.get");
    assert.deepEqual({ revision, capacity_mb, policy }, { revision: named.revision, capacity_mb: 48, policy: "random" });
    assert.equal((await ask("cache.config.refresh")).revision, named.revision);
    assert.deepEqual(await system.json("/api/cache").then(({ capacity_mb, policy }) => ({ capacity_mb, policy })), { capacity_mb: 48, policy: "random" });
    await ask("cache.config.set", '{"capacity_mb":64,"policy":"lru"}');
  });

  test("counters and resident keys tell what the cache holds", async () => {
    await put("zz-last", sample("coffee.png"));
    const stats = await ask("cache.stats");
    for (const field of ["worker", "incarnation", "uptime_s", "policy", "capacity_bytes", "cache_size_bytes", "key_count", "hit_ratio", "request_count", "hit_count", "miss_count", "put_count"]) {
      assert.ok(field in stats, `${field} is missing in ${JSON.stringify(stats)}`);
    }
    assert.equal(stats.request_count, stats.hit_count + stats.miss_count);

    const recent = await ask("cache.keys");
    assert.equal(recent.keys[0].key, "zz-last");
    assert.equal(recent.keys[0].bytes, sample("coffee.png").length);
    assert.equal(recent.keys[0].type, "image/png");
    const bySize = (await ask("cache.keys", '{"sort":"size","limit":3}')).keys.map(({ bytes }) => bytes);
    assert.deepEqual(bySize, [...bySize].sort((a, b) => b - a));
    assert.equal(bySize.length, 3);
    const pages = [];
    for (let after = null; ; ) {
      const page = await ask("cache.keys", JSON.stringify({ sort: "key", limit: 2, after }));
      pages.push(...page.keys.map(({ key }) => key));
      after = page.next;
      if (after === null) break;
    }
    assert.deepEqual(pages, [...pages].sort());
    assert.equal(pages.length, stats.key_count);
    assert.deepEqual((await ask("cache.keys", '{"prefix":"zz-"}')).keys.map(({ key }) => key), ["zz-last"]);
    assert.equal((await refused("cache.keys", '{"limit":0}')).code, 400);
    assert.equal((await refused("cache.keys", '{"sort":"colour"}')).code, 400);
  });

  test("history is answered by the recorder", async () => {
    await system.read(samples[0]);
    await until("a window with requests", async () => {
      const { rows } = await ask("stats.series", '{"range":"10m","step":"5s"}');
      return rows.some(({ request_count: count }) => count > 0);
    });
    await until("the changes of the configuration", async () => {
      const { changes } = await ask("stats.config_history");
      return changes.some(({ replacement_policy: policy }) => policy === "random");
    });
    assert.equal((await refused("stats.series", '{"range":"ten minutes"}')).code, 400);
    assert.equal((await refused("stats.nonsense")).code, 404);
  });

  test("a watcher sees key events and windows, and only while somebody watches", async () => {
    const sub = system.spawn(system.at("bin/nats"), ["sub", "cache.event.>"], { cwd: folder });
    await until("subscribed", () => /Subscribing/.test(sub.output));
    await until("a window", () => /cache\.event\.window\.memcache-1/.test(sub.output));
    await system.read(samples[0]);
    assert.doesNotMatch(sub.output, /cache\.event\.key\./, "nobody has asked for key events");

    const reply = await ask("cache.watch", '{"seconds":30}');
    assert.equal(reply.seconds, 30);
    await put("watched", sample("rocket.jpg"));
    await get("watched");
    await ask("cache.invalidate.watched");
    await refused("cache.get.watched");
    for (const kind of ["put", "hit", "invalidated", "miss"]) {
      await until(`a ${kind} event`, () => sub.output.includes(`cache.event.key.${kind}.watched`), 10);
    }
    assert.equal((await refused("cache.watch", '{"seconds":0}')).code, 400);
    assert.equal((await refused("cache.watch", '{"kinds":["sneeze"]}')).code, 400);
    await ask("cache.clear");
    await until("a cleared event", () => sub.output.includes("cache.event.cleared.memcache-1"), 10);
    await sub.end("SIGTERM");
  });

  test("clearing drops everything, and says how much", async () => {
    await put("one", sample("rocket.jpg"));
    await put("two", sample("coffee.png"));
    const cleared = await ask("cache.clear");
    assert.ok(cleared.entries >= 2 && cleared.bytes > sample("rocket.jpg").length + sample("coffee.png").length, JSON.stringify(cleared));
    assert.equal((await ask("cache.stats")).key_count, 0);
    assert.equal((await ask("cache.clear")).entries, 0);
    assert.deepEqual((await system.read("rocket.jpg")).bytes, sample("rocket.jpg"), "the origin still has its images");
  });

  test("no request is left without an answer", async () => {
    for (const subject of ["cache.nonsense", "cache.config.nonsense"]) assert.equal((await refused(subject)).code, 404, subject);
    for (const subject of ["cache.get.%zz", "cache.get.a%0Ab", "cache.put.%FF", "cache.invalidate.%2E%2E"]) {
      assert.equal((await refused(subject)).code, 400, subject);
    }
    const run = await nats(["req", "cache.put.cat", "x", "--header", "Pixcache:nonsense"]);
    assert.match(run.all, /Nats-Service-Error-Code: *400/);
  });

  test("the operator may not forge events nor delete streams, and nobody enters without a password", async () => {
    const forged = await nats(["pub", "cache.event.window.memcache-1", "{}"]);
    assert.match(forged.all, /permissions violation/i);
    assert.match((await nats(["stream", "rm", "CACHE_EVENTS", "--force"])).all, /permissions violation|timeout|no responders/i);
    assert.match((await nats(["stream", "ls"])).out, /CACHE_EVENTS/);
    const cli = (await command("bash", ["-c", "type -P nats || echo var/tools/bin/nats"], { cwd: repository })).out.trim();
    const stranger = await command(path.resolve(repository, cli), ["--no-context", "--server", `nats://127.0.0.1:${system.env.NATS_PORT}`, "req", "cache.stats", ""], { env: { HOME: folder } });
    assert.notEqual(stranger.code, 0);
    assert.match(stranger.all, /authorization/i);
  });

  test("without a CLI, bin/nats says how to get one", async () => {
    const run = await nats(["micro", "ls"], { env: { PATH: "/usr/bin:/bin", GOPATH: folder, HOME: folder } });
    assert.equal(run.code, 1);
    assert.match(run.err, /go install github\.com\/nats-io\/natscli\/nats@v/);
  });

  test("each command of docs/operating.md does what it says", async () => {
    const text = readFileSync(path.join(repository, "docs/operating.md"), "utf8");
    const lines = [...text.matchAll(/^```(?:sh|bash|console)?\n([^]*?)^```/gm)]
      .flatMap(([, block]) => block.split("\n"))
      .map((line) => line.replace(/^\$ /, "").replace(/\s+#.*$/, ""))
      .filter((line) => /^bin\/nats /.test(line));
    assert.ok(lines.length >= 10, `only ${lines.length} lines begin with bin/nats`);
    writeFileSync(path.join(folder, "cat.png"), sample("chelsea.png"));
    writeFileSync(path.join(folder, "cat.jpg"), sample("rocket.jpg"));
    writeFileSync(path.join(folder, "cat-160.jpg"), Buffer.from(await (await system.fetch("/images/rocket.jpg?w=160")).arrayBuffer()));
    await until("the sample is cached", async () => (await system.read("rocket.jpg")).what === "hit", 10);
    for (const line of lines) {
      // Those that stay until Ctrl-C are given two windows' time.
      const stays = /^bin\/nats sub\b/.test(line);
      const run = await command("bash", ["-c", `${stays ? "timeout --signal=INT 3 " : ""}${line.replace("bin/nats", `"${system.at("bin/nats")}"`)}`], { cwd: folder });
      if (stays) assert.match(run.all, /cache\.event\./, `${line}\n${run.all}`);
      else assert.equal(run.code, 0, `${line}\n${run.all}`);
      assert.doesNotMatch(run.all, /Nats-Service-Error|timeout|no responders|violation/i, `${line}\n${run.all}`);
    }
  });
});
