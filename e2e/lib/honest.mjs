// Honest clients beside rude ones: they read and upload without a pause, each time over a new connection, look at every
// byte that they get, and remember how long it took. They run in a thread of their own, so that what the rude ones keep
// busy in this process does not count as the gateway's.

import { createHash } from "node:crypto";
import http from "node:http";
import { setTimeout as delay } from "node:timers/promises";
import { isMainThread, parentPort, Worker, workerData } from "node:worker_threads";

/** Nobody should wait so long, however busy the machine is. */
const patience_ms = 15_000;

function request(port, method, path, body) {
  return new Promise((resolve, reject) => {
    const began = performance.now();
    // From an address of their own: one address gets three quarters of all turns at most.
    const call = http.request({ host: "127.0.0.1", localAddress: "127.0.0.2", port, method, path, agent: false, timeout: patience_ms }, (response) => {
      const chunks = [];
      response.on("data", (chunk) => chunks.push(chunk));
      response.on("error", reject);
      response.on("end", () => {
        if (!response.complete) reject(new Error(`${method} ${path}: the answer broke off`));
        resolve({ status: response.statusCode, body: Buffer.concat(chunks), ms: performance.now() - began });
      });
    });
    call.on("timeout", () => call.destroy(new Error(`${method} ${path}: no answer within ${patience_ms} ms`)));
    call.on("error", reject);
    call.end(body);
  });
}

async function live() {
  const { port, images } = workerData;
  const hash = (bytes) => createHash("sha256").update(bytes).digest("hex");
  const hashes = images.map(hash);
  let reads = [];
  let uploads = [];
  let errors = [];
  let stop = false;
  const again = async (times, once) => {
    while (!stop) {
      try {
        times().push(await once());
      } catch (error) {
        errors.push(`${error.code ?? ""} ${error.message}`.trim());
      }
      await delay(10);
    }
  };
  const check = (answer, expected, what) => {
    if (answer.status !== expected) throw new Error(`${what} is answered ${answer.status}: ${answer.body.subarray(0, 300)}`);
  };
  let turn = 0;
  const reader = async () => {
    const number = turn++ % images.length;
    const answer = await request(port, "GET", `/images/honest${number}`);
    check(answer, 200, "a read");
    if (hash(answer.body) !== hashes[number]) throw new Error("a read brought other bytes");
    return answer.ms;
  };
  let last = 0;
  const uploader = async () => {
    last = (last + 1) % images.length;
    const stored = await request(port, "PUT", "/images/changing", images[last]);
    if (stored.status !== 201) check(stored, 200, "an upload");
    const answer = await request(port, "GET", "/images/changing");
    check(answer, 200, "the read after an upload");
    if (hash(answer.body) !== hashes[last]) throw new Error("an older image was read after an upload");
    return stored.ms;
  };
  parentPort.on("message", (message) => {
    if (message === "report") {
      parentPort.postMessage({ reads, uploads, errors });
      [reads, uploads, errors] = [[], [], []];
    } else stop = true;
  });
  await Promise.all([again(() => reads, reader), again(() => reads, reader), again(() => uploads, uploader)]);
  parentPort.close();
}

const percentile = (sorted, share) => sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))];

export class Honest {
  /** Stores the images that will be read, and starts. */
  static async start(port, images) {
    for (const [number, image] of images.entries()) await request(port, "PUT", `/images/honest${number}`, image);
    return new Honest(new Worker(new URL(import.meta.url), { workerData: { port, images } }));
  }

  constructor(worker) {
    this.worker = worker;
    this.died = new Promise((_, reject) => worker.once("error", reject));
    this.died.catch(() => {});
  }

  /** What has happened since the last report: counts, errors, and the times in milliseconds. */
  async report() {
    const answer = new Promise((resolve) => this.worker.once("message", resolve));
    this.worker.postMessage("report");
    const { reads, uploads, errors } = await Promise.race([answer, this.died]);
    const times = (list) => {
      const sorted = list.toSorted((a, b) => a - b);
      return { count: sorted.length, p50: percentile(sorted, 0.5), p99: percentile(sorted, 0.99), max: sorted.at(-1) };
    };
    return { reads: times(reads), uploads: times(uploads), errors };
  }

  async stop() {
    const ended = new Promise((resolve) => this.worker.once("exit", resolve));
    this.worker.postMessage("stop");
    await ended;
  }
}

if (!isMainThread) await live();
