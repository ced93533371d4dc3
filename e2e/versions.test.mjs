// A whole system on each version of nats-server that bin/test has: it becomes ready, caches, counts, stops, and nothing is
// refused meanwhile.

import assert from "node:assert/strict";
import { readFileSync, readdirSync, writeFileSync } from "node:fs";
import path from "node:path";
import { suite, test } from "node:test";
import { checkout, command, repository, sample, until } from "./lib/checkout.mjs";

const servers = path.join(repository, "var/tools/nats-server");

suite("nats-server", () => {
  test("one that is older than last time is refused, with what to do", async (t) => {
    const system = checkout(t);
    await system.start();
    assert.equal((await system.bin("stop")).code, 0);
    const file = system.at("var/nats/server-version");
    const version = readFileSync(file, "utf8");
    writeFileSync(file, "99.1\n");
    const run = await system.bin("run", ["--no-build", "--detach"]);
    assert.notEqual(run.code, 0, run.all);
    assert.match(run.all, /var\/nats was written by nats-server 99\.1, and the one on the PATH is .* remove var\/nats\/server-version/);
    writeFileSync(file, version);
    await system.start();
    assert.equal((await system.bin("stop")).code, 0);
  });

  for (const version of readdirSync(servers)) {
    test(version, async (t) => {
      const folder = path.join(servers, version, "bin");
      const said = await command(path.join(folder, "nats-server"), ["--version"]);
      assert.ok(said.out.includes(`v${version}.`), said.out);

      const system = checkout(t);
      await system.start({ env: { PATH: `${folder}:${process.env.PATH}`, STATS_INTERVAL: "1s", CACHE_BUDGET_MS: "5000" } });
      const image = sample("rocket.jpg");
      const put = await system.fetch("/images/a%20rocket", { method: "PUT", body: image });
      assert.equal(put.status, 201, await put.text());
      const statuses = [];
      for (let round = 0; round < 3; round++) {
        const answer = await system.fetch("/images/a%20rocket");
        assert.deepEqual(Buffer.from(await answer.arrayBuffer()), image);
        statuses.push(answer.headers.get("cache-status"));
      }
      assert.match(statuses[0], /fwd=miss; detail=filling/);
      assert.match(statuses[2], /hit/);
      const set = await system.json("/api/cache", { method: "PUT", headers: { "content-type": "application/json" }, body: '{"policy":"clock_pro"}' });
      assert.equal(set.policy, "clock_pro");
      await until("the hits are rows", async () => {
        const { rows } = await system.json("/api/stats?range=1m");
        return rows.reduce((sum, row) => sum + row.hit_count, 0) >= 1;
      });
      const cli = await system.bin("nats", ["req", "cache.stats", "", "--raw"]);
      assert.equal(JSON.parse(cli.out).policy, "clock_pro");
      const refused = await system.bin("nats", ["pub", "--reply", "$JS.API.STREAM.PURGE.CACHE_EVENTS", "cache.stats", ""]);
      assert.equal(refused.code, 0, refused.all);
      const stream = await system.bin("nats", ["stream", "info", "CACHE_EVENTS", "--json"]);
      assert.equal(JSON.parse(stream.out).state.first_seq, 1, "nothing is purged by a reply");

      assert.equal((await system.bin("stop")).code, 0);
      const log = system.log;
      assert.match(log, new RegExp(`Version:\\s+${version.replace(".", "\\.")}\\.`));
      const bad = log.split("\n").filter((line) => /ERROR|\[ERR\]|Violation/.test(line));
      assert.deepEqual(bad, []);
    });
  }
});
