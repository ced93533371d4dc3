// What holds while things break: two gateways, two workers, the recorder, nats-server and MariaDB under load, each kind of
// fault once at random points. A seed that fails is printed; with `target/release/bench faults --short --seed N` the
// same faults come again.

import assert from "node:assert/strict";
import path from "node:path";
import { test } from "node:test";
import { built, command, repository } from "./lib/checkout.mjs";

async function faults(t, ...more) {
  const bench = path.join(repository, "target/debug/bench");
  const run = await command(bench, ["faults", "--short", "--bin-dir", path.join(repository, built), ...more], { seconds: 400 });
  assert.equal(run.code, 0, `${run.signal ?? ""}\n${run.all}`);
  t.diagnostic(run.out.split("\n", 1)[0]);
}

// On a second nats-server, those that show how it behaves.
const which = process.env.FAULTS === "bus" ? ["--bus"] : [];

test("every promise holds while each kind of fault strikes once", (t) => faults(t, ...which));

test("every promise holds while the route between two nats-servers is cut", (t) => faults(t, "--nats", "2", "--only", "route between nats-servers cut"));
