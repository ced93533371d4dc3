// Clients that are many, slow or rude, against a whole system. All the while honest ones read and upload: they must have
// every answer, no process may end or lose the bus, and what each took of the memory must come back.

import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { readFileSync } from "node:fs";
import net from "node:net";
import { after, before, suite, test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { constants, deflateRawSync, deflateSync, gzipSync } from "node:zlib";
import { Checkout, Parts, sample, samples, until } from "./lib/checkout.mjs";
import { Honest } from "./lib/honest.mjs";

const MB = 1024 * 1024;
const services = ["gateway", "memcache", "recorder", "nats"];
// What each may have at its worst, in MB. The bounds of the gateway: 128 MB of the origin's bytes in memory, 64 MB on
// their way from the cache, 532 MB of pixels (of which a PNG takes few), 64 kB for each of 4096 connections, not all of it at
// once; of the worker: 1.15 × 64 + 40, and what waits to be put.
const most_mb = { gateway: 640, memcache: 320, recorder: 160, nats: 640 };
// And what it may keep when everybody has gone.
const rest_mb = { gateway: 256, memcache: 200, recorder: 120, nats: 256 };

/** A black PNG. Its rows are all the same, so that what is compressed is one block of them, again and again. */
function black(width, height, depth, colours, bytesAPixel) {
  const rows = 100;
  const block = deflateRawSync(Buffer.alloc(rows * (1 + width * bytesAPixel)), { level: 9, finishFlush: constants.Z_FULL_FLUSH });
  // The checksum of zeros alone: the second sum counts bytes, the first one none.
  const adler = Buffer.alloc(4);
  adler.writeUInt32BE(((((height * (1 + width * bytesAPixel)) % 65521) << 16) | 1) >>> 0);
  const data = Buffer.concat([Buffer.from([0x78, 0xda]), ...Array.from({ length: height / rows }, () => block), Buffer.from([3, 0]), adler]);
  return png(width, height, depth, colours, data);
}

/** A PNG of this data, compressed already, and with these chunks before it. */
function png(width, height, depth, colours, data, chunks = []) {
  const header = Buffer.alloc(13);
  header.writeUInt32BE(width, 0);
  header.writeUInt32BE(height, 4);
  header.set([depth, colours], 8);
  const chunk = (type, data) => {
    const body = Buffer.concat([Buffer.from(type), data]);
    let crc = ~0;
    for (const byte of body) {
      crc ^= byte;
      for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ (crc & 1 ? 0xedb88320 : 0);
    }
    const numbers = Buffer.alloc(8);
    numbers.writeUInt32BE(data.length, 0);
    numbers.writeUInt32BE(~crc >>> 0, 4);
    return Buffer.concat([numbers.subarray(0, 4), body, numbers.subarray(4)]);
  };
  return Buffer.concat([Buffer.from("\x89PNG\r\n\x1a\n", "latin1"), chunk("IHDR", header), ...chunks.map(([type, content]) => chunk(type, content)), chunk("IDAT", data), chunk("IEND", Buffer.alloc(0))]);
}

/** A connection on which anything is said; what comes back is kept, up to a limit, and an end is no error. */
class Rude {
  constructor(port, { reads = true } = {}) {
    this.answer = Buffer.alloc(0);
    this.ended = false;
    this.socket = net.connect({ port, host: "127.0.0.1", noDelay: true, allowHalfOpen: false });
    this.socket.on("error", () => {});
    this.closed = new Promise((resolve) => this.socket.once("close", resolve)).then(() => (this.ended = true));
    // Whoever only waits for there being something to read takes no more than a few kilobytes of it.
    if (!reads) this.socket.on("readable", () => {});
    else {
      this.socket.on("data", (data) => {
        if (this.answer.length < MB) this.answer = Buffer.concat([this.answer, data]);
      });
    }
  }

  say(bytes) {
    if (!this.ended) this.socket.write(bytes);
    return this;
  }

  /** Says it again and again as fast as it is taken, until the other side has had enough. */
  async sayForEver(bytes, most) {
    for (let sent = 0; sent < most && !this.ended && !this.socket.destroyed; sent += bytes.length) {
      if (!this.socket.write(bytes)) await Promise.race([new Promise((resolve) => this.socket.once("drain", resolve)), this.closed]);
    }
  }

  get text() {
    return this.answer.toString("latin1");
  }

  status() {
    return Number(/^HTTP\/1\.1 (\d{3})/.exec(this.text)?.[1] ?? 0);
  }

  /** Waits until something was answered, or the connection was closed. */
  async settled(what) {
    await until(`${what} is answered or closed`, () => this.answer.length > 0 || this.ended, 20);
    return this.status();
  }

  leave() {
    this.socket.destroy();
  }
}

const rss_mb = (pid) => Number(/^VmRSS:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"))[1]) / 1024;

suite("rude clients", () => {
  let system;
  let parts;
  let honest;
  let port;
  let pids;

  before(async () => {
    system = new Checkout();
    await system.start();
    await system.bin("stop");
    parts = new Parts(system);
    await parts.startAll();
    port = Number(system.env.PORT);
    pids = Object.fromEntries(services.map((name) => [name, system.pid(name)]));
    for (const [name, pid] of Object.entries(pids)) {
      if (name === "nats") continue;
      // The pid that plays the role is that of flock; the service is its child.
      const child = readFileSync(`/proc/${pid}/task/${pid}/children`, "utf8").trim();
      if (child) pids[name] = Number(child.split(" ")[0]);
    }
    honest = await Honest.start(port, samples.map(sample));
  });

  after(async () => {
    await honest?.stop();
    await system?.remove();
  });

  const metric = async (name) => {
    const text = await (await system.fetch("/metrics")).text();
    const line = text.split("\n").find((line) => line.startsWith(name) && /[ {]/.test(line[name.length]));
    assert.ok(line, `${name} in\n${text}`);
    return Number(line.slice(line.lastIndexOf(" ") + 1));
  };

  /** One kind of rudeness, and what everybody else has of it. */
  function scene(name, rudeness, { keepsBus = true } = {}) {
    test(name, async (t) => {
      await honest.report();
      const memory = Object.fromEntries(services.map((service) => [service, { before: rss_mb(pids[service]), peak: 0 }]));
      const look = () => {
        for (const service of services) memory[service].peak = Math.max(memory[service].peak, rss_mb(pids[service]));
      };
      const watch = setInterval(look, 50);
      const connections = await metric("pixcache_cache_nats_connections_total");
      const began = performance.now();
      try {
        await rudeness(t);
        look();
      } finally {
        clearInterval(watch);
      }
      // Honest clients go on a little after it.
      let seen = { reads: 0, uploads: 0 };
      const total = { errors: [] };
      await until("honest clients have gone on", async () => {
        const report = await honest.report();
        total.errors.push(...report.errors);
        if (report.reads.count) total.reads ??= report.reads;
        if (report.uploads.count) total.uploads ??= report.uploads;
        seen = { reads: seen.reads + report.reads.count, uploads: seen.uploads + report.uploads.count };
        return (seen.reads >= 5 && seen.uploads >= 2) || Promise.reject(new Error(`${JSON.stringify(seen)} ${total.errors.slice(-3)}`));
      });
      for (const service of services) {
        await until(`${service} gives its memory back`, () => (memory[service].after = rss_mb(pids[service])) <= rest_mb[service] || Promise.reject(new Error(`${memory[service].after} MB`)), 15);
      }
      const times = ({ count, p50, p99, max }) => `${count}, p50 ${p50.toFixed(1)} ms, p99 ${p99.toFixed(1)} ms, max ${max.toFixed(0)} ms`;
      t.diagnostic(`${((performance.now() - began) / 1000).toFixed(1)} s; honest reads: ${times(total.reads)}; uploads: ${times(total.uploads)}`);
      t.diagnostic(`RSS in MB, before / peak / after: ${services.map((service) => `${service} ${["before", "peak", "after"].map((when) => memory[service][when].toFixed(0)).join(" / ")}`).join(", ")}`);
      assert.deepEqual(total.errors, []);
      for (const service of services) {
        assert.ok(memory[service].peak < most_mb[service], `${service} took ${memory[service].peak.toFixed(0)} MB`);
        assert.ok(parts.parts[service].running, `${service} has ended:\n${parts.parts[service].output}`);
        assert.doesNotThrow(() => process.kill(pids[service], 0), `${service} is another process`);
      }
      assert.equal(await metric("pixcache_gateway_slow_consumers_total"), 0);
      if (keepsBus) {
        assert.equal(await metric("pixcache_cache_nats_connections_total"), connections, "the worker has lost its connection to NATS");
        assert.equal(await metric("pixcache_gateway_nats_connections_total"), 1, "the gateway has lost its connection to NATS");
      }
    });
  }

  const get = (path, more = "") => `GET ${path} HTTP/1.1\r\nHost: localhost\r\n${more}\r\n`;
  const post = (path, more = "") => `POST ${path} HTTP/1.1\r\nHost: localhost\r\n${more}\r\n`;
  const chunk = (bytes) => Buffer.concat([Buffer.from(`${bytes.length.toString(16)}\r\n`), bytes, Buffer.from("\r\n")]);
  /** All at once, and then everybody leaves. */
  async function crowd(count, visit) {
    const clients = [];
    try {
      await Promise.all(Array.from({ length: count }, async (_, number) => {
        const client = new Rude(port);
        clients.push(client);
        await visit(client, number);
      }));
    } finally {
      for (const client of clients) client.leave();
    }
  }

  scene("heads and bodies that come a byte at a time", async () => {
    const image = sample("rocket.jpg");
    await crowd(600, async (client, number) => {
      client.say(number % 2 ? "GET / HTTP/1.1\r\nHost: localhost\r\nX-Slow: " : `PUT /images/slow${number} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n`);
      for (let at = 0; at < 20; at++) {
        client.say(number % 2 ? "x" : image.subarray(at, at + 1));
        await delay(100);
      }
      // As long as nobody waits for their places, they may.
      assert.equal(client.text, "");
      assert.equal(client.ended, false);
    });
  });

  scene("10,000 connections at once", async (t) => {
    // Each has an end in this process, too.
    const limit = Number(/^Max open files\s+(\d+)/m.exec(readFileSync("/proc/self/limits", "utf8"))[1]);
    const count = Math.min(10_000, limit - 1000);
    const evicted = await metric("pixcache_http_connections_evicted_total");
    let answered = 0;
    const clients = [];
    try {
      for (let number = 0; number < count; number++) {
        const client = new Rude(port);
        clients.push(client);
        // Half of them say nothing, the others ask.
        client.asks = number % 2 === 1;
        if (client.asks) client.say(get("/healthz"));
        if (number % 500 === 499) await delay(1);
      }
      const asking = clients.filter((client) => client.asks);
      await until("everybody who asked has an answer", () => {
        answered = asking.filter((client) => client.status() === 200).length;
        return answered === asking.length || Promise.reject(new Error(`${answered} of ${asking.length} have`));
      }, 40);
      const open = await metric("pixcache_http_connections");
      const gone = (await metric("pixcache_http_connections_evicted_total")) - evicted;
      t.diagnostic(`${count} connections: ${answered} asked and were answered, ${open} are open, ${gone} idle ones had to leave`);
      assert.ok(open <= 4096, `${open} connections are open`);
      assert.ok(count <= 4096 || gone > 0, "nobody had to leave");
    } finally {
      for (const client of clients) client.leave();
    }
    await until("their places are free", async () => (await metric("pixcache_http_connections")) < 100);
  });

  scene("forms and images without end", async () => {
    const image = sample("rocket.jpg");
    await crowd(24, async (client, number) => {
      const start = [
        "--b\r\nContent-Disposition: form-data; name=\"",
        "--b\r\nContent-Disposition: form-data; name=\"key\"\r\n\r\n",
        "--b\r\nContent-Disposition: form-data; name=\"file\"\r\n\r\n",
        "",
      ][number % 4];
      const head = start
        ? post("/api/upload", "Transfer-Encoding: chunked\r\nContent-Type: multipart/form-data; boundary=b\r\n")
        : "PUT /images/endless HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n";
      client.say(head).say(chunk(Buffer.concat([Buffer.from(start || ""), image])));
      await client.sayForEver(chunk(Buffer.alloc(256 * 1024, 120)), 256 * MB);
      const status = await client.settled("an endless body");
      assert.ok([0, 400, 413, 422].includes(status), `an endless body is answered ${status}`);
    });
    // One hundred thousand parts.
    const part = Buffer.from("--b\r\nContent-Disposition: form-data; name=\"key\"\r\n\r\nx\r\n");
    await crowd(4, async (client) => {
      const length = part.length * 100_000;
      client.say(post("/api/upload", `Content-Length: ${length}\r\nContent-Type: multipart/form-data; boundary=b\r\n`));
      await client.sayForEver(Buffer.concat(Array(1000).fill(part)), length);
      assert.equal(await client.settled("a form of very many parts"), 400);
    });
  });

  scene("heads that are bombs", async () => {
    await crowd(60, async (client, number) => {
      const bomb = [
        get("/", `X-Bomb: ${"x".repeat(4 * MB)}\r\n`),
        get("/", "X-A: b\r\n".repeat(100_000)),
        get("/", `Cookie: ${"a=b; ".repeat(50_000)}\r\n`),
        get(`/images/${"a/".repeat(100_000)}`),
        get("/images/x", `Range: bytes=${"0-0,".repeat(10_000)}0-0\r\n`),
        get("/images/honest0", `If-None-Match: ${'"x", '.repeat(10_000)}"y"\r\n`),
      ][number % 6];
      await client.sayForEver(Buffer.from(bomb), bomb.length);
      const status = await client.settled("a bomb");
      assert.ok(status === 0 || (status >= 200 && status < 500), `a bomb is answered ${status}`);
    });
  });

  scene("bombs to be unpacked", async () => {
    const packed = gzipSync(Buffer.alloc(64 * MB));
    for (const [method, path, type] of [
      ["PUT", "/images/bomb", "image/png"],
      ["POST", "/api/upload", "multipart/form-data; boundary=b"],
      ["PUT", "/api/cache", "application/json"],
      ["POST", "/cache_properties", "application/x-www-form-urlencoded"],
    ]) {
      const answer = await system.fetch(path, { method, body: packed, headers: { "content-encoding": "gzip", "content-type": type } });
      assert.equal(answer.status, 415, `${method} ${path}`);
      assert.match(await answer.text(), /Content-Encoding/, `${method} ${path}`);
    }
    // A picture of 65,535 × 65,535 in a hundred bytes.
    const png = Buffer.concat([sample("grass.png").subarray(0, 16), Buffer.from([0, 0, 255, 255, 0, 0, 255, 255]), sample("grass.png").subarray(24, 100)]);
    const gif = Buffer.concat([Buffer.from("GIF89a"), Buffer.from([255, 255, 255, 255, 0, 0, 0]), Buffer.from([0x2c, 0, 0, 0, 0, 255, 255, 255, 255, 0, 2, 1, 0, 0, 0x3b])]);
    for (const bomb of [png, gif]) {
      const answers = await Promise.all(Array.from({ length: 50 }, () => system.fetch("/images/bomb", { method: "PUT", body: bomb })));
      for (const answer of answers) assert.ok([413, 422].includes(answer.status), `an image bomb is answered ${answer.status}`);
    }
    // Black pictures of as many pixels as are allowed, which are stored in some kilobytes. They go through row by row.
    for (const [key, depth, colours, bytes, statuses] of [["bomb24", 8, 2, 3, [200]], ["bomb64", 16, 6, 8, [200]]]) {
      const put = await system.fetch(`/images/${key}`, { method: "PUT", body: black(10_000, 10_000, depth, colours, bytes) });
      assert.equal(put.status, 201);
      const asked = Array.from({ length: 20 }, (_, at) => system.fetch(`/images/${key}?w=${[160, 320][at % 2]}`));
      // On a busy machine some may have to come again.
      for (const answer of await Promise.all(asked)) assert.ok([...statuses, 503].includes(answer.status), `${key} is answered ${answer.status}`);
      await until(`${key} is made`, async () => statuses.includes((await system.fetch(`/images/${key}?w=160`)).status), 60);
      await system.fetch(`/images/${key}`, { method: "DELETE" });
    }
  });

  scene("small pictures with profiles and text that inflate a thousandfold", async (t) => {
    const zeros = deflateRawSync(Buffer.alloc(MB), { level: 9, finishFlush: constants.Z_FULL_FLUSH });
    const packed = Buffer.concat([Buffer.from([0x78, 0xda]), ...Array(800).fill(zeros), Buffer.from([3, 0])]);
    const before = rss_mb(pids.gateway);
    let peak = 0;
    const watch = setInterval(() => (peak = Math.max(peak, rss_mb(pids.gateway))), 5);
    try {
      for (const [type, start] of [["iCCP", "a\0\0"], ["zTXt", "a\0\0"], ["iTXt", "XML:com.adobe.xmp\0\x01\0\0\0"]]) {
        const data = deflateSync(Buffer.alloc(200 * 601));
        const bomb = png(200, 200, 8, 2, data, [[type, Buffer.concat([Buffer.from(start, "latin1"), packed])]]);
        const keys = Array.from({ length: 5 }, (_, number) => `/images/packed-${type}-${number}`);
        for (const key of keys) assert.equal((await system.fetch(key, { method: "PUT", body: bomb })).status, 201);
        const answers = await Promise.all(keys.map((key) => system.fetch(`${key}?w=160`)));
        for (const answer of answers) assert.equal(answer.status, 200, `${type}: ${await answer.text()}`);
        for (const key of keys) await system.fetch(key, { method: "DELETE" });
      }
    } finally {
      clearInterval(watch);
    }
    t.diagnostic(`five at once of each: the gateway grew by ${(peak - before).toFixed(0)} MB at most`);
    // What they inflate to is 800 MB each.
    assert.ok(peak - before < 200, `the gateway grew by ${(peak - before).toFixed(0)} MB`);
  });

  scene("1,000 readers of variants that are not made yet", async (t) => {
    const slow = black(10_000, 10_000, 8, 2, 3);
    const keys = Array.from({ length: 40 }, (_, number) => `/images/slow${number}`);
    for (const key of keys) assert.equal((await system.fetch(key, { method: "PUT", body: slow })).status, 201);
    await honest.report();
    await delay(3000);
    const alone = (await honest.report()).reads;
    /** For four seconds; how often each status was answered, and what the honest had meanwhile. */
    const readers = async (address) => {
      const statuses = new Map();
      const until_ms = performance.now() + 4000;
      await crowd(1000, async (client, number) => {
        for (let turn = 0; performance.now() < until_ms && !client.ended; turn++) {
          client.answer = Buffer.alloc(0);
          const answered = new Promise((resolve) => client.socket.once("data", resolve));
          client.say(get(address(number, turn)));
          await Promise.race([answered, client.closed, delay(20_000)]);
          const status = client.status();
          statuses.set(status, (statuses.get(status) ?? 0) + 1);
          if (status === 503) assert.match(client.text, /^retry-after: \d+\r$/im);
          await delay(500);
        }
      });
      return { statuses, report: await honest.report() };
    };
    // The same thousand, whom a variant that is there answers at once: what they cost by being so many.
    assert.equal((await system.fetch("/images/honest0?w=160")).status, 200);
    const warm = (await readers(() => "/images/honest0?w=160")).report.reads;
    const { statuses, report } = await readers((number, turn) => `${keys[(number + turn * 7) % keys.length]}?w=${[160, 320, 640, 1280][number % 4]}`);
    const under = report.reads;
    t.diagnostic(`answers: ${[...statuses].map(([status, count]) => `${count} × ${status}`).join(", ")}`);
    t.diagnostic(`hits alone: p50 ${alone.p50.toFixed(1)}, p99 ${alone.p99.toFixed(1)} ms; beside a thousand readers of a variant that is there: p50 ${warm.p50.toFixed(1)}, p99 ${warm.p99.toFixed(1)} ms; beside a thousand of variants that are not: p50 ${under.p50.toFixed(1)}, p99 ${under.p99.toFixed(1)} ms, ${(under.p99 / warm.p99).toFixed(1)} × and ${(under.p99 / alone.p99).toFixed(1)} ×`);
    assert.deepEqual(report.errors, []);
    for (const status of statuses.keys()) assert.ok([200, 503].includes(status), `a variant is answered ${status}`);
    assert.ok(statuses.get(503) > 0, "nobody was sent away");
    // Generous, for the thousand take a processor of this machine, too.
    assert.ok(under.p99 < Math.max(20 * alone.p99, 500), `p99 ${under.p99} ms, and ${alone.p99} ms alone`);
    await Promise.all(keys.map((key) => system.fetch(key, { method: "DELETE" })));
  });

  scene("400 who ask for the head of a variant of several megabytes, and forms without a beginning", async (t) => {
    const rows = randomBytes(1300 * (1 + 1300 * 4));
    for (let row = 0; row < 1300; row++) rows[row * (1 + 1300 * 4)] = 0;
    const noise = png(1300, 1300, 8, 6, deflateSync(rows, { level: 0 }));
    assert.equal((await system.fetch("/images/noise", { method: "PUT", body: noise })).status, 201);
    const made = await system.fetch("/images/noise?w=1280");
    assert.equal(made.status, 200);
    assert.ok((await made.arrayBuffer()).byteLength > 5 * MB, "otherwise this tests nothing");
    const before = rss_mb(pids.gateway);
    let peak = 0;
    const watch = setInterval(() => (peak = Math.max(peak, rss_mb(pids.gateway))), 5);
    try {
      await crowd(400, async (client) => {
        client.say(`HEAD /images/noise?w=1280 HTTP/1.1\r\nHost: localhost\r\n\r\n`);
        const status = await client.settled("a head");
        assert.ok([200, 503].includes(status), `a head is answered ${status}`);
      });
      t.diagnostic(`heads: the gateway grew by ${(peak - before).toFixed(0)} MB at most`);
      const parts = Buffer.alloc(256 * 1024, "p");
      await crowd(100, async (client) => {
        client.say(post("/api/upload", `Content-Length: ${19 * MB}\r\nContent-Type: multipart/form-data; boundary=B\r\n`));
        await client.sayForEver(parts, 19 * MB);
        const status = await client.settled("a form without a beginning");
        assert.ok([0, 400, 503].includes(status), `a form without a beginning is answered ${status}`);
      });
    } finally {
      clearInterval(watch);
    }
    t.diagnostic(`with the forms: by ${(peak - before).toFixed(0)} MB at most`);
    assert.ok(peak - before < 200, `the gateway grew by ${(peak - before).toFixed(0)} MB`);
    await system.fetch("/images/noise", { method: "DELETE" });
  });

  scene("1,000 readers of 8 MB who take their time", async (t) => {
    const image = Buffer.concat([sample("rocket.jpg"), Buffer.alloc(8 * MB - 4096 - sample("rocket.jpg").length, 7)]);
    assert.equal((await system.fetch("/images/large", { method: "PUT", body: image })).status, 201);
    await system.read("large");
    const clients = [];
    try {
      for (let number = 0; number < 1000; number++) {
        const client = new Rude(port, { reads: false });
        clients.push(client);
        client.say(get("/images/large"));
      }
      // A little of each answer, again and again.
      await until("all of them have the beginning", async () => {
        for (const client of clients) client.answer = client.socket.read(64) ?? client.answer;
        return clients.every((client) => client.answer.length > 0);
      });
      t.diagnostic(`bypassed because so much was on its way: ${await metric('pixcache_reads_total{cache_status="busy"}')}`);
    } finally {
      for (const client of clients) client.leave();
    }
    await until("it is a hit again", async () => (await system.read("large")).what === "hit");
    await system.fetch("/images/large", { method: "DELETE" });
  });

  scene("what is not HTTP, or not quite", async () => {
    const hello = Buffer.concat([Buffer.from([22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3]), randomBytes(506)]);
    const words = [
      ["a TLS hello", hello],
      ["the preface of HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0"],
      ["noise", randomBytes(100_000)],
      ["line breaks", "\r\n".repeat(50_000)],
      ["zeros", Buffer.alloc(100_000)],
      ["two lengths", post("/api/list_keys", "Content-Length: 1\r\nContent-Length: 2\r\n") + "xx"],
      ["a length and chunks", post("/api/list_keys", "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n") + "0\r\n\r\n"],
      ["a length below zero", post("/api/list_keys", "Content-Length: -1\r\n")],
      ["a length beyond all numbers", post("/api/upload", `Content-Length: ${"9".repeat(40)}\r\n`)],
      ["a chunk beyond all numbers", post("/api/list_keys", "Transfer-Encoding: chunked\r\n") + `${"F".repeat(40)}\r\nx\r\n`],
      ["a chunk that is none", post("/api/upload", "Transfer-Encoding: chunked\r\nContent-Type: multipart/form-data; boundary=b\r\n") + "xyz\r\n"],
      ["a header without a name", get("/", ": x\r\n")],
      ["a header with a zero", get("/", "X-A: a\0b\r\n")],
      ["a path with a zero", get("/images/a\0b")],
      ["another version", "GET / HTTP/9.9\r\nHost: localhost\r\n\r\n"],
      ["no version", "GET /\r\n\r\n"],
      ["a tunnel", "CONNECT example.org:443 HTTP/1.1\r\nHost: example.org:443\r\n\r\n"],
      ["a proxy's request", "GET http://example.org/ HTTP/1.1\r\nHost: example.org\r\nConnection: close\r\n\r\n"],
      ["an upgrade", get("/", "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n")],
    ];
    await crowd(words.length * 5, async (client, number) => {
      const [what, bytes] = words[number % words.length];
      client.say(bytes);
      const status = await client.settled(what);
      assert.ok(status < 500 || status === 505, `${what} is answered ${status}`);
    });
    // Good requests before the bad ones have their answers, in their order.
    await crowd(20, async (client) => {
      client.say(get("/healthz").repeat(200) + "\0\0\0");
      await client.closed;
      assert.equal(client.text.match(/HTTP\/1\.1 200/g)?.length, 200);
      assert.equal(client.text.match(/HTTP\/1\.1 400/g)?.length, 1);
    });
  });

  /** A connection straight into nats-server, with the operator's rights. */
  async function operator(options) {
    const client = new Rude(Number(system.env.NATS_PORT), options);
    const greeting = { user: "operator", pass: system.env.NATS_OPERATOR_PASSWORD, verbose: false, pedantic: false, headers: true, no_responders: true, protocol: 1 };
    client.say(`CONNECT ${JSON.stringify(greeting)}\r\n`);
    client.sync = async () => {
      const pongs = () => client.text.match(/^PONG\r$/gm)?.length ?? 0;
      const had = pongs();
      client.say("PING\r\n");
      await until("nats-server has handled all", () => pongs() > had || client.ended, 30);
    };
    return client;
  }
  const pub = (subject, payload, reply = "") => {
    const bytes = Buffer.from(payload);
    return Buffer.concat([Buffer.from(`PUB ${subject} ${reply ? reply + " " : ""}${bytes.length}\r\n`), bytes, Buffer.from("\r\n")]);
  };
  const hpub = (subject, headers, payload = "", reply = "") => {
    const [head, body] = [Buffer.from(headers), Buffer.from(payload)];
    return Buffer.concat([Buffer.from(`HPUB ${subject} ${reply ? reply + " " : ""}${head.length} ${head.length + body.length}\r\n`), head, body, Buffer.from("\r\n")]);
  };
  const questions = ["cache.get.cat", "cache.put.cat", "cache.invalidate.nobody", "cache.config.get", "cache.config.set", "cache.config.x", "cache.stats", "cache.keys", "cache.watch", "cache.x", "stats.series", "stats.config_history", "stats.x"];

  scene("payloads and subjects that make no sense, straight onto the bus", async () => {
    const client = await operator();
    const deep = `${"[".repeat(100_000)}${"]".repeat(100_000)}`;
    const giant = JSON.stringify({ by: "x".repeat(7 * MB) });
    for (const subject of questions) {
      for (const payload of ["{", "null", "[]", '"', "\0", deep, '{"limit":1e999}', '{"seconds":-1}', `{"${"a".repeat(1000)}":1}`, randomBytes(5000)]) {
        client.say(pub(subject, payload, "_INBOX_operator.x"));
      }
      client.say(pub(subject, giant, "_INBOX_operator.x"));
      // Of a few with a lot in it, all are answered.
      await client.sync();
    }
    for (const token of ["%", "%zz", "%00", "%2E", "é", "\u{1F600}", "a".repeat(2000), "%41".repeat(300), "-", "$", "a.b.c.d"]) {
      for (const verb of ["get", "put", "invalidate"]) client.say(pub(`cache.${verb}.${token}`, "", "_INBOX_operator.x"));
    }
    await client.sync();
    // Images by the dozen, each hashed and looked at, from somebody who does not wait for the answers.
    const image = Buffer.concat([sample("rocket.jpg"), Buffer.alloc(7 * MB, 7)]);
    const put = pub("cache.put.big", image, "_INBOX_operator.x");
    await client.sayForEver(put, 150 * put.length);
    await client.sync();
    client.leave();
    await until("the worker answers", () => system.json("/api/cache"));
  });

  scene("requests whose askers are gone", async () => {
    for (let round = 0; round < 20; round++) {
      const client = await operator({ reads: false });
      const asked = questions.filter((subject) => !/set|put|watch/.test(subject)).map((subject) => pub(subject, "", `_INBOX_operator.gone${round}`));
      client.say(`SUB _INBOX_operator.gone${round} 1\r\n`);
      client.say(Buffer.concat(Array.from({ length: 300 }, () => asked).flat()));
      client.socket.resume();
      await delay(20);
      client.leave();
    }
    await until("the worker answers", () => system.json("/api/cache"));
    await until("the recorder answers", () => system.json("/api/stats?range=1m"));
  });

  scene("watchers who read nothing", async () => {
    const watchers = [];
    for (let number = 0; number < 20; number++) {
      const client = await operator({ reads: false });
      watchers.push(client);
      client.say("SUB cache.event.> 1\r\nSUB _INBOX_operator.> 2\r\n");
      client.say(pub("cache.watch", '{"seconds":30}', "_INBOX_operator.w"));
    }
    const asker = await operator();
    const gets = Buffer.concat(Array.from({ length: 1000 }, (_, number) => pub(`cache.get.nothing${number}`, "")));
    for (let round = 0; round < 20; round++) {
      asker.say(gets);
      await asker.sync();
      await delay(100);
    }
    const dropped = await metric("pixcache_cache_dropped_events_total");
    assert.ok(dropped > 0, "a flood of events is cut, and what was cut is counted");
    for (const client of watchers) client.leave();
    asker.leave();
  });

  // The client library closes a connection on which it reads a header that is none. Only the operator and the gateway may
  // send the worker anything; the worker is back at once, with an empty cache, and no reader sees more of it than a miss.
  scene("headers that are none", async () => {
    const client = await operator();
    const heads = ["NATS/9.9\r\n\r\n", "HTTP/1.1\r\n\r\n", "NATS/1.0\r\nno colon\r\n\r\n", "NATS/1.0 abc\r\n\r\n", "NATS/1.0\r\n: x\r\n\r\n", "NATS/1.0\r\nA\u00e9: x\r\n\r\n", Buffer.from([78, 65, 255, 254, 13, 10, 13, 10]), "\r\n\r\n", "NATS/1.0\r\nPixcache: tag=x\r\n\r\n", `NATS/1.0\r\n${"A: b\r\n".repeat(100_000)}\r\n`];
    for (const head of heads) {
      for (const subject of ["cache.get.cat", "cache.stats", "stats.series"]) client.say(hpub(subject, head, "", "_INBOX_operator.x"));
      await client.sync();
      await until("the worker and the recorder are back", async () => (await system.fetch("/readyz")).status === 200, 20);
    }
    client.leave();
  }, { keepsBus: false });

  test("everything is as it was", async () => {
    for (const [name, part] of Object.entries(parts.parts)) assert.ok(part.running, `${name} has ended:\n${part.output}`);
    const lost = parts.parts.gateway.output.split("\n").filter((line) => line.includes("connection to NATS lost"));
    assert.deepEqual(lost, []);
    const { errors } = await honest.report();
    assert.deepEqual(errors, []);
    await honest.stop();
    honest = undefined;
    assert.deepEqual(await parts.stopAll(), { gateway: 0, memcache: 0, recorder: 0, nats: 0, mariadb: 0 });
  });
});
