// A real Prometheus scrapes a real gateway: the names are conventional, and every query of the dashboard has an answer.

import assert from "node:assert/strict";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import path from "node:path";
import { test } from "node:test";
import { checkout, command, repository, sample, until } from "./lib/checkout.mjs";

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

  const folder = system.at("var/prometheus");
  mkdirSync(folder);
  const config = path.join(folder, "prometheus.yml");
  writeFileSync(config, `scrape_configs:
  - job_name: pixcache
    scrape_interval: 250ms
    authorization: { credentials: ${token} }
    static_configs: [{ targets: ["${new URL(system.url).host}"] }]
`);
  const port = await freePort();
  const prometheus = system.spawn("prometheus", [`--config.file=${config}`, `--storage.tsdb.path=${path.join(folder, "data")}`, `--web.listen-address=127.0.0.1:${port}`]);
  const query = async (expression) => {
    const answer = await (await fetch(`http://127.0.0.1:${port}/api/v1/query?query=${encodeURIComponent(expression)}`)).json();
    assert.equal(answer.status, "success", `${expression}: ${answer.error}`);
    return answer.data.result;
  };
  try {
    await until("Prometheus has scraped", async () => (await query("up")).some(({ value }) => value[1] === "1"));
    const { panels } = JSON.parse(readFileSync(path.join(repository, "deploy/grafana/pixcache.json"), "utf8"));
    const queries = panels.flatMap((panel) => panel.targets.map((target) => target.expr.replaceAll("$__rate_interval", "10s")));
    assert.ok(queries.length > 15);
    await fetch(`${system.url}/images/cat`, { method: "PUT", headers, body: sample("rocket.jpg") });
    for (const expression of queries) {
      await until(`an answer to ${expression}`, async () => {
        await (await fetch(`${system.url}/images/cat`, { headers })).arrayBuffer();
        const found = await query(expression);
        return found.length > 0 && found.every(({ value }) => Number.isFinite(Number(value[1])));
      });
    }
  } finally {
    await prometheus.end();
  }
});
