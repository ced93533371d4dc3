// Images and database are two halves: what happens when one of them is lost, and how both are backed up and restored.

import assert from "node:assert/strict";
import { cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { suite, test } from "node:test";
import { checkout, command, sample, samples, until } from "./lib/checkout.mjs";

const store = async (system) => (await (await system.fetch("/readyz")).json()).parts.store;

const put = (system, key, bytes) => system.fetch(`/images/${key}`, { method: "PUT", body: bytes });

async function stopped(system) {
  const stop = await system.bin("stop");
  assert.equal(stop.code, 0, stop.all);
}

/** An image that is like no other. */
const image = (number) => Buffer.concat([sample("chelsea.png"), Buffer.from([number])]);

suite("a checkout that lost one of its halves", () => {
  for (const [lost, kept, reason] of [
    ["var/mariadb", "var/images", /the image store has the id [0-9a-f]{32} and the database none/],
    ["var/images", "var/mariadb", /the database has the id [0-9a-f]{32} and the image store none/],
  ]) {
    test(`${lost}: bin/run says so, changes nothing, and goes on when it is back`, async (t) => {
      const system = checkout(t);
      await system.start();
      await stopped(system);
      renameSync(system.at(lost), system.at("aside"));
      const run = await system.start();
      assert.match(run.err, new RegExp(`${lost} is gone, and ${kept} `));
      assert.match(run.err, /The images and the database do not belong together/);
      assert.match(run.err, reason);
      assert.match(run.err, /bin\/adopt/);
      assert.equal(run.out.trimEnd().split("\n").at(-1), system.url);
      const refused = await put(system, "new", image(1));
      assert.equal(refused.status, 503);
      assert.match((await refused.json()).error.message, reason);
      assert.match(await (await system.fetch("/")).text(), /Image store/);
      // Also for whoever calls it again.
      const again = await system.start();
      assert.match(again.err, /runs already/);
      assert.match(again.err, reason);
      await stopped(system);

      rmSync(system.at(lost), { recursive: true });
      renameSync(system.at("aside"), system.at(lost));
      const right = await system.start();
      assert.doesNotMatch(right.err, /gone|belong together/);
      for (const name of samples) assert.deepEqual((await system.read(name)).bytes, sample(name), name);
      assert.equal((await put(system, "new", image(1))).status, 201);
    });
  }

  test("bin/adopt says what it finds, joins them if it is told to, and the system goes on", async (t) => {
    const system = checkout(t);
    await system.start();
    await stopped(system);
    rmSync(system.at("var/mariadb"), { recursive: true });
    await system.start();
    const asked = await system.bin("adopt");
    assert.equal(asked.code, 1, asked.all);
    assert.match(asked.out, new RegExp(`files that no row names\\s+${samples.length}\\n`));
    assert.match(asked.out, /rows {2,}0\n/);
    assert.match(asked.err, /nothing was changed/);
    assert.equal((await store(system)).ok, false);
    const adopted = await system.bin("adopt", ["--yes"]);
    assert.equal(adopted.code, 0, adopted.all);
    await until("it goes on", async () => (await store(system)).ok);
    assert.equal((await put(system, "new", image(1))).status, 201);
  });
});

suite("backup", () => {
  const backup = (system, to, env = {}) => command(path.join(system.folder, "deploy/backup"), [system.at("backup.cnf"), system.at("var/images"), to], { env });

  function optionFile(system) {
    const url = new URL(system.env.MIGRATION_DATABASE_URL);
    writeFileSync(system.at("backup.cnf"), `[client]\nhost=${url.hostname}\nport=${url.port}\nuser=${url.username}\npassword=${url.password}\n`);
  }

  async function load(system, folder, names) {
    for (const name of names) {
      const sql = readFileSync(path.join(folder, name));
      const run = await command("mariadb", [`--defaults-extra-file=${system.at("backup.cnf")}`, "pixcache"], { input: sql });
      assert.equal(run.code, 0, run.all);
    }
  }

  test("the rows of last night find all their files, and both halves make a new installation", async (t) => {
    const system = checkout(t);
    await system.start();
    optionFile(system);
    for (let number = 0; number < 6; number += 1) assert.equal((await put(system, `cat-${number}`, image(number))).status, 201);
    const to = system.at("var/backup");
    const made = await backup(system, to);
    assert.equal(made.code, 0, made.all);
    const id = readFileSync(system.at("var/images/pixcache-id"), "utf8");
    assert.equal(readFileSync(path.join(to, "images/pixcache-id"), "utf8"), id);
    assert.match(readFileSync(path.join(to, "statistics.sql"), "utf8"), new RegExp(id.trim()));
    assert.equal(existsSync(path.join(to, "images/trash")), false);

    // A day passes, and then the database is lost and last night's put in its place, while all runs.
    assert.equal((await put(system, "cat-0", image(100))).status, 200);
    assert.equal((await system.fetch("/images/cat-1", { method: "DELETE" })).status, 204);
    assert.equal((await put(system, "cat-9", image(9))).status, 201);
    await load(system, to, ["images.sql", "statistics.sql"]);
    await system.fetch("/api/cache/clear", { method: "POST" });
    for (let number = 0; number < 6; number += 1) assert.deepEqual((await system.read(`cat-${number}`)).bytes, image(number), `cat-${number}`);
    assert.equal((await store(system)).ok, true);
    // A backup of that is whole too, whatever of it still lies in the trash.
    assert.equal((await system.fetch("/images/cat-2", { method: "DELETE" })).status, 204);
    await load(system, to, ["images.sql"]);
    const second = await backup(system, system.at("var/second"));
    assert.equal(second.code, 0, second.all);
    const sums = await command("sha256sum", ["--check", "--quiet", "../SHA256SUMS"], { cwd: system.at("var/second/images") });
    assert.equal(sums.code, 0, sums.all);
    await stopped(system);

    const other = checkout(t);
    await other.start();
    optionFile(other);
    await load(other, to, ["images.sql", "statistics.sql"]);
    await until("it is found that they do not belong together", async () => !(await store(other)).ok);
    cpSync(path.join(to, "images"), other.at("var/images"), { recursive: true });
    await until("they do again", async () => (await store(other)).ok);
    await other.fetch("/api/cache/clear", { method: "POST" });
    for (let number = 0; number < 6; number += 1) assert.deepEqual((await other.read(`cat-${number}`)).bytes, image(number), `cat-${number}`);
  });

  test("both programs of a pair must be there before anything is done", async (t) => {
    const system = checkout(t);
    mkdirSync(system.at("var/images"), { recursive: true });
    writeFileSync(system.at("backup.cnf"), "[client]\n");
    const programs = mkdtempSync(path.join(tmpdir(), "pixcache programs "));
    t.after(() => rmSync(programs, { recursive: true }));
    const called = path.join(programs, "called");
    const fake = (name) => writeFileSync(path.join(programs, name), `#!/bin/sh\necho "${name}" >>'${called}'\nexit 1\n`, { mode: 0o755 });
    for (const name of ["bash", "sh", "env", "realpath", "rm", "mkdir", "cp", "comm", "cut", "find", "grep", "sort", "wc", "xargs", "sleep", "cat"]) {
      const found = await command("sh", ["-c", `command -v ${name}`]);
      symlinkSync(found.out.trim(), path.join(programs, name));
    }
    const to = system.at("var/backup");
    for (const half of [["mariadb"], ["mariadb-dump"], ["mysql", "mariadb"], ["mysqldump", "mariadb-dump"]]) {
      for (const name of half) fake(name);
      const run = await backup(system, to, { PATH: programs });
      assert.equal(run.code, 1, half.join());
      assert.match(run.err, /neither mariadb with mariadb-dump nor mysql with mysqldump is installed/, half.join());
      assert.equal(existsSync(called), false, "neither of them was started");
      assert.equal(existsSync(`${to}.part`), false, "nothing was made");
      for (const name of half) rmSync(path.join(programs, name));
    }
    // A half pair is no reason not to take the other.
    for (const name of ["mariadb", "mysql", "mysqldump"]) fake(name);
    await backup(system, to, { PATH: programs });
    assert.match(readFileSync(called, "utf8"), /^mysql$/m);
    assert.doesNotMatch(readFileSync(called, "utf8"), /^mariadb$/m);
  });
});
