// A checkout of its own for a test: a temporary folder that is linked to this repository, with its own .env and var/.
// Commands typed in it do what they would do in a fresh clone, minus the compiling.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { cpSync, existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, readlinkSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { fileURLToPath } from "node:url";

export const repository = path.resolve(path.dirname(fileURLToPath(import.meta.url)), "../..");
// Where the programs are in a checkout, as bin/lib/common.sh says.
export const built = process.env.PIXCACHE_PROFILE === "dev" ? "target/debug" : "target/release";
export const samples = readdirSync(path.join(repository, "samples")).filter((name) => /\.(png|jpg)$/.test(name)).sort();
export const sample = (name) => readFileSync(path.join(repository, "samples", name));

// What belongs to one checkout alone.
const own = new Set([".git", ".env", ".env.new", "var", "target", "node_modules"]);
// What the services and commands read, so that a setting of whoever runs the tests reaches none of them.
const settings =
  /^(HOST|PORT|OVERMIND_|NATS_|DB_PORT|.*DATABASE_URL|.*DATABASE_USER|ALLOWED_HOSTS|CORS_ORIGINS|TRUSTED_PROXIES|IMAGE_|BLOB_URL|STORE_TIMEOUT_S|TRASH_DAYS|SWEEP_|TEMPLATE_DIR|MAX_|CACHE_|CLAIM_MS|NEAR_|DATABASE_CONNECTIONS|STATS_|WORKER_NAME|LOG_FORMAT|RUST_LOG|SHUTDOWN_GRACE_MS|VARIANTS_AT_UPLOAD|DEPENDENCY_TIMEOUT_S|ADMIN_TOKEN|PRIVATE|PIXCACHE_(?!PROFILE)|NODE_TEST_CONTEXT|AWS_)/;

/** The environment of the tests without any setting of pixcache, and with `extra`. */
export function environment(extra = {}) {
  const env = Object.fromEntries(Object.entries(process.env).filter(([name]) => !settings.test(name)));
  return { ...env, ...extra };
}

/** Waits until `condition` returns something true, and returns that. */
export async function until(what, condition, seconds = 30) {
  const deadline = Date.now() + seconds * 1000;
  let last;
  for (;;) {
    try {
      const value = await condition();
      if (value) return value;
      last = value;
    } catch (error) {
      last = error;
    }
    if (Date.now() > deadline) throw new Error(`after ${seconds} s still not: ${what} (last: ${last?.message ?? JSON.stringify(last)})`, { cause: last });
    await delay(25);
  }
}

/** Runs a command to its end and until nobody holds its output open any longer. */
export async function command(file, args, { input, cwd, env = {}, uid, gid, seconds = 120 } = {}) {
  const began = Date.now();
  const child = spawn(file, args, { cwd, env: environment(env), uid, gid, stdio: [input === undefined ? "ignore" : "pipe", "pipe", "pipe"] });
  const stdout = [];
  const stderr = [];
  child.stdout.on("data", (data) => stdout.push(data));
  child.stderr.on("data", (data) => stderr.push(data));
  // A command that ends without reading its input is no failure of the test.
  child.stdin?.on("error", (error) => error.code === "EPIPE" || stderr.push(Buffer.from(String(error))));
  if (input !== undefined) child.stdin.end(input);
  const timer = setTimeout(() => child.kill("SIGKILL"), seconds * 1000);
  const [code, signal] = await once(child, "close");
  clearTimeout(timer);
  return {
    code,
    signal,
    bytes: Buffer.concat(stdout),
    out: Buffer.concat(stdout).toString(),
    err: Buffer.concat(stderr).toString(),
    all: Buffer.concat([...stdout, ...stderr]).toString(),
    seconds: (Date.now() - began) / 1000,
  };
}

/** A long-running child whose output is kept. */
export class Child {
  constructor(file, args, { cwd, env = {}, uid, gid } = {}) {
    this.output = "";
    this.stdout = "";
    // A process group of its own, as a shell gives a job.
    this.process = spawn(file, args, { cwd, env: environment(env), uid, gid, detached: true, stdio: ["ignore", "pipe", "pipe"] });
    this.process.stdout.on("data", (data) => {
      this.output += data;
      this.stdout += data;
    });
    this.process.stderr.on("data", (data) => (this.output += data));
    this.pid = this.process.pid;
    this.exited = once(this.process, "exit").then(([code, signal]) => ({ code, signal }));
    this.closed = once(this.process, "close");
  }

