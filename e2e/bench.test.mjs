// Every measurement of the bench, for a few seconds: that each starts its systems and peers, loads them without an error
// and writes its report. What the figures are is not looked at: a machine that tests run on says nothing about that.

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { test } from "node:test";
import { built } from "./lib/checkout.mjs";

const commands = ["hitratio", "pictures", "bus", "peers", "graphs", "scale"];

test("every measurement runs and writes its report", (t) => {
  const root = path.resolve(import.meta.dirname, "..");
  const out = mkdtempSync(path.join(tmpdir(), "pixcache-bench-"));
  t.after(() => rmSync(out, { recursive: true }));
  const bench = path.join(root, "target/debug/bench");
  const options = { cwd: root, encoding: "utf8", timeout: 240_000, maxBuffer: 1 << 26 };
  const run = spawnSync(bench, ["all", "--quick", "--bin-dir", path.join(root, built), "--out", out], options);
  assert.equal(run.status, 0, `${run.error ?? run.signal ?? ""}\n${run.stdout}\n${run.stderr}`);
  for (const command of commands) {
    const folder = path.join(out, command);
    const report = JSON.parse(readFileSync(path.join(folder, "report.json"), "utf8"));
    const rows = Object.values(report.tables).flat();
    assert.ok(rows.length > 0, `${command} has no figures`);
    assert.match(readFileSync(path.join(folder, "report.md"), "utf8"), /^# .*\n\n\*\*Command:\*\* `bench /);
    for (const chart of readdirSync(folder).filter((file) => file.endsWith(".svg"))) {
      const svg = readFileSync(path.join(folder, chart), "utf8");
      assert.match(svg, /^<svg [^>]*>[^]*<polyline [^>]*>[^]*<\/svg>\s*$/, `${command}/${chart} shows no line`);
    }
  }
  const times = run.stdout.split("\n").filter((line) => /^bench \w+: /.test(line));
  t.diagnostic(times.join(", "));
});
