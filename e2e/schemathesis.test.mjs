// schemathesis asks everything that /api/openapi.json describes, with all of its checks, and what the document rules out.

import assert from "node:assert/strict";
import { test } from "node:test";
import path from "node:path";
import { checkout, command, repository } from "./lib/checkout.mjs";

const folder = path.join(repository, "e2e");
// Valid and invalid requests for each operation. A run by hand takes more, and other seeds: EXAMPLES and SEED.
const { EXAMPLES: examples = "40", SEED: seed = "1" } = process.env;

for (const [name, token] of [
  ["to everybody", undefined],
  ["to those with the token", "a-token-of-this-test-alone"],
]) {
  test(`the interface is what its document says, ${name}`, async (t) => {
    const system = checkout(t);
    // A small limit, so that what is too large is soon made.
    await system.start({ env: { MAX_IMAGE_MB: "1", ...(token && { ADMIN_TOKEN: token }) }, args: ["--samples"] });
    const run = await command(
      "schemathesis",
      [
        `--config-file=${path.join(folder, "schemathesis.toml")}`,
        "run",
        `${system.url}/api/openapi.json`,
        "--checks=all",
        `--max-examples=${examples}`,
        `--seed=${seed}`,
        ...(token ? [`--header=Authorization: Bearer ${token}`] : []),
      ],
      {
        cwd: system.at("var"),
        env: {
          SCHEMA_HOOKS: path.join(folder, "schemathesis/hooks.py"),
          SCHEMA_SYSTEM: system.url,
          SCHEMA_TOKEN: token ?? "",
          HYPOTHESIS_STORAGE_DIRECTORY: system.at("var/hypothesis"),
          PYTHONDONTWRITEBYTECODE: "1",
        },
        seconds: 3600,
      },
    );
    assert.equal(run.code, 0, run.all);
    const [, operations, tested] = /Selected: (\d+)\/\d+\s+Tested: (\d+)/.exec(run.out) ?? assert.fail(run.all);
    const described = await system.json("/api/openapi.json", { headers: token ? { authorization: `Bearer ${token}` } : {} });
    // It has read the document itself already, and streams have no end.
    const paths = Object.entries(described.paths).filter(([path]) => path !== "/api/openapi.json" && !path.startsWith("/events/"));
    const all = paths.flatMap(([, item]) => Object.keys(item));
    assert.deepEqual([Number(operations), Number(tested)], [all.length, all.length]);
    const cases = Number(/(\d+) generated, \1 passed/.exec(run.out)?.[1] ?? /(\d+) generated/.exec(run.out)?.[1]);
    assert.ok(cases > 10 * all.length, run.out);
    t.diagnostic(`${cases} requests to ${all.length} operations, seed ${seed}`);
    // Nothing has fallen over, and the log knows of no failure of our own.
    await system.ready(10);
    assert.doesNotMatch(system.log, /a request failed|panicked/);
  });
}