  get running() {
    return this.process.exitCode === null && this.process.signalCode === null;
  }

  kill(signal) {
    this.process.kill(signal);
  }

  /** Ends it with a signal and returns its exit code, or the signal that it died of. */
  async end(signal = "SIGTERM") {
    this.kill(signal);
    const { code, signal: died } = await this.exited;
    return code ?? died;
  }

  /** What Ctrl-C in a terminal does: a signal to the whole process group. */
  interrupt() {
    process.kill(-this.pid, "SIGINT");
  }
}

// Below the ports that the system hands out by itself; each test file, which is a process, begins somewhere else.
const ports = { first: 20_000, count: 12_000, next: (process.pid * 61) % 12_000 };

/** A port that no other test file is given at the same time. bin/run takes another one if somebody has it. */
function port() {
  return ports.first + (ports.next++ % ports.count);
}

export class Checkout {
  /**
   * `copied` is for another user, who may not be able to read this repository. A `bare` one has no .env: bin/run finds its
   * ports as in a fresh clone, and only one such system may be started at a time.
   */
  constructor(name = "pixcache e2e ", { copied = false, bare = false } = {}) {
    this.folder = mkdtempSync(path.join(tmpdir(), name));
    for (const entry of readdirSync(repository)) {
      if (own.has(entry) || (copied && !["bin", "Procfile", "Cargo.toml", "nats.conf", "samples", "templates"].includes(entry))) continue;
      if (copied) cpSync(path.join(repository, entry), this.at(entry), { recursive: true });
      else symlinkSync(path.join(repository, entry), this.at(entry));
    }
    if (copied) {
      mkdirSync(this.at(built), { recursive: true });
      for (const service of ["gateway", "memcache", "recorder"]) {
        cpSync(path.join(repository, built, service), this.at(built, service));
      }
    } else {
      symlinkSync(path.join(repository, "target"), this.at("target"));
    }
    if (!bare) writeFileSync(this.at(".env"), ["PORT", "NATS_PORT", "DB_PORT"].map((name) => `${name}=${port()}\n`).join(""), { mode: 0o600 });
    this.children = [];
  }

  at(...parts) {
    return path.join(this.folder, ...parts);
  }

  /** Types a command of bin/ and waits for its end. */
  bin(name, args = [], options = {}) {
    return command(this.at("bin", name), args, { cwd: this.folder, ...options });
  }

  /** Starts something that stays. */
  spawn(file, args = [], options = {}) {
    const child = new Child(file, args, { cwd: this.folder, ...options });
    this.children.push(child);
    return child;
  }

  /** `bin/run --detach`, which must succeed; the build is there already. */
  async start({ env = {}, args = [] } = {}) {
    const run = await this.bin("run", ["--no-build", "--detach", ...args], { env });
    if (run.code !== 0) throw new Error(`bin/run failed with ${run.code}:\n${run.all}`);
    return run;
  }

  /** The settings that bin/run wrote. */
  get env() {
    const lines = readFileSync(this.at(".env"), "utf8").split("\n");
    return Object.fromEntries(lines.filter((line) => /^\w+=/.test(line)).map((line) => [line.slice(0, line.indexOf("=")), line.slice(line.indexOf("=") + 1)]));
  }

  get url() {
    return `http://127.0.0.1:${this.env.PORT}`;
  }

  fetch(pathname, options = {}) {
    return fetch(this.url + pathname, { signal: AbortSignal.timeout(20_000), ...options });
  }

  async json(pathname, options) {
    const response = await this.fetch(pathname, options);
    const text = await response.text();
    if (!response.ok) throw new Error(`${pathname}: ${response.status} ${text}`);
    return JSON.parse(text);
  }

  ready(seconds = 60) {
    return until(
      "ready",
      async () => {
        const response = await this.fetch("/readyz");
        const text = await response.text();
        if (!response.ok) throw new Error(text);
        return true;
      },
      seconds,
    );
  }

