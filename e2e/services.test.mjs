// Each service by itself: its help, what it says while it waits, and how it ends.

import assert from "node:assert/strict";
import net from "node:net";
import path from "node:path";
import { suite, test } from "node:test";
import { Child, checkout, command, Parts, repository, until } from "./lib/checkout.mjs";

const services = ["gateway", "memcache", "recorder"];
const program = (name) => path.join(repository, "target/release", name);

/** A port on which nobody listens. */
async function closedPort() {
  const server = net.createServer();
  await new Promise((done) => server.listen(0, "127.0.0.1", done));
  const { port } = server.address();
  await new Promise((done) => server.close(done));
  return port;
}

async function nowhere() {
  const database = `mysql://nobody:nothing1@127.0.0.1:${await closedPort()}/pixcache`;
  return {
    NATS_PORT: String(await closedPort()),
    NATS_GATEWAY_PASSWORD: "p1",
    NATS_MEMCACHE_PASSWORD: "p2",
    NATS_RECORDER_PASSWORD: "p3",
    NATS_SETUP_PASSWORD: "p4",
    GATEWAY_DATABASE_URL: database,
    RECORDER_DATABASE_URL: database,
    MIGRATION_DATABASE_URL: database,
    PORT: String(await closedPort()),
    LOG_FORMAT: "json",
  };
}

const expected = {
  gateway: ["HOST", "PORT", "IMAGE_DIR", "MAX_IMAGE_MB", "MAX_IMAGE_MEGAPIXELS", "CACHE_BUDGET_MS", "GATEWAY_DATABASE_URL"],
  memcache: ["CACHE_CAPACITY_MB", "CACHE_POLICY", "STATS_INTERVAL", "WORKER_NAME"],
  recorder: ["STATS_RETENTION_DAYS", "NATS_SETUP_PASSWORD", "RECORDER_DATABASE_URL", "MIGRATION_DATABASE_URL"],
};

for (const name of services) {
  suite(name, () => {
    test("--help lists its settings with their environment names", async () => {
      const help = await command(program(name), ["--help"]);
      assert.equal(help.code, 0, help.all);
      for (const setting of [...expected[name], "NATS_URL", "NATS_PORT", "LOG_FORMAT", "SHUTDOWN_GRACE_MS", "DEPENDENCY_TIMEOUT_S"]) {
        assert.match(help.out, new RegExp(`\\b${setting}\\b`), `${setting} is missing`);
      }
    });

    test("an impossible setting is named, and ends it at once", async () => {
      const run = await command(program(name), [], { cwd: repository, env: { ...(await nowhere()), SHUTDOWN_GRACE_MS: "soon" } });
      assert.notEqual(run.code, 0);
      assert.match(run.all, /shutdown-grace-ms|SHUTDOWN_GRACE_MS/);
    });

    test("says what it waits for, then why it gives up, with an exit code", async () => {
      const run = await command(program(name), [], { cwd: repository, env: { ...(await nowhere()), DEPENDENCY_TIMEOUT_S: "2" } });
      assert.ok(run.code > 0, `exit code ${run.code}, signal ${run.signal}\n${run.all}`);
      assert.match(run.all, /wait/i);
      assert.match(run.all, /NATS|MySQL/i);
      assert.ok(run.seconds >= 1 && run.seconds < 10, `${run.seconds} s`);
    });

    test("SIGTERM while it waits ends it with 0", async () => {
      const child = new Child(program(name), [], { cwd: repository, env: await nowhere() });
      await until("it says that it waits", () => /wait/i.test(child.output), 10);
      assert.equal(await child.end("SIGTERM"), 0, child.output);
    });

    test("SIGTERM ends it when nobody reads its log any longer", async () => {
      const child = new Child(program(name), [], { cwd: repository, env: await nowhere() });
      await until("it says that it waits", () => /wait/i.test(child.output), 10);
      // As after the SIGKILL of a Procfile runner.
      child.process.stdout.destroy();
      child.process.stderr.destroy();
      assert.equal(await child.end("SIGTERM"), 0);
    });
  });
}

suite("in a running system", () => {
  test("each ends with 0 on SIGTERM, on SIGINT, and on a shower of both", async (t) => {
    const system = checkout(t);
    await system.start();
    await system.bin("stop");
    const parts = new Parts(system);
    await parts.startAll();
    for (const name of services) {
      for (const signals of [["SIGTERM"], ["SIGINT"], ["SIGINT", "SIGTERM", "SIGTERM", "SIGINT"]]) {
        const part = parts.parts[name];
        const began = Date.now();
        for (const signal of signals) part.kill(signal);
        const { code, signal } = await part.exited;
        assert.equal(code ?? signal, 0, `${name} after ${signals}:\n${part.output}`);
        assert.ok(Date.now() - began < 3000, `${name} took ${Date.now() - began} ms to leave`);
        parts.start(name);
        await system.ready();
      }
    }
    const codes = await parts.stopAll();
    assert.deepEqual(codes, { gateway: 0, memcache: 0, recorder: 0, nats: 0, mariadb: 0 });
  });

  test("a service whose database account is refused ends and says so", async (t) => {
    const system = checkout(t);
    await system.start();
    const wrong = system.env.GATEWAY_DATABASE_URL.replace(/:p[0-9a-f]+@/, ":wrong@");
    const run = await command(program("gateway"), [], {
      cwd: system.folder,
      env: { ...system.env, PORT: String(await closedPort()), GATEWAY_DATABASE_URL: wrong, DEPENDENCY_TIMEOUT_S: "2" },
    });
    assert.ok(run.code > 0, run.all);
    assert.match(run.all, /denied/i);
    assert.doesNotMatch(run.all, /:wrong@/, "a password has no place in a log");
  });
});
