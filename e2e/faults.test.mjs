// What holds while things break: two gateways, two workers, the recorder, nats-server and MariaDB under load, each kind of
// fault once at random points. A seed that fails is printed; with `target/release/bench faults --short --seed N` the
// same faults come again.

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import path from "node:path";
import { test } from "node:test";

const root = path.resolve(import.meta.dirname, "..");

function faults(t, ...more) {
  const bench = path.join(root, "target/debug/bench");
  const run = spawnSync(bench, ["faults", "--short", "--bin-dir", path.join(root, "target/release"), ...more], { encoding: "utf8", timeout: 400_000, maxBuffer: 1 << 26 });
  assert.equal(run.status, 0, `${run.error ?? run.signal ?? ""}\n${run.stdout}\n${run.stderr}`);
  t.diagnostic(run.stdout.split("\n", 1)[0]);
}

test("every promise holds while each kind of fault strikes once", (t) => faults(t));

test("every promise holds while the route between two nats-servers is cut", (t) => faults(t, "--nats", "2", "--only", "route between nats-servers cut"));
