// The stream of what happens to keys, the newest first, and the lists of the hottest and largest keys.
"use strict";

(() => {
  const most = 100;
  const seconds = 60;
  const stream = document.querySelector("[data-stream]");
  const part = (name) => stream.querySelector(`[data-${name}]`);
  const filter = part("filter");
  const rows = part("events");
  const scroll = part("scroll");
  const toggle = part("live-toggle");
  const top = document.getElementById("top-keys");
  const time = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit", fractionalSecondDigits: 3 });
  const plain = new Intl.NumberFormat("en", { maximumFractionDigits: 1 });
  const short = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });
  const count = (number) => (number < 100_000 ? plain : short).format(number);
  let totals = {};
  let paused = false;
  // What has come while somebody reads, the newest first.
  let held = [];

  const nothing = part("title").textContent;

  /** What stands here is spoken: only what has changed is written. Where no events are, there is room to say why. */
  function say(state, words, why = "") {
    part("live-dot").className = `dot ${state}`;
    if (part("live-text").textContent !== words) part("live-text").textContent = words;
    part("title").textContent = why ? `${words}.` : nothing;
    part("why").textContent = why;
    part("why").hidden = !why;
    part("hint").hidden = Boolean(why);
  }

  function bytes(size) {
    const units = ["B", "kB", "MB", "GB"];
    let at = 0;
    while (size >= 1024 && at < units.length - 1) {
      size /= 1024;
      at += 1;
    }
    return `${size >= 10 || at === 0 ? Math.round(size) : size.toFixed(1)}\u00a0${units[at]}`;
  }

  function element(name, className, ...content) {
    const made = document.createElement(name);
    made.className = className;
    made.append(...content);
    return made;
  }

  // What can't be seen is shown by its number, but for what makes one picture of two; as `visible.rs` does.
  const invisible = /[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202e\u2060-\u206f\u2800\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\u{13430}-\u{1345f}\u{16fe4}\u{1bca0}-\u{1bca3}\u{1d159}\u{1d173}-\u{1d17a}\u{e0000}-\u{e0fff}]/gu;
  const picture = /[\u231a-\u23ff\u25aa-\u27bf\u2b05-\u2b55\u{1f000}-\u{1faff}]/u;
  const pictured = /[\u231a-\u23ff\u25aa-\u27bf\u2b05-\u2b55\u{1f000}-\u{1faff}\ufe0f]/u;
  const visible = (text) => text.replace(invisible, (hidden, at) => {
    const before = [...text.slice(0, at)].at(-1) ?? "";
    const after = [...text.slice(at + hidden.length)][0] ?? "";
    const isWithin = hidden === "\ufe0f" ? picture.test(before) : hidden === "\u200d" && pictured.test(before) && picture.test(after);
    return isWithin ? hidden : `‹U+${hidden.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}›`;
  });

  function row(event) {
    const moment = element("time", "", time.format(new Date(event.time)));
    moment.dateTime = event.time;
    const size = event.bytes ? bytes(event.bytes) : "–";
    const kind = element("td", "", element("span", `badge badge-small event-${event.kind}${event.near ? " event-near" : ""}`, event.near ? "near hit" : event.kind));
    if (event.count > 1) kind.append(element("span", "event-count", `×\u00a0${count(event.count)}`));
    const link = element("a", "key", visible(event.key));
    link.href = `/image?key=${encodeURIComponent(event.key)}`;
    link.title = visible(event.key);
    const key = element("td", "event-key", link);
    if (event.variant) key.append(" ", element("span", "variant", `${event.variant.slice(1)}\u00a0px`));
    key.append(element("span", "narrow", `${moment.textContent} · ${size}`));
    return element("tr", "", element("td", "wide", moment), kind, key, element("td", "number wide", size));
  }

  // ---- The pulse: a bar a second, the kinds one upon the other ----

  const kinds = [...filter.kind].map((box) => box.value);
  const paths = part("pulse").children;
  const bars = Array.from({ length: seconds }, () => ({}));
  let second = 0;

  function draw() {
    const sums = bars.map((bar) => Object.values(bar).reduce((sum, number) => sum + number, 0));
    const peak = Math.max(...sums);
    const drawn = kinds.map(() => "");
    bars.forEach((bar, at) => {
      let top = 20;
      kinds.forEach((kind, of) => {
        if (!bar[kind]) return;
        const height = (20 * bar[kind]) / peak;
        top -= height;
        drawn[of] += `M${at + 0.12} ${top.toFixed(2)}h.76v${height.toFixed(2)}h-.76z`;
      });
    });
    drawn.forEach((path, of) => paths[of].setAttribute("d", path));
    part("peak").textContent = peak ? `last minute, at most ${count(peak)}/s` : "last minute";
  }

  function advance() {
    const now = Math.floor(Date.now() / 1000);
    for (let missed = Math.min(now - second, seconds); missed > 0; missed--) {
      bars.shift();
      bars.push({});
    }
    second = now;
  }

  setInterval(() => {
    if (paused || document.hidden) return;
    advance();
    draw();
  }, 1000);

  // ---- The list ----

  // Whoever reads a line, or is about to follow its link, must not have it taken away.
  const isRead = () => scroll.matches(":hover") || scroll.contains(document.activeElement) || scroll.scrollTop > 0;

  function add() {
    if (!held.length || isRead()) return;
    // A few are shown to be new; of many, all of it would flicker.
    const isFew = held.length <= 3;
    for (const made of rows.rows) made.classList.remove("is-new");
    for (const made of held) made.classList.toggle("is-new", isFew);
    rows.replaceChildren(...held, ...[...rows.rows].slice(0, most - held.length));
    held = [];
    part("empty").hidden = true;
  }

  function tell() {
    const sum = Object.values(totals).reduce((sum, number) => sum + number, 0);
    part("sum").textContent = `${count(sum)} ${sum === 1 ? "event" : "events"}${held.length ? `, held while you read: ${held.length < most ? held.length : `${most} or more`}` : ""}`;
  }

  for (const left of ["pointerleave", "focusout", "scroll"]) {
    scroll.addEventListener(left, () => setTimeout(() => (add(), tell())), { passive: true });
  }

  function show(batch) {
    held = [...batch.events.map(row).reverse(), ...held].slice(0, most);
    add();
    advance();
    for (const [kind, number] of Object.entries(batch.counts)) {
      totals[kind] = (totals[kind] ?? 0) + number;
      bars.at(-1)[kind] = (bars.at(-1)[kind] ?? 0) + number;
      part(`count="${kind}"`).textContent = count(totals[kind]);
    }
    draw();
    tell();
    part("rate").textContent = count(batch.rate_per_s);
    const { dropped_by_worker: worker, dropped_by_gateway: gateway } = batch;
    part("dropped").textContent = worker + gateway ? `${count(worker + gateway)} left out` : "";
    part("dropped").title = `${count(worker)} by the worker, which says up to 5,000 a second; ${count(gateway)} on the way to this page`;
  }

  // ---- The stream ----

  const chosen = () => [...filter.querySelectorAll("input[name=kind]:checked")].map((box) => box.value);

  function query() {
    const fields = new URLSearchParams();
    if (chosen().length < filter.kind.length) fields.set("kinds", chosen().join(","));
    if (filter.prefix.value) fields.set("prefix", filter.prefix.value);
    return fields.size ? `?${fields}` : "";
  }

  const events = follow(() => `/events/keys${query()}`, {
    watch({ watching, worker, reason }) {
      part("worker").textContent = worker ? `from ${worker}` : "";
      if (watching) say("dot-ok", "Live");
      else if (reason) say("dot-bad", "Nothing comes", `${reason[0].toUpperCase()}${reason.slice(1)}. It goes on by itself when a worker answers.`);
    },
    keys: show,
  }, (state) => {
    if (state === "broken") say("dot-bad", "The gateway does not answer", "This page asks it again every second.");
    if (state === "gave way") say("dot-bad", "Another reader has this stream", "The gateway sends as many streams as it may (MAX_EVENT_STREAMS), most of them to this address. This page asks it again every half minute.");
    if (state === "refused") say("dot-bad", "No stream is left", "The gateway sends as many streams as it may (MAX_EVENT_STREAMS), or has just started. This page asks it again every few seconds.");
  });

  function filtered() {
    history.replaceState(null, "", `/live${query()}`);
    totals = {};
    held = [];
    bars.forEach((bar, at) => (bars[at] = {}));
    for (const output of filter.querySelectorAll("[data-count], [data-rate]")) output.textContent = "0";
    rows.replaceChildren();
    scroll.scrollTop = 0;
    part("empty").hidden = false;
    draw();
    tell();
    events.stop();
    if (!chosen().length) say("", "No kind of event is chosen", "Choose one above.");
    else if (!paused) events.start();
  }

  let typing = 0;
  filter.addEventListener("change", (event) => event.target.name === "kind" && filtered());
  filter.prefix.addEventListener("input", () => {
    clearTimeout(typing);
    typing = setTimeout(filtered, 250);
  });
  filter.addEventListener("submit", (event) => {
    event.preventDefault();
    clearTimeout(typing);
    filtered();
  });

  toggle.addEventListener("click", () => {
    paused = !paused;
    toggle.querySelector("span").textContent = paused ? "Resume" : "Pause";
    toggle.querySelector("use").setAttribute("href", toggle.querySelector("use").getAttribute("href").replace(/#.*/, paused ? "#play" : "#pause"));
    if (paused) {
      events.stop();
      say("", "Paused", "Events that come meanwhile are not shown afterwards.");
    } else if (chosen().length) {
      say("", "Connecting");
      events.start();
    }
  });

  const isInUse = () => top.matches(":hover") || top.contains(document.activeElement);
  setInterval(async () => {
    if (paused || document.hidden || isInUse()) return;
    try {
      const answer = await fetch(top.dataset.refresh, { signal: AbortSignal.timeout(4000) });
      if (!answer.ok || isInUse()) return;
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      top.replaceChildren(...page.body.childNodes);
    } catch {
      // The stream says that the gateway is away; the lists stay as they were.
    }
  }, 5000);

  advance();
})();
