// The files in deploy/ for proxies, in front of two gateways: nginx's and Apache's, and an Apache that is not told anything.

import assert from "node:assert/strict";
import { once } from "node:events";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import https from "node:https";
import http from "node:http";
import { createServer } from "node:net";
import path from "node:path";
import { after, before, suite, test } from "node:test";
import { built, checkout, command, repository, sample, until } from "./lib/checkout.mjs";

const freePort = async () => {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address();
  server.close();
  await once(server, "close");
  return port;
};

// What a URL's path can hold, and what proxies like to tidy up.
const keys = ["cat.jpg", "cats/tom.jpg", "a b.png", "100%.png", "ä/ö.png", "a+b&c=d;e?f#g", "cats//tom", "/top", "end/", "a/../b", "a/./b", "..a", "%2F", "%252F", "~x!$'()*,:@"];

suite("proxies", () => {
  // nginx takes no spaces in the names of folders here.
  const system = checkout({ after }, "pixcache-proxies-");
  const folder = system.at("var/proxies");
  const name = "pixcache.example";
  let second;
  const startSecond = async () => {
    const gateway = system.spawn(system.at(built, "gateway"), [], { env: { ...system.env, TRUSTED_PROXIES: "127.0.0.1", PORT: String(second) } });
    await until("the second gateway", async () => (await fetch(`http://127.0.0.1:${second}/readyz`)).ok);
    return gateway;
  };
  before(async () => {
    await system.start({ env: { ALLOWED_HOSTS: name, TRUSTED_PROXIES: "127.0.0.1" } });
    second = await freePort();
    mkdirSync(folder);
    const made = await command("openssl", ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", `/CN=${name}`, "-keyout", path.join(folder, "privkey.pem"), "-out", path.join(folder, "fullchain.pem")]);
    assert.equal(made.code, 0, made.all);
  });

  /** A file of deploy/ with this test's ports and certificate in it. */
  const adapted = (file, plain, secure) =>
    readFileSync(path.join(repository, "deploy", file), "utf8")
      .replaceAll("/etc/ssl/pixcache", folder)
      .replaceAll("127.0.0.1:5000", new URL(system.url).host)
      .replaceAll("127.0.0.1:5001", `127.0.0.1:${second}`)
      .replaceAll(/listen 80;/g, `listen 127.0.0.1:${plain};`)
      .replaceAll(/listen 443 /g, `listen 127.0.0.1:${secure} `)
      .replaceAll("*:80>", `127.0.0.1:${plain}>`)
      .replaceAll("*:443>", `127.0.0.1:${secure}>`);

  /** Apache's file around a site: the modules of Debian's package, and nothing in the machine's own folders. */
  const apache = (site, listens) => {
    const modules = ["mpm_event", "authz_core", "authz_host", "headers", "rewrite", "proxy", "proxy_http", "proxy_balancer", "lbmethod_byrequests", "slotmem_shm", "socache_shmcb", "ssl", "reqtimeout"];
    const loaded = modules.map((module) => `LoadModule ${module}_module /usr/lib/apache2/modules/mod_${module}.so`);
    return [`ServerRoot "${folder}"`, `PidFile "${folder}/apache.pid"`, `ErrorLog "${folder}/apache.log"`, `DefaultRuntimeDir "${folder}"`, "ServerName localhost", ...(process.getuid() === 0 ? ["User www-data", "Group www-data"] : []), ...loaded, ...listens.map((port) => `Listen 127.0.0.1:${port}`), site].join("\n");
  };

  /** Asks a proxy for exactly this path, under the name of the site. */
  const ask = (proxy, pathname, { method = "GET", headers = {}, body } = {}) =>
    new Promise((resolve, reject) => {
      const client = proxy.secure ? https : http;
      const port = proxy.port;
      const host = proxy.secure ? `${name}:${port}` : `127.0.0.1:${port}`;
      const request = client.request({ host: "127.0.0.1", port, method, path: pathname, headers: { host, ...headers }, servername: name, rejectUnauthorized: false, agent: false, timeout: 20_000 });
      request.on("error", reject);
      request.on("timeout", () => request.destroy(new Error(`${method} ${pathname} takes too long`)));
      request.on("response", async (response) => {
        const chunks = [];
        try {
          for await (const chunk of response) chunks.push(chunk);
          resolve({ status: response.statusCode, headers: response.headers, body: Buffer.concat(chunks) });
        } catch (error) {
          reject(error);
        }
      });
      request.end(body);
    });

  /** A page as text, its character references read. */
  const text = ({ body }) => String(body).replaceAll(/&#x([0-9a-f]+);/gi, (_, code) => String.fromCodePoint(parseInt(code, 16))).replaceAll(/&#(\d+);/g, (_, code) => String.fromCodePoint(Number(code))).replaceAll("&amp;", "&");

  const image = sample("chelsea.png");

  /** Each key is stored, and read again by each link that pixcache writes. */
  async function keysPass(proxy, own) {
    for (const key of own) {
      const stored = await ask(proxy, `/images/${encoded(key)}`, { method: "PUT", body: image });
      assert.ok([200, 201].includes(stored.status), `${key}: ${stored.status} ${stored.body}`);
      const listed = JSON.parse((await ask(proxy, `/api/images?prefix=${encodeURIComponent(key)}&limit=1`)).body);
      assert.equal(listed.images[0]?.key, key);
      const page = text(await ask(proxy, `/image?key=${encodeURIComponent(key)}`));
      const links = [...page.matchAll(/(?:src|href)="(\/images\/[^"]*)"/g)].map(([, link]) => link);
      assert.ok(links.length > 0, `${key}: no link on its page`);
      for (const link of new Set([...links, ...(stored.headers.location ? [stored.headers.location] : [])])) {
        const read = await ask(proxy, link);
        assert.equal(read.status, 200, `${key}: ${link}`);
        if (!link.includes("w=")) assert.ok(read.body.equals(image), `${key}: ${link}`);
      }
    }
  }

  /** As README and docs/api.md write a key in an address: slashes bare, but where a segment would vanish. */
  const encoded = (key) => {
    const parts = key.split("/");
    const all = parts.map(encodeURIComponent);
    return parts.some((part) => ["", ".", ".."].includes(part)) ? all.join("%2F") : all.join("/");
  };

  async function worksAsOne(proxy) {
    const origin = { origin: `https://${name}:${proxy.port}`, "sec-fetch-site": "same-origin" };
    const form = (file) => {
      const boundary = "----e2e";
      const head = `--${boundary}\r\nContent-Disposition: form-data; name="key"\r\n\r\nform\r\n--${boundary}\r\nContent-Disposition: form-data; name="file"; filename="x.png"\r\n\r\n`;
      return { body: Buffer.concat([Buffer.from(head), file, Buffer.from(`\r\n--${boundary}--\r\n`)]), headers: { "content-type": `multipart/form-data; boundary=${boundary}` } };
    };
    const { body, headers } = form(image);
    const uploaded = await ask(proxy, "/api/upload", { method: "POST", body, headers: { ...headers, ...origin } });
    assert.equal(uploaded.status, 200, String(uploaded.body));
    const foreign = await ask(proxy, "/api/upload", { method: "POST", body, headers: { ...headers, origin: "https://evil.example" } });
    assert.equal(foreign.status, 403);
    // Conditions, ranges and what the cache did pass.
    const read = await ask(proxy, "/images/form");
    assert.match(read.headers["cache-status"], /^pixcache; /);
    assert.match(read.headers["strict-transport-security"] ?? "", /max-age/);
    const part = await ask(proxy, "/images/form", { headers: { range: "bytes=1-3" } });
    assert.deepEqual([part.status, part.body.toString()], [206, "PNG"]);
    assert.equal((await ask(proxy, "/images/form", { headers: { "if-none-match": read.headers.etag } })).status, 304);
    assert.equal((await ask(proxy, "/images/form", { method: "HEAD" })).headers["content-length"], String(image.length));
    // The page knows its address as people type it.
    const shown = text(await ask(proxy, "/image?key=form"));
    assert.ok(shown.replaceAll(/<[^>]*>/g, "").includes(`https://${name}:${proxy.port}/images/form`));
    // Too much is refused, and the proxy goes on.
    const most = form(Buffer.alloc(23 << 20, 1));
    const refused = await ask(proxy, "/api/upload", { method: "POST", ...most }).catch((error) => ({ status: error.code }));
    assert.ok([413, "EPIPE", "ECONNRESET"].includes(refused.status), `${refused.status}`);
    assert.equal((await ask(proxy, "/images/form")).status, 200);
    // Events come as they happen.
    const first = await new Promise((resolve, reject) => {
      const request = https.get({ host: "127.0.0.1", port: proxy.port, path: "/events/stats", headers: { host: `${name}:${proxy.port}`, accept: "text/event-stream" }, servername: name, rejectUnauthorized: false, agent: false, timeout: 10_000 });
      request.on("error", reject);
      request.on("timeout", () => request.destroy(new Error("no event within 10 s")));
      request.on("response", (response) => response.once("data", (data) => resolve(String(data)) ?? request.destroy()));
    });
    assert.match(first, /^(event|data|:|id|retry)/);
    const redirected = await ask({ ...proxy, secure: false, port: proxy.plain }, "/images/a%2Fb%20c?w=160", { headers: { host: name } });
    assert.deepEqual([redirected.status, redirected.headers.location], [301, `https://${name}/images/a%2Fb%20c?w=160`]);
  }

  /** A gateway that ends is missed by nobody. */
  async function doesWithout(gateway, proxy) {
    assert.equal(await gateway.end(), 0);
    for (let at = 0; at < 20; at++) assert.equal((await ask(proxy, "/images/form")).status, 200);
    assert.equal((await ask(proxy, "/images/form", { method: "PUT", body: image })).status, 200);
  }

  const nginx = (site) => `pid "${folder}/nginx.pid"; error_log stderr; daemon off;
events {}
http { access_log off; client_body_temp_path "${folder}/body"; proxy_temp_path "${folder}/proxy"; fastcgi_temp_path "${folder}/f"; uwsgi_temp_path "${folder}/u"; scgi_temp_path "${folder}/s"; ${site} }
`;

  /** Starts a proxy with this configuration, and waits for it. */
  async function started(program, options, configuration, proxy) {
    const file = path.join(folder, `${path.basename(program)}.conf`);
    writeFileSync(file, configuration);
    const server = system.spawn(program, [...options, file]);
    await until(program, async () => assert.ok(server.running, server.output) ?? (await ask(proxy, "/readyz")).status === 200);
    return server;
  }
  const [nginxCommand, apacheCommand] = [["/usr/sbin/nginx", ["-e", "stderr", "-c"]], ["/usr/sbin/apache2", ["-D", "FOREGROUND", "-f"]]];

  for (const [file, command, around] of [
    ["nginx.conf", nginxCommand, nginx],
    ["apache.conf", apacheCommand, apache],
  ]) {
    test(`two gateways behind deploy/${file}`, async () => {
      const [plain, port, gateway] = [await freePort(), await freePort(), await startSecond()];
      const proxy = { port, plain, secure: true };
      const server = await started(...command, around(adapted(file, plain, port), [plain, port]), proxy);
      await keysPass(proxy, keys);
      await worksAsOne(proxy);
      await doesWithout(gateway, proxy);
      await server.end();
    });
  }

  // With its defaults, Apache answers 404 to any %2F, and tidies addresses up.
  test("an Apache that is told nothing but where the gateway is", async () => {
    const port = await freePort();
    const site = `<VirtualHost 127.0.0.1:${port}>\nProxyPass "/" "${system.url}/"\n</VirtualHost>`;
    const proxy = { port, secure: false };
    const server = await started(...apacheCommand, apache(site, [port]), proxy);
    await keysPass(proxy, keys.filter((key) => !/%2F/.test(encoded(key))));
    await server.end();
  });
});
