// Starting and stopping with bin/run and bin/stop.

import assert from "node:assert/strict";
import { once } from "node:events";
import { appendFileSync, chmodSync, chownSync, existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, symlinkSync, writeFileSync } from "node:fs";
import net from "node:net";
import { tmpdir } from "node:os";
import path from "node:path";
import { suite, test } from "node:test";
import { built, Checkout, checkout, Child, command, Parts, sample, samples, until } from "./lib/checkout.mjs";

// Each without settings, so that bin/run makes them.
const fresh = (t, name, options) => checkout(t, name, { ...options, bare: true });
const lastLine = (text) => text.trimEnd().split("\n").at(-1);
const urlLine = /^http:\/\/127\.0\.0\.1:\d+$/;

async function listen(port, host = "127.0.0.1") {
  const server = net.createServer();
  server.received = 0;
  server.on("connection", (socket) => {
    socket.on("data", (data) => (server.received += data.length));
    socket.on("error", () => {});
  });
  server.listen(port, host);
  await once(server, "listening");
  return server;
}

const isFree = (port) =>
  listen(port).then(
    (server) => new Promise((done) => server.close(() => done(true))),
    () => false,
  );

async function freePort() {
  const server = await listen(0);
  const { port } = server.address();
  await new Promise((done) => server.close(done));
  return port;
}

