// The Procfile under foreman, honcho and the way of overmind: what each process is told, and how all of them end.

import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { suite, test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { checkout, samples, until } from "./lib/checkout.mjs";

// Which secrets of .env each process was started with: no more than its role needs. What anybody of the same account can
// read in /proc, a core dump or the page of a crash shows as well.
const knows = {
  gateway: ["ADMIN_TOKEN", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "GATEWAY_DATABASE_URL", "NATS_GATEWAY_PASSWORD"],
  memcache: ["NATS_MEMCACHE_PASSWORD"],
  recorder: ["MIGRATION_DATABASE_URL", "NATS_RECORDER_PASSWORD", "NATS_SETUP_PASSWORD", "RECORDER_DATABASE_URL"],
  nats: ["NATS_GATEWAY_PASSWORD", "NATS_MEMCACHE_PASSWORD", "NATS_OPERATOR_PASSWORD", "NATS_RECORDER_PASSWORD", "NATS_SETUP_PASSWORD"],
  mariadb: [],
  runner: [],
};

suite("each process has its own secrets only", () => {
  for (const [runner, file, args] of [["bin/run", "bin/run", ["--no-build"]], ["foreman", "foreman", ["start"]], ["honcho", "honcho", ["start"]]]) {
    test(`under ${runner}`, async (t) => {
      const system = checkout(t);
      await system.start();
      await system.bin("stop");
      const more = { ADMIN_TOKEN: "a-token-of-a-test-run", AWS_ACCESS_KEY_ID: "an-account-of-a-test", AWS_SECRET_ACCESS_KEY: "a-key-of-a-test", SOMEBODYS_TOKEN: "of-another-program" };
      writeFileSync(system.at(".env"), readFileSync(system.at(".env"), "utf8") + Object.entries(more).map(([name, value]) => `${name}=${value}\n`).join(""));
      const secrets = Object.entries(system.env).filter(([name]) => /PASSWORD|TOKEN|_URL$|^AWS_/.test(name));
      assert.ok(secrets.length >= 12, secrets.map(([name]) => name).join(" "));
      system.spawn(file, args);
      await system.ready();
      const seen = {};
      for (const { pid, line } of system.processes()) {
        const role = /(?:bin\/serve |^target\/\w+\/|flock .* target\/\w+\/)(\w+)/.exec(line)?.[1] ?? /^(nats|mariadb)(?=-server|d)/.exec(line)?.[1] ?? "runner";
        assert.ok(role in knows, line);
        let environ;
        try {
          environ = readFileSync(`/proc/${pid}/environ`, "utf8");
        } catch (error) {
          // A command of a script, such as `sleep`, may have ended meanwhile.
          if (["ENOENT", "ESRCH"].includes(error.code)) continue;
          throw error;
        }
        const has = secrets.filter(([, value]) => environ.includes(value)).map(([name]) => name).sort();
        for (const name of has) {
          assert.ok(knows[role].includes(name) && environ.split("\0").includes(`${name}=${system.env[name]}`), `${name} is known to ${line}`);
        }
        seen[role] = [...new Set([...(seen[role] ?? []), ...has])].sort();
      }
      // Nobody was overlooked, and each has what it needs.
      assert.deepEqual(seen, knows);
    });
  }
});

// The kinds of ends that a Procfile runner comes to. A runner is stopped by a signal to itself, or by Ctrl-C, which
// reaches every process of the terminal's group.
const runners = {
  foreman: { file: "foreman", args: ["start"], codes: { SIGTERM: 0, SIGINT: 0, "Ctrl-C": 0 }, clean: /(gateway|memcache|recorder|nats|mariadb)\.1 +\| exited with code 0/g },
  honcho: { file: "honcho", args: ["--no-colour", "start"], codes: { SIGTERM: 143, SIGINT: 130, "Ctrl-C": 130 }, clean: /(gateway|memcache|recorder|nats|mariadb)\.1 stopped \(rc=0\)/g },
};

suite("a Procfile runner, typed directly", () => {
  for (const [name, { file, args, codes, clean }] of Object.entries(runners)) {
    test(`${name} starts it, and each way to stop it loses nothing`, async (t) => {
      const system = checkout(t);
      await system.start();
      await system.bin("stop");
      for (const [how, expected] of Object.entries(codes)) {
        const runner = system.spawn(file, args);
        await system.ready();
        const { incarnation } = JSON.parse((await system.bin("nats", ["req", "cache.stats", "", "--raw"])).out);
        const reads = 25;
        for (let at = 0; at < reads; at++) assert.equal((await system.read(samples[at % samples.length])).status, 200);

        const began = Date.now();
        if (how === "Ctrl-C") runner.interrupt();
        else runner.kill(how);
        const { code, signal } = await runner.exited;
        await system.empty(5);
        const seconds = (Date.now() - began) / 1000;
        t.diagnostic(`${name}, ${how}: all gone after ${seconds.toFixed(2)} s, exit code ${code ?? signal}`);
        assert.equal(code ?? signal, expected, runner.output);
        assert.ok(seconds < 4, `${seconds} s`);
        assert.doesNotMatch(runner.output, /SIGKILL/i);
        const ended = new Set([...runner.output.matchAll(clean)].map((match) => match[1]));
        // foreman does not wait for the output of those that end last.
        assert.ok(name !== "honcho" || ended.size === 5, `ended cleanly: ${[...ended]}\n${runner.output}`);
        assert.doesNotMatch(runner.output, /exited with code [1-9]|rc=[^0]|terminated by/);

        await system.start();
        const rows = await until(
          "every read has its row",
          async () => {
            const found = await system.sql(`SELECT sequence, request_count FROM cache_stats WHERE incarnation = '${incarnation}' ORDER BY sequence`);
            const sum = found.reduce((total, [, count]) => total + Number(count), 0);
            return sum >= reads ? found : Promise.reject(new Error(`${sum} of ${reads} in ${found.length} rows`));
          },
          15,
        );
        assert.deepEqual(rows.map(([sequence]) => Number(sequence)), rows.map((_, at) => at + 1), "a window is missing");
        assert.equal(rows.reduce((total, [, count]) => total + Number(count), 0), reads);
        await system.bin("stop");
      }
    });
  }

  test("a stop in the middle of the start is a clean one, at any moment", async (t) => {
    const system = checkout(t);
    await system.start();
    await system.bin("stop");
    for (const fresh of [true, false]) {
      for (const ms of [250, 400, 550, 700, 850, 1000, 1300]) {
        // The very first start sets up the database, which takes a while. Images without their database would be kept back.
        if (fresh) for (const half of ["var/mariadb", "var/images"]) rmSync(system.at(half), { recursive: true, force: true });
        const runner = system.spawn("foreman", ["start"]);
        await delay(ms);
        const began = Date.now();
        runner.kill("SIGTERM");
        await runner.exited;
        await system.empty(5);
        assert.ok(Date.now() - began < 4000, `${Date.now() - began} ms, asked after ${ms} ms:\n${runner.output}`);
        assert.doesNotMatch(runner.output, /SIGKILL/, `asked after ${ms} ms`);
      }
    }
    await system.start();
    assert.equal((await system.fetch("/readyz")).status, 200);
  });

  test("overmind's way: a script of sh in a session of its own, stopped by SIGINT to its process group", async (t) => {
    const system = checkout(t);
    await system.start();
    await system.bin("stop");
    const scripts = mkdtempSync(path.join(tmpdir(), "pixcache-overmind-"));
    t.after(() => rmSync(scripts, { recursive: true, force: true }));
    const lines = readFileSync(system.at("Procfile"), "utf8").trim().split("\n");
    let port = Number(system.env.OVERMIND_PORT);
    const parts = lines.map((line) => {
      const [, name, run] = /^([\w-]+):\s+(.+)$/.exec(line) ?? assert.fail(`overmind does not read: ${line}`);
      const script = path.join(scripts, name);
      writeFileSync(script, `#!/usr/bin/env sh\nexport PORT=${port}\n${run}\n`, { mode: 0o744 });
      port += 100;
      return system.spawn(script, [], { env: system.env });
    });
    assert.match(lines[0], /^gateway:/, "the first process gets the very port");
    await system.ready();
    const began = Date.now();
    for (const part of parts) part.interrupt();
    const ends = await Promise.all(parts.map((part) => part.exited));
    assert.deepEqual(ends.map(({ code, signal }) => code ?? signal), [0, 0, 0, 0, 0], parts.map((part) => part.output).join("\n"));
    const seconds = (Date.now() - began) / 1000;
    t.diagnostic(`all gone after ${seconds.toFixed(2)} s`);
    assert.ok(seconds < 4);
    assert.deepEqual(system.processes(), []);
  });
});