  /** Reads an image through the gateway and tells what the cache did: hit, miss or bypass. */
  async read(key) {
    const response = await this.fetch(`/images/${encodeURIComponent(key)}`);
    const bytes = Buffer.from(await response.arrayBuffer());
    const status = response.headers.get("cache-status") ?? "";
    const what = /;\s*hit/.test(status) ? "hit" : /fwd=(\w+)/.exec(status)?.[1];
    return { status: response.status, bytes, what, cacheStatus: status, headers: response.headers };
  }

  /** Rows of a query, as arrays of text. */
  async sql(query) {
    const run = await command("mariadb", ["--no-defaults", "--socket=../run/mariadb.sock", "--batch", "--skip-column-names", "pixcache", "--execute", query], {
      cwd: this.at("var/mariadb"),
      env: { PATH: `${process.env.PATH}:/usr/sbin` },
    });
    if (run.code !== 0) throw new Error(run.all);
    return run.out.split("\n").filter(Boolean).map((line) => line.split("\t"));
  }

  /** The pid that plays a role. */
  pid(role) {
    return Number(readFileSync(this.at("var/run", `${role}.pid`), "utf8").split(" ")[0]);
  }

  /** Every process that works in this folder, however it was started. */
  processes() {
    const found = [];
    for (const pid of readdirSync("/proc").filter((name) => /^\d+$/.test(name))) {
      try {
        const cwd = readlinkSync(`/proc/${pid}/cwd`);
        if (cwd !== this.folder && !cwd.startsWith(this.folder + "/")) continue;
        const state = /^State:\s+(\w)/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"))[1];
        if (state === "Z") continue;
        found.push({ pid: Number(pid), line: readFileSync(`/proc/${pid}/cmdline`, "utf8").replaceAll("\0", " ").trim() });
      } catch (error) {
        // It ended while it was looked at, or is another user's.
        if (!["ENOENT", "ESRCH", "EACCES"].includes(error.code)) throw error;
      }
    }
    return found;
  }

  /** Waits until nothing of this checkout runs, and returns how long that took in seconds. */
  async empty(seconds = 10) {
    const began = Date.now();
    await until("no process left", () => this.processes().length === 0 || Promise.reject(new Error(JSON.stringify(this.processes()))), seconds);
    return (Date.now() - began) / 1000;
  }

  get log() {
    return existsSync(this.at("var/log/run.log")) ? readFileSync(this.at("var/log/run.log"), "utf8") : "";
  }

  /** Stops what is left and removes the folder. What had to be killed fails the test. */
  async remove() {
    for (const child of this.children) if (child.running) child.kill("SIGTERM");
    if (existsSync(this.at("var/run"))) await this.bin("stop");
    let left = [];
    try {
      await this.empty(8);
    } catch {
      left = this.processes();
      for (const { pid } of left) {
        try {
          process.kill(pid, "SIGKILL");
        } catch (error) {
          if (error.code !== "ESRCH") throw error;
        }
      }
      await this.empty(5);
    }
    rmSync(this.folder, { recursive: true, force: true });
    if (left.length) throw new Error(`still running at the end of the test: ${JSON.stringify(left)}`);
  }
}

/** A checkout for one test or suite, removed after it whatever happens. */
export function checkout(t, name, options) {
  const made = new Checkout(name, options);
  t.after(() => made.remove());
  return made;
}

/** Starts each line of the Procfile by itself, so that single ones can be stopped, killed and started again. */
export class Parts {
  constructor(checkout, env = {}) {
    this.checkout = checkout;
    this.env = env;
    this.parts = {};
  }

  start(...names) {
    for (const name of names) this.parts[name] = this.checkout.spawn("bin/serve", [name], { env: this.env });
  }

  async startAll() {
    this.start("gateway", "memcache", "recorder", "nats", "mariadb");
    await this.checkout.ready();
  }

  /** Stops one part and returns its exit code. */
  stop(name, signal = "SIGTERM") {
    return this.parts[name].end(signal);
  }

  /** Kills one part where it hurts: the server, not the script that looks after it. */
  async kill(name) {
    process.kill(this.checkout.pid(name), "SIGKILL");
    await this.parts[name].exited;
  }

  /** Services first: the servers wait for them. */
  async stopAll() {
    const codes = {};
    await Promise.all(Object.entries(this.parts).map(async ([name, part]) => (codes[name] = part.running ? await part.end() : "gone")));
    return codes;
  }
}
