// A real Prometheus scrapes a real gateway: the names are conventional, and every query of the dashboard has an answer.

import assert from "node:assert/strict";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import path from "node:path";
import { test } from "node:test";
import { built, checkout, command, repository, sample, until } from "./lib/checkout.mjs";

const freePort = () =>
  new Promise((done) => {
    const server = createServer().listen(0, "127.0.0.1", () => {
      const { port } = server.address();
      server.close(() => done(port));
    });
  });

test("every query of the dashboard has an answer in a Prometheus that scrapes with the token", async (t) => {
  const token = "a-token-of-this-test-alone";
  const headers = { authorization: `Bearer ${token}` };
  const system = checkout(t);
  await system.start({ env: { ADMIN_TOKEN: token, PRIVATE: "1" } });
  const scraped = await (await fetch(`${system.url}/metrics`, { headers })).text();
  const lint = await command("promtool", ["check", "metrics"], { input: scraped });
  assert.equal(lint.code, 0, lint.all);
  assert.equal(lint.all, "", "promtool has something to say");

  // A second gateway, as in production: it reports the same worker once more.
  const other = await freePort();
  const second = system.spawn(system.at(built, "gateway"), [], { env: { ...system.env, PORT: String(other) } });
  await until("the second gateway", async () => (await fetch(`http://127.0.0.1:${other}/readyz`, { headers })).ok);

  const folder = system.at("var/prometheus");
  mkdirSync(folder);
  const config = path.join(folder, "prometheus.yml");
  writeFileSync(config, `scrape_configs:
  - job_name: pixcache
    scrape_interval: 250ms
    authorization: { credentials: ${token} }
    static_configs: [{ targets: ["${new URL(system.url).host}", "127.0.0.1:${other}"] }]
`);
  const port = await freePort();
  const prometheus = system.spawn("prometheus", [`--config.file=${config}`, `--storage.tsdb.path=${path.join(folder, "data")}`, `--web.listen-address=127.0.0.1:${port}`]);
  const query = async (expression) => {
    const answer = await (await fetch(`http://127.0.0.1:${port}/api/v1/query?query=${encodeURIComponent(expression)}`)).json();
    assert.equal(answer.status, "success", `${expression}: ${answer.error}`);
    return answer.data.result;
  };
  try {
    await until("Prometheus has scraped", async () => (await query("up")).filter(({ value }) => value[1] === "1").length === 2);
    const { panels } = JSON.parse(readFileSync(path.join(repository, "deploy/grafana/pixcache.json"), "utf8"));
    const queries = panels.flatMap((panel) => panel.targets.map((target) => target.expr.replaceAll("$__rate_interval", "10s")));
    assert.ok(queries.length > 15);
    const manual = readFileSync(path.join(repository, "docs/production.md"), "utf8");
    const documented = [...manual.matchAll(/`([^`\n]*\bpixcache_\w+[^`\n]*\)[^`\n]*)`|^(sum\(max by .*)$/gm)].map((match) => match[1] ?? match[2]);
    assert.ok(documented.length > 15, documented.join("\n"));

    // Each gateway gives the same figures of the cache: no query may add them up.
    const shared = [...scraped.matchAll(/^# HELP (\w+) .*\(one for the system, the same from each gateway\)$/gm)].map((match) => match[1]);
    assert.ok(shared.length > 20 && shared.includes("pixcache_cache_hits_total") && shared.includes("pixcache_waiting_windows"), shared.join(" "));
    assert.equal((await query("pixcache_cache_capacity_bytes")).length, 2, "both gateways report it");
    for (const expression of [...queries, ...documented]) {
      for (const name of shared) {
        for (const { index } of expression.matchAll(new RegExp(`\\b${name}\\b`, "g"))) {
          assert.match(expression.slice(0, index), /\bmax( by \(worker\))? ?\(((rate|increase)\()?$/, `${name} in ${expression}`);
        }
      }
    }
    for (const expression of documented) await query(expression.replaceAll(/\[\w+\]/g, "[10s]"));
    await fetch(`${system.url}/images/cat`, { method: "PUT", headers, body: sample("rocket.jpg") });
    for (const expression of queries) {
      await until(`an answer to ${expression}`, async () => {
        await (await fetch(`${system.url}/images/cat`, { headers })).arrayBuffer();
        const found = await query(expression);
        return found.length > 0 && found.every(({ value }) => Number.isFinite(Number(value[1])));
      });
    }
    // With all read through the first gateway, the queries tell what the worker counted. Hits that a gateway served from
    // copies of its own are told to the worker a moment later.
    const hits = async () => JSON.parse((await system.bin("nats", ["req", "cache.stats", "", "--raw"])).out).hit_count;
    const sum = async (expression) => Number((await query(expression))[0].value[1]);
    await until("the worker's hits, once", async () => (await sum("sum(max by (worker) (pixcache_cache_hits_total))")) === (await hits()));
    await until("a plain sum, twice", async () => (await sum("sum(pixcache_cache_hits_total)")) === 2 * (await hits()));
  } finally {
    await prometheus.end();
    await second.end();
  }
});
