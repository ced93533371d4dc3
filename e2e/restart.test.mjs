// What survives: settings and statistics across stops and kills of each process.

import assert from "node:assert/strict";
import { suite, test } from "node:test";
import { checkout, Parts, samples, until } from "./lib/checkout.mjs";

const setCache = (system, change) =>
  system.json("/api/cache", { method: "PUT", headers: { "content-type": "application/json" }, body: JSON.stringify(change) });

test("every setting survives a stop and a kill of every process, and the history has each change once", async (t) => {
  const system = checkout(t);
  await system.start();
  await system.bin("stop");
  const parts = new Parts(system, { STATS_INTERVAL: "1s" });
  await parts.startAll();

  const made = [];
  const policies = ["none", "random", "lru", "clock_pro"];
  let capacity = 10;
  for (const name of ["memcache", "recorder", "gateway", "nats", "mariadb"]) {
    for (const how of ["stop", "kill"]) {
      const change = { capacity_mb: ++capacity, policy: policies[capacity % policies.length] };
      const answer = await setCache(system, change);
      assert.deepEqual([answer.capacity_mb, answer.policy], [change.capacity_mb, change.policy]);
      made.push([String(change.capacity_mb * 1024 * 1024), change.policy]);

      const began = Date.now();
      // The servers wait for the services before they leave, three seconds at most.
      if (how === "stop") assert.equal(await parts.stop(name), 0, `${name}:\n${parts.parts[name].output}`);
      else await parts.kill(name);
      parts.start(name);
      await system.ready();
      t.diagnostic(`${name}, ${how}: ready again after ${((Date.now() - began) / 1000).toFixed(1)} s`);
      for (const [other, part] of Object.entries(parts.parts)) assert.ok(part.running, `${other} ended with ${name}:\n${part.output}`);
      const now = await system.json("/api/cache");
      assert.deepEqual([now.capacity_mb, now.policy], [change.capacity_mb, change.policy], `after ${how} of ${name}`);
    }
  }

  const rows = await until("the history is complete", async () => {
    const found = await system.sql("SELECT max_capacity, replacement_policy FROM cache_properties ORDER BY bucket_created_at, revision");
    return found.length > made.length && found;
  });
  // The first row is the setting of the very first start.
  assert.deepEqual(rows, [[String(64 * 1024 * 1024), "lru"], ...made]);
  assert.deepEqual(await parts.stopAll(), { gateway: 0, memcache: 0, recorder: 0, nats: 0, mariadb: 0 });
});

suite("statistics", () => {
  test("the sums over the rows are what the client counted, by kind, across restarts", async (t) => {
    const system = checkout(t);
    // Patience: on a busy machine no read may be bypassed, or the counts could differ.
    const env = { STATS_INTERVAL: "1s", CACHE_BUDGET_MS: "5000" };
    await system.start();
    await system.bin("stop");
    const parts = new Parts(system, env);
    await parts.startAll();
    const sumsNow = async () => {
      const [row] = await system.sql("SELECT COALESCE(SUM(request_count), 0), COALESCE(SUM(hit_count), 0), COALESCE(SUM(miss_count), 0) FROM cache_stats");
      return row.map(Number);
    };
    const base = await sumsNow();

    const counted = { hit: 0, miss: 0 };
    const read = async (key) => {
      const { status, what, cacheStatus } = await system.read(key);
      assert.equal(status, samples.includes(key) ? 200 : 404, key);
      if (status === 200) {
        assert.ok(what in counted, `Cache-Status: ${cacheStatus}`);
        counted[what] += 1;
      }
    };
    const burst = async () => {
      for (let at = 0; at < 60; at++) await read(samples[(at * at) % samples.length]);
      await Promise.all(Array.from({ length: 60 }, (_, at) => read(samples[at % samples.length])));
    };

    await burst();
    await system.json("/api/cache/clear", { method: "POST" });
    await burst();
    await setCache(system, { policy: "none" });
    await burst();
    await setCache(system, { policy: "random", capacity_mb: 2 });
    await burst();
    // Clean stops of each, with traffic before them: nothing may be lost.
    for (const name of ["memcache", "recorder", "gateway"]) {
      await burst();
      assert.equal(await parts.stop(name), 0);
      parts.start(name);
      await system.ready();
    }
    // The recorder is away for a while; what it missed comes later.
    await parts.stop("recorder");
    await burst();
    parts.start("recorder");
    await system.ready();
    // So is the database.
    await parts.stop("mariadb");
    for (let at = 0; at < 3; at++) {
      await system.read(samples[0]).then(({ what }) => what in counted && (counted[what] += 1));
    }
    parts.start("mariadb");
    await system.ready();
    await burst();

    const total = counted.hit + counted.miss;
    const sums = await until(
      "the sums add up",
      async () => {
        const found = (await sumsNow()).map((sum, at) => sum - base[at]);
        if (found[0] < total) throw new Error(`counted ${JSON.stringify(counted)}, rows ${found}`);
        return found;
      },
      30,
    );
    assert.deepEqual(sums, [total, counted.hit, counted.miss]);
    t.diagnostic(`${total} reads: ${counted.hit} hits, ${counted.miss} misses, and so say the rows`);

    // One life at the first bin/run, one before and one after the restart of memcache. The last window of the first was
    // sent while the recorder stopped, too: what did not reach it is delivered again after ten seconds.
    const lives = await until("each life has all its windows", async () => {
      const found = await system.sql("SELECT incarnation, MIN(sequence), MAX(sequence), COUNT(*), COUNT(DISTINCT sequence) FROM cache_stats GROUP BY incarnation");
      return found.length >= 3 && found.every(([, , last, rows]) => last === rows) && found;
    });
    assert.equal(lives.length, 3);
    for (const [incarnation, first, last, rows, distinct] of lives) {
      assert.deepEqual([Number(first), Number(rows), Number(distinct)], [1, Number(last), Number(last)], `windows of ${incarnation}`);
    }
    await parts.stopAll();
  });

  test("a worker that is killed loses the windows that were not acknowledged, and only those", async (t) => {
    const system = checkout(t);
    await system.start();
    await system.bin("stop");
    const parts = new Parts(system, { STATS_INTERVAL: "1s", CACHE_BUDGET_MS: "5000" });
    await parts.startAll();
    const { incarnation } = JSON.parse((await system.bin("nats", ["req", "cache.stats", "", "--raw"])).out);
    const rowsOf = () => system.sql(`SELECT sequence, request_count FROM cache_stats WHERE incarnation = '${incarnation}' ORDER BY sequence`);
    const sum = (rows) => rows.reduce((total, [, count]) => total + Number(count), 0);
    for (let at = 0; at < 20; at++) await system.read(samples[at % samples.length]);
    await until("those reads have their row", async () => sum(await rowsOf()) === 20);
    await parts.kill("memcache");
    parts.start("memcache");
    await system.ready();
    const rows = await rowsOf();
    assert.equal(sum(rows), 20);
    assert.deepEqual(rows.map(([sequence]) => Number(sequence)), rows.map((_, at) => at + 1));
    assert.deepEqual(await parts.stopAll(), { gateway: 0, memcache: 0, recorder: 0, nats: 0, mariadb: 0 });
  });
});
