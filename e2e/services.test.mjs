// Each service by itself: its help, what it says while it waits, and how it ends.

import assert from "node:assert/strict";
import net from "node:net";
import path from "node:path";
import { suite, test } from "node:test";
import { built, Child, checkout, command, Parts, repository, until } from "./lib/checkout.mjs";

const services = ["gateway", "memcache", "recorder"];
const program = (name) => path.join(repository, built, name);

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

const requiredSettings = {
  gateway: ["GATEWAY_DATABASE_URL", "NATS_GATEWAY_PASSWORD"],
  memcache: ["NATS_MEMCACHE_PASSWORD"],
  recorder: ["MIGRATION_DATABASE_URL", "NATS_RECORDER_PASSWORD", "NATS_SETUP_PASSWORD", "RECORDER_DATABASE_URL"],
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

    test("--help tells needed settings from those with a default, and each default", async () => {
      const help = await command(program(name), ["--help"]);
      const [usage] = /^Usage: .*$/m.exec(help.out);
      const [, rest] = help.out.split("\nNeeded:\n");
      const [neededPart, defaultPart] = rest.split("\nWith a default:\n");
      const entries = (text) => text.split(/\n\s*(?=--)/).filter((entry) => entry.trim().startsWith("--"));
      const needed = entries(neededPart);
      assert.deepEqual(needed.map((entry) => /\[env: (\w+)/.exec(entry)[1]).sort(), requiredSettings[name]);
      for (const entry of needed) {
        assert.ok(usage.includes(/^--[\w-]+ <\w+>/.exec(entry.trim())[0]), `${usage} lacks ${entry}`);
        assert.doesNotMatch(entry, /\[default:|\(the default\)/);
      }
      const others = entries(defaultPart);
      assert.ok(others.length > 6, defaultPart);
      for (const entry of others) assert.match(entry, /\[default: .+\]|\(the default\)/);
    });

    test("needed settings that are missing are named as they are called in the environment", async () => {
      const run = await command(program(name), [], { cwd: repository });
      assert.equal(run.code, 2);
      assert.match(run.err, new RegExp(`^${name}: .* must be set, got nothing; bin/run sets it\\n.*${name} --help.*\\n$`));
      for (const setting of requiredSettings[name]) assert.match(run.err, new RegExp(`\\b${setting} \\(--`));
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
      assert.match(run.all, /ends: (NATS|MySQL) at .* can't be used: .*Connection refused.*; start (a nats-server|MySQL or MariaDB) there, or name another place with [A-Z_]+.* \(tried for 2 s\)/);
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
    assert.match(run.all, /ends: MySQL at [^ ]+ can't be used: Access denied .*; GATEWAY_DATABASE_URL must have a user and a password that the server accepts/);
    assert.doesNotMatch(run.all, /:wrong@/, "a password has no place in a log");
  });

  test("a wrong password for NATS and a port that is taken are told with the setting to change", async (t) => {
    const system = checkout(t);
    await system.start();
    for (const [name, setting] of [["memcache", "NATS_MEMCACHE_PASSWORD"], ["recorder", "NATS_SETUP_PASSWORD"]]) {
      const run = await command(program(name), [], { cwd: system.folder, env: { ...system.env, [setting]: "pwrong", DEPENDENCY_TIMEOUT_S: "2" } });
      assert.equal(run.code, 1, run.all);
      assert.match(run.all, new RegExp(`ends: NATS at [^ ]+ can't be used: the server refuses the user \\w+; ${setting} must be the password that the server has for it`));
      assert.doesNotMatch(run.all, /pwrong/);
    }
    const taken = await command(program("gateway"), [], { cwd: system.folder, env: system.env });
    assert.equal(taken.code, 1);
    assert.match(taken.all, new RegExp(`can't listen on 127\\.0\\.0\\.1:${system.env.PORT}: another program listens there: choose another PORT`));
  });
});