test("from a fresh checkout to a gallery with seven photographs, and again within seconds", async (t) => {
  const system = fresh(t);
  const first = await system.bin("run", ["--detach"]);
  assert.equal(first.code, 0, first.all);
  assert.match(lastLine(first.out), urlLine);
  assert.equal(lastLine(first.out), system.url);
  t.diagnostic(`bin/run --detach, first time, built already: ${first.seconds.toFixed(2)} s`);

  assert.equal(statSync(system.at(".env")).mode & 0o777, 0o600);
  assert.equal(statSync(system.at("var")).mode & 0o777, 0o700);
  for (const [name, value] of Object.entries(system.env)) {
    if (name.endsWith("PASSWORD")) assert.match(value, /^p[0-9a-f]{30,}$/, name);
    assert.doesNotMatch(value, /[\s'"#]/, `${name} would be read differently by the Procfile runners`);
  }
  assert.equal(system.env.OVERMIND_PORT, system.env.PORT);

  const { keys } = await system.json("/api/list_keys", { method: "POST" });
  assert.deepEqual(keys, samples);
  const page = await (await system.fetch("/keys_list")).text();
  for (const name of samples) {
    assert.ok(page.includes(name), `${name} is not on /keys_list`);
    assert.deepEqual((await system.read(name)).bytes, sample(name), name);
  }

  const again = await system.bin("run", ["--detach"]);
  assert.equal(again.code, 0, again.all);
  assert.match(again.err, /runs already/);
  assert.equal(lastLine(again.out), system.url);

  const url = system.url;
  const stop = await system.bin("stop");
  assert.equal(stop.code, 0, stop.all);
  assert.deepEqual(system.processes(), []);
  assert.ok(stop.seconds < 4.5, `bin/stop took ${stop.seconds} s`);
  const nothing = await system.bin("stop");
  assert.equal(nothing.code, 0);
  assert.match(nothing.err, /Nothing runs/);

  const second = await system.bin("run", ["--detach"]);
  assert.equal(second.code, 0, second.all);
  t.diagnostic(`bin/run --detach, second time: ${second.seconds.toFixed(2)} s; bin/stop: ${stop.seconds.toFixed(2)} s`);
  assert.ok(second.seconds < 15, `the second start took ${second.seconds} s:\n${system.log}`);
  assert.equal(lastLine(second.out), url, "the ports are picked once");
  assert.deepEqual((await system.json("/api/list_keys", { method: "POST" })).keys, samples);
});

test("commands explain themselves and refuse what they don't know", async () => {
  const system = new Checkout(undefined, { bare: true });
  try {
    for (const name of ["run", "stop", "test", "serve"]) {
      const help = await system.bin(name, ["--help"]);
      assert.equal(help.code, 0, help.all);
      assert.match(help.out, new RegExp(`^Usage: bin/${name}`));
      const unknown = await system.bin(name, ["--unknown"]);
      assert.equal(unknown.code, 2, `bin/${name} --unknown`);
    }
    assert.equal((await system.bin("nats", [])).code, 2);
    assert.equal(existsSync(system.at(".env")), false, "asking for help leaves no trace");
  } finally {
    await system.remove();
  }
});

suite("in the foreground", () => {
  test("prints the URL last, stays, and Ctrl-C stops all of it", async (t) => {
    const system = fresh(t);
    const run = system.spawn("bin/run", ["--no-build"]);
    await until("the URL", () => urlLine.test(lastLine(run.stdout)), 60);
    assert.equal((await system.fetch("/readyz")).status, 200);
    const stop = await system.bin("stop");
    assert.equal(stop.code, 0);
    assert.match(stop.err, /Nothing was stopped/);
    assert.ok(run.running);
    const began = Date.now();
    run.interrupt();
    const { code, signal } = await run.exited;
    assert.equal(code ?? signal, 0, run.output);
    assert.deepEqual(system.processes(), []);
    assert.ok(Date.now() - began < 4500, `${Date.now() - began} ms`);
    assert.doesNotMatch(system.log, /SIGKILL/);
  });

  test("takes everything along when it is killed itself", async (t) => {
    const system = fresh(t);
    const run = system.spawn("bin/run", ["--no-build"]);
    await until("the URL", () => urlLine.test(lastLine(run.stdout)), 60);
    await run.end("SIGKILL");
    const seconds = await system.empty(6);
    t.diagnostic(`everything gone ${seconds.toFixed(2)} s after SIGKILL of bin/run`);
    assert.doesNotMatch(system.log, /SIGKILL/);
  });
});

suite("what can go wrong at the start", () => {
  test("a service that ends is shown with its reason, and nothing stays behind", async (t) => {
    const system = fresh(t);
    for (const args of [["--detach"], []]) {
      const run = await system.bin("run", ["--no-build", ...args], { env: { CACHE_POLICY: "bogus" } });
      assert.equal(run.code, 1);
      assert.match(run.err, /bogus/);
      assert.match(lastLine(run.err), /^bin\/run: /);
      assert.equal(run.out, "");
      assert.deepEqual(system.processes(), []);
    }
    await system.start();
  });

  test("a port that was asked for and is taken is named; in place of one that was only kept, another is borrowed for one run", async (t) => {
    const system = fresh(t);
    const holder = await listen(0);
    t.after(() => holder.close());
    const taken = holder.address().port;
    const run = await system.bin("run", ["--no-build", "--detach"], { env: { PORT: String(taken) } });
    assert.equal(run.code, 1);
    assert.match(run.err, new RegExp(`port ${taken} .*is taken`));
    for (const port of ["0", "70000", "abc"]) {
      const bad = await system.bin("run", ["--no-build", "--detach"], { env: { PORT: port } });
      assert.equal(bad.code, 1);
      assert.match(bad.err, /PORT must be a port \(1 to 65535\), got '/);
    }

    const asked = await freePort();
    await system.start({ env: { PORT: String(asked) } });
    assert.equal(system.env.PORT, String(asked));
    await system.bin("stop");
    const before = system.env;
    const names = ["PORT", "NATS_PORT", "DB_PORT"];
    const late = await Promise.all(names.map((name) => listen(Number(before[name]))));
    t.after(() => late.forEach((server) => server.close()));
    const moved = await system.start();
    for (const name of names) {
      assert.match(moved.err, new RegExp(`^Port ${before[name]} is taken by another program: .+ borrows ${system.env[name]} for this run; the next start tries ${before[name]} again\\.$`, "m"));
      assert.notEqual(system.env[name], before[name], name);
    }
    assert.equal(system.env.OVERMIND_PORT, system.env.PORT);
    assert.ok(system.env.GATEWAY_DATABASE_URL.includes(`:${system.env.DB_PORT}/`));
    assert.deepEqual((await system.json("/api/list_keys", { method: "POST" })).keys, samples, "the data is the same");
    // After a stop .env names the kept ones again, and so any runner that is typed gets them.
    await system.bin("stop");
    assert.deepEqual(system.env, before);

    // A run that was not stopped leaves the borrowed ones there; the next start still knows the kept ones.
    await system.start();
    assert.notEqual(system.env.PORT, before.PORT);
    process.kill(system.pid("run"), "SIGKILL");
    await system.empty(8);
    assert.notEqual(system.env.PORT, before.PORT);
    await Promise.all(late.map((server) => new Promise((done) => server.close(done))));
    const back = await system.start();
    assert.doesNotMatch(back.err, /borrows/);
    assert.deepEqual(system.env, before);
    await system.bin("stop");

    // A port that the user writes over a borrowed one is the one that is kept.
    const text = readFileSync(system.at(".env"), "utf8");
    const mine = String(await freePort());
    writeFileSync(system.at(".env"), text.replace(`PORT=${before.PORT}`, `# PORT: ${before.PORT} is kept; 1 is borrowed for this run.\nPORT=${mine}`));
    await system.start();
    assert.equal(system.env.PORT, mine);
    assert.doesNotMatch(readFileSync(system.at(".env"), "utf8"), /borrowed/);
  });

  test("a run in the foreground gives its borrowed port back at its end", async (t) => {
    const system = fresh(t);
    await system.start();
    await system.bin("stop");
    const before = system.env;
    const holder = await listen(Number(before.PORT));
    t.after(() => holder.close());
    const run = system.spawn("bin/run", ["--no-build"]);
    await until("the URL", () => urlLine.test(lastLine(run.stdout)), 60);
    assert.notEqual(system.env.PORT, before.PORT);
    assert.equal(lastLine(run.stdout), system.url);
    run.interrupt();
    const { code } = await run.exited;
    assert.equal(code, 0, run.output);
    assert.deepEqual(system.env, before);
  });

  test("a folder or file that can't be used is one line that says what to do", async (t) => {
    const system = fresh(t);
    writeFileSync(system.at("var"), "");
    for (const name of ["run", "serve"]) {
      const blocked = await system.bin(name, name === "run" ? ["--no-build"] : ["memcache"]);
      assert.equal(blocked.code, 1);
      assert.equal(blocked.err, `bin/${name}: var must be a folder: remove the file ${system.at("var")} and start again\n`);
    }
    rmSync(system.at("var"));
    if (process.getuid() !== 0) return;
    // Another user in root's checkout, which must be readable for it.
    const nobody = { uid: Number((await command("id", ["-u", "nobody"])).out), gid: Number((await command("id", ["-g", "nobody"])).out) };
    const other = fresh(t, "pixcache-other-", { copied: true });
    chmodSync(other.folder, 0o755);
    const refused = await other.bin("run", ["--no-build"], nobody);
    assert.equal(refused.code, 1);
    assert.match(refused.err, /^bin\/run: var must be writable for nobody, and .* belongs to root: start as root, or chown -R nobody .*\n$/);
    writeFileSync(other.at(".env"), "", { mode: 0o600 });
    chmodSync(other.folder, 0o777);
    const secret = await other.bin("import", ["samples"], nobody);
    assert.match(secret.err, /^bin\/import: (\.env must be readable for nobody, and belongs to root: run this as that user|target\/\w+\/import is not there)/);
  });

  test("no Rust, or one too old, is one line", async (t) => {
    const system = fresh(t);
    // Everything that is in the PATH but Rust.
    const tools = mkdtempSync(path.join(tmpdir(), "pixcache-norust-"));
    t.after(() => rmSync(tools, { recursive: true, force: true }));
    for (const folder of process.env.PATH.split(":")) {
      for (const name of existsSync(folder) ? readdirSync(folder) : []) {
        if (/^(cargo|rust)/.test(name) || existsSync(path.join(tools, name))) continue;
        try {
          symlinkSync(path.join(folder, name), path.join(tools, name));
        } catch (error) {
          if (error.code !== "EEXIST") throw error;
        }
      }
    }
    const env = { PATH: tools, HOME: tools };
    const without = await system.bin("run", ["--detach"], { env });
    assert.equal(without.code, 1);
    assert.match(without.err, /^bin\/run: there is no Rust: install Rust 1\.\d+ or newer .*\n$/);

    writeFileSync(path.join(tools, "cargo"), "#!/bin/sh\necho 'cargo 1.60.0 (d1fd9fe2c 2022-03-01)'\n", { mode: 0o755 });
    const old = await system.bin("run", ["--detach"], { env });
    assert.equal(old.code, 1);
    assert.match(old.err, /^bin\/run: Rust 1\.60\.0 is too old: install Rust 1\.\d+ or newer .*\n$/);
  });

  test("two calls at the same moment start one system", async (t) => {
    const system = fresh(t);
    const runs = await Promise.all([1, 2].map(() => system.bin("run", ["--no-build", "--detach"])));
    for (const run of runs) {
      assert.equal(run.code, 0, run.all);
      assert.equal(lastLine(run.out), system.url);
    }
    assert.equal(system.processes().filter(({ line }) => line.startsWith("nats-server")).length, 1);
  });

  test("a token that was given once stays, and one that runners would read differently is refused", async (t) => {
    const system = fresh(t);
    const refused = await system.bin("run", ["--no-build", "--detach"], { env: { ADMIN_TOKEN: 'a "token" # with $signs' } });
    assert.equal(refused.code, 1, refused.all);
    assert.match(refused.err, /ADMIN_TOKEN must be letters, digits/);
    // What a service refuses is not kept either.
    for (const [name, env] of [["ADMIN_TOKEN", { ADMIN_TOKEN: "short" }], ["PRIVATE", { PRIVATE: "perhaps" }], ["ALLOWED_HOSTS", { ALLOWED_HOSTS: "ex ample.com" }]]) {
      const { code, err } = await system.bin("run", ["--no-build", "--detach"], { env });
      assert.equal(code, 1, err);
      assert.match(err, new RegExp(`^\\.env does not keep what was given for this start: ${name}\\.$`, "m"));
      assert.match(err, new RegExp(`pixcache did not start: gateway ended with exit code 2 at .*${name}( \\(--\\S+\\))? must be`));
      assert.equal(system.env[name] ?? "", "");
    }
    await system.start({ env: { ADMIN_TOKEN: "a-token-of-this-test" } });
    const running = await system.bin("run", ["--no-build", "--detach"], { env: { ADMIN_TOKEN: "another-token-than-that" } });
    assert.equal(running.code, 1);
    assert.match(running.err, /pixcache runs already, with another ADMIN_TOKEN: bin\/stop, then start it again to change that/);
    await system.bin("stop");
    const text = readFileSync(system.at(".env"), "utf8");
    writeFileSync(system.at(".env"), `${text}PORT=5086\n`);
    const twice = await system.bin("run", ["--no-build", "--detach"]);
    assert.match(twice.err, /\.env must have PORT once, and has it twice/);
    writeFileSync(system.at(".env"), text);
    const again = await system.start();
    assert.match(again.err, /Every change needs the token in \.env/);
    assert.equal((await system.fetch("/api/cache/clear", { method: "POST" })).status, 401);
    const authorization = "Bearer a-token-of-this-test";
    assert.equal((await system.fetch("/api/cache/clear", { method: "POST", headers: { authorization } })).status, 200);
  });

  test("checkouts that are started at the same moment get ports of their own", async (t) => {
    const systems = [1, 2, 3].map(() => fresh(t));
    await Promise.all(systems.map((system) => system.start()));
    const ports = systems.flatMap(({ env }) => [env.PORT, env.NATS_PORT, env.DB_PORT]);
    assert.equal(new Set(ports).size, ports.length, ports.join(" "));
    for (const system of systems) assert.deepEqual((await system.json("/api/list_keys", { method: "POST" })).keys, samples);
  });

  test("a runner that was killed leaves nothing, and the next start works", async (t) => {
    const system = fresh(t);
    await system.start();
    const before = system.processes().map(({ pid }) => pid);
    process.kill(system.pid("run"), "SIGKILL");
    const seconds = await system.empty(8);
    t.diagnostic(`everything gone ${seconds.toFixed(2)} s after SIGKILL of the runner`);
    await system.start();
    assert.ok(system.processes().every(({ pid }) => !before.includes(pid)));
  });

  test("a server that its wrapper left behind is ended by the next start", async (t) => {
    const system = fresh(t);
    await system.start();
    await system.bin("stop");
    // Started without the wrapper, and noted as it does: that is how one looks that outlived it.
    const orphan = system.spawn("nats-server", ["--config", "nats.conf"], { env: system.env });
    const stat = readFileSync(`/proc/${orphan.pid}/stat`, "utf8");
    const started = stat.slice(stat.lastIndexOf(")") + 2).split(" ")[19];
    writeFileSync(system.at("var/run/nats.pid"), `${orphan.pid} ${started} ${readFileSync("/proc/sys/kernel/random/boot_id", "utf8")}\n`);
    await until("the orphan listens", () => isFree(Number(system.env.NATS_PORT)).then((free) => !free), 10);
    const before = system.env;
    const run = await system.start();
    assert.match(run.err, /Ending the nats that was left behind/);
    await orphan.exited;
    assert.deepEqual(system.env, before, "its port is not taken by a stranger");
    assert.deepEqual((await system.json("/api/list_keys", { method: "POST" })).keys, samples);
  });

  test("a server that is killed ends the rest, with its name", async (t) => {
    const system = fresh(t);
    const run = system.spawn("bin/run", ["--no-build"]);
    await until("the URL", () => urlLine.test(lastLine(run.stdout)), 60);
    process.kill(system.pid("mariadb"), "SIGKILL");
    const { code } = await run.exited;
    assert.equal(code, 1);
    assert.match(run.output, /bin\/run: pixcache ended by itself: mariadb ended with exit code 1 at [0-9:]+ \("bin\/serve: mariadb ended by itself with exit code 137 \(SIGKILL\)"\), and (foreman|honcho) stops everything/);
    assert.doesNotMatch(run.output, /setsid/, "bash tells of its child");
    assert.deepEqual(system.processes(), []);
  });

  test("the end of one process ends all: bin/run, bin/stop and the next start say which one, and how", async (t) => {
    const system = fresh(t);
    const why = /ended by itself: memcache was killed by SIGKILL at [0-9:]+, and (foreman|honcho) stops everything when one process ends\./;
    const run = system.spawn("bin/run", ["--no-build"]);
    await until("the URL", () => urlLine.test(lastLine(run.stdout)), 60);
    process.kill(system.pid("memcache"), "SIGKILL");
    assert.equal((await run.exited).code, 1);
    assert.match(run.output, why);

    // However much the others had to say after it.
    appendFileSync(system.at("var/log/run.log"), "00:00:00 gateway.1 | and more\n".repeat(50_000));
    const { err } = await system.start();
    assert.match(err, why);
    process.kill(system.pid("gateway"), "SIGTERM");
    await system.empty(8);
    const stop = await system.bin("stop");
    assert.match(stop.err, /^Nothing runs here\.\nThe run that began at .* ended by itself: gateway ended with exit code 0 at /);
    const again = await system.start();
    assert.match(again.err, /ended by itself: gateway ended with exit code 0 at /);
    await system.bin("stop");

    // Also when the runner is still stopping the others.
    await system.start();
    process.kill(system.pid("memcache"), "SIGKILL");
    await until("the runner has noticed", () => /memcache\.1 +(\| terminated by|stopped)/.test(readFileSync(system.at("var/log/run.log"), "utf8").split("bin/run starts").at(-1)));
    assert.match((await system.bin("stop")).err, why);
    await system.start();

    process.kill(system.pid("run"), "SIGKILL");
    await system.empty(8);
    assert.match((await system.bin("stop")).err, /ended by itself: (foreman|honcho) was killed before it could write why/);
    await system.start();
    await system.bin("stop");
    assert.equal((await system.bin("stop")).err, "Nothing runs here.\n");
    assert.doesNotMatch((await system.start()).err, /ended by itself/, "a stop is no end by itself");
  });

  test("a standby worker that was started by hand stays, and bin/stop says so", async (t) => {
    const system = fresh(t);
    await system.start();
    const worker = system.pid("memcache");
    const standbys = [
      system.spawn(path.join(built, "memcache"), [], { env: { ...system.env, WORKER_NAME: "memcache-2" } }),
      system.spawn("bin/serve", ["memcache"], { env: { WORKER_NAME: "memcache-3" } }),
    ];
    for (const standby of standbys) await until("it stands by", () => /standing by/.test(standby.output), 10);
    assert.equal(system.pid("memcache"), worker, "the worker of the run is still the one that is noted");
    const stop = await system.bin("stop");
    assert.equal(stop.code, 0, stop.all);
    assert.match(stop.err, /^pixcache has stopped \(after \d\.\d+ s\)\.\nStill running, because bin\/run did not start it: [^\n]*\n$/);
    for (const { pid } of standbys) assert.match(stop.err, new RegExp(`memcache \\(pid ${pid}\\)`));
    assert.ok(stop.seconds < 4, `${stop.seconds} s`);
    assert.match((await system.bin("stop")).err, /^Nothing that bin\/run started runs here\.\nStill running, /);
    for (const standby of standbys) assert.ok(standby.running, standby.output);
    // The next run finds them standing by.
    const run = await system.start();
    assert.equal(run.code, 0, run.all);
    await system.bin("stop");
    for (const standby of standbys) assert.equal(await standby.end("SIGTERM"), 0, standby.output);
    assert.equal((await system.bin("stop")).err, "Nothing runs here.\n");
  });

  test("a wrapper that is killed takes its server along", async (t) => {
    const system = fresh(t);
    await system.start();
    for (const { pid, line } of system.processes()) if (line.includes("bin/serve")) process.kill(pid, "SIGKILL");
    await system.empty(8);
    await system.start();
    assert.deepEqual((await system.json("/api/list_keys", { method: "POST" })).keys, samples);
  });
});

test("foreign servers on the standard ports and on ours are left alone", async (t) => {
  const folder = mkdtempSync(path.join(tmpdir(), "pixcache-foreign-"));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  const env = { PATH: `${process.env.PATH}:/usr/sbin` };
  const foreign = [];
  t.after(async () => {
    for (const child of foreign) await child.end("SIGTERM");
  });

  // A nats-server on 4222 and a MariaDB on 3306, unless the machine has its own there already.
  const monitor = await freePort();
  if (await isFree(4222)) {
    foreign.push(new Child("nats-server", ["-a", "127.0.0.1", "-p", "4222", "-m", String(monitor)], { cwd: folder, env }));
    await until("the foreign nats-server", async () => (await fetch(`http://127.0.0.1:${monitor}/healthz`)).ok);
  }
  const data = path.join(folder, "data");
  const socket = path.join(folder, "s");
  const admin = (sql) => command("mariadb", ["--no-defaults", `--socket=${socket}`, "-BNe", sql], { env });
  if (await isFree(3306)) {
    const user = process.getuid() === 0 ? ["--loose-user=root"] : [];
    const made = await command("mariadb-install-db", ["--no-defaults", `--datadir=${data}`, "--skip-test-db", `--auth-root-socket-user=${(await command("id", ["-un"])).out.trim()}`, ...user], { env });
    assert.equal(made.code, 0, made.all);
    foreign.push(new Child("mariadbd", ["--no-defaults", ...user, `--datadir=${data}`, `--socket=${socket}`, "--bind-address=127.0.0.1", "--port=3306", "--innodb-use-native-aio=OFF"], { env }));
    await until("the foreign MariaDB", async () => (await admin("SELECT 1")).code === 0);
  }
  // Somebody else on each port that bin/run would take first.
  const holders = [];
  for (const port of [5000, 14222, 13306]) if (await isFree(port)) holders.push(await listen(port));
  t.after(() => holders.forEach((holder) => holder.close()));

  const system = fresh(t);
  await system.start();
  for (const [name, port] of [["PORT", 5000], ["NATS_PORT", 14222], ["DB_PORT", 13306]]) {
    assert.notEqual(Number(system.env[name]), port, name);
    assert.ok(![4222, 3306].includes(Number(system.env[name])), `${name} is a standard port`);
  }
  assert.deepEqual((await system.json("/api/list_keys", { method: "POST" })).keys, samples);
  await system.bin("stop");

  for (const child of foreign) assert.ok(child.running, child.output);
  for (const holder of holders) assert.equal(holder.received, 0);
  if (foreign.length === 2) {
    const { total_connections: connections } = await (await fetch(`http://127.0.0.1:${monitor}/varz`)).json();
    assert.equal(connections, 0, "the foreign nats-server was connected to");
    const users = (await admin("SELECT COUNT(*) FROM mysql.user WHERE User LIKE 'pixcache%'")).out.trim();
    assert.equal(users, "0");
    assert.doesNotMatch((await admin("SHOW DATABASES")).out, /pixcache/);
    // This test's own: until it answered, the count above, the databases and this one.
    const aborted = (await admin("SHOW GLOBAL STATUS LIKE 'Aborted_connects'")).out.trim();
    assert.equal(aborted, "Aborted_connects\t0");
  }
});

test("servers of one's own: none is started, and the accounts are made in them", async (t) => {
  const theirs = fresh(t, "pixcache-own-servers-");
  await theirs.start();
  await theirs.bin("stop");
  const servers = new Parts(theirs);
  servers.start("nats", "mariadb");
  await until("their MariaDB", () => theirs.sql("SELECT 1"));
  await theirs.sql("CREATE USER admin@'%' IDENTIFIED BY 'p/%40 ss'; GRANT ALL PRIVILEGES ON *.* TO admin@'%' WITH GRANT OPTION; DROP DATABASE pixcache; DROP USER pixcache_gateway@'%', pixcache_recorder@'%', pixcache_migration@'%'");

  const system = fresh(t);
  const { NATS_PORT, DB_PORT } = theirs.env;
  const passwords = Object.fromEntries(Object.entries(theirs.env).filter(([name]) => name.endsWith("_PASSWORD")));
  const own = {
    NATS_URL: `nats://127.0.0.1:${NATS_PORT}`,
    DATABASE_URL: `mysql://admin:p%2F%2540%20ss@127.0.0.1:${DB_PORT}`,
    ...passwords,
  };
  const wrong = await system.bin("run", ["--no-build", "--detach"], { env: { ...own, DATABASE_URL: own.DATABASE_URL.replace("p%2F", "wrong") } });
  assert.equal(wrong.code, 1);
  assert.match(wrong.err, /denied[^]*the account of DATABASE_URL cannot/);
  assert.deepEqual(system.processes(), []);

  await system.start({ env: own });
  assert.deepEqual((await system.json("/api/list_keys", { method: "POST" })).keys, samples);
  assert.ok(system.processes().every(({ line }) => !/^nats-server|mariadbd/.test(line)), "a server was started");
  assert.ok(!existsSync(system.at("var/nats")) && !existsSync(system.at("var/mariadb")));
  assert.equal(JSON.parse((await system.bin("nats", ["req", "cache.stats", "", "--raw"])).out).worker, "memcache-1");
  const stop = await system.bin("stop");
  assert.ok(stop.seconds < 4, `${stop.seconds} s`);
  assert.doesNotMatch(system.log, /SIGKILL|exited with code [1-9]/);
  // What was given once is kept.
  await system.start();
  assert.equal((await system.fetch("/readyz")).status, 200);
  await system.bin("stop");
  assert.deepEqual(await servers.stopAll(), { nats: 0, mariadb: 0 });
});

test("an ordinary user runs it as well as root does", async (t) => {
  const system = fresh(t, "pixcache-user-", { copied: true });
  const user = {};
  if (process.getuid() === 0) {
    // nobody: on every system, and with no rights anywhere.
    const [uid, gid] = [(await command("id", ["-u", "nobody"])).out, (await command("id", ["-g", "nobody"])).out].map(Number);
    Object.assign(user, { uid, gid, env: { HOME: system.folder, PATH: "/usr/local/bin:/usr/bin:/bin" } });
    const own = (folder) => {
      chownSync(folder, uid, gid);
      for (const entry of readdirSync(folder, { withFileTypes: true })) {
        if (entry.isDirectory()) own(path.join(folder, entry.name));
        else chownSync(path.join(folder, entry.name), uid, gid);
      }
    };
    own(system.folder);
    chmodSync(system.folder, 0o755);
  }
  const run = await system.bin("run", ["--no-build", "--detach"], user);
  assert.equal(run.code, 0, run.all);
  assert.equal(lastLine(run.out), system.url);
  assert.deepEqual((await system.json("/api/list_keys", { method: "POST" })).keys, samples);
  for (const { pid, line } of system.processes()) {
    if (user.uid) assert.equal(statSync(`/proc/${pid}`).uid, user.uid, line);
  }
  const stop = await system.bin("stop", [], user);
  assert.equal(stop.code, 0, stop.all);
  assert.deepEqual(system.processes(), []);
});
