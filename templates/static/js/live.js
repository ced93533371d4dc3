// The stream of what happens to keys, the newest first, and the lists of the hottest and largest keys.
"use strict";

(() => {
  const most = 100;
  const stream = document.querySelector("[data-stream]");
  const filter = stream.querySelector("[data-filter]");
  const rows = stream.querySelector("[data-events]");
  const empty = stream.querySelector("[data-empty]");
  const rate = stream.querySelector("[data-rate]");
  const dropped = stream.querySelector("[data-dropped]");
  const live = document.querySelector("[data-live]");
  const text = live.querySelector("[data-live-text]");
  const dot = live.querySelector(".dot");
  const toggle = live.querySelector("[data-live-toggle]");
  const top = document.getElementById("top-keys");
  const time = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit", fractionalSecondDigits: 3 });
  const count = new Intl.NumberFormat("en", { maximumFractionDigits: 1 });
  let totals = {};
  let paused = false;

  // What stands here is spoken: only what has changed is written.
  function say(state, words) {
    dot.className = `dot ${state}`;
    if (text.textContent !== words) text.textContent = words;
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

  function cell(row, name, content) {
    const made = document.createElement("td");
    made.className = name;
    made.append(content);
    row.append(made);
  }

  function row(event) {
    const made = document.createElement("tr");
    const moment = document.createElement("time");
    moment.dateTime = event.time;
    moment.textContent = time.format(new Date(event.time));
    cell(made, "", moment);
    const kind = document.createElement("span");
    kind.className = `badge badge-small event-${event.kind}${event.near ? " event-near" : ""}`;
    kind.textContent = event.near ? "near hit" : event.kind;
    cell(made, "", kind);
    if (event.count > 1) made.lastChild.append(` × ${count.format(event.count)}`);
    const link = document.createElement("a");
    link.className = "key";
    link.href = `/image?key=${encodeURIComponent(event.key)}`;
    link.textContent = event.key;
    cell(made, "event-key", link);
    cell(made, "number", event.bytes ? bytes(event.bytes) : "–");
    cell(made, "wide quiet", event.worker);
    return made;
  }

  function show(batch) {
    rows.prepend(...batch.events.map(row).reverse());
    while (rows.rows.length > most) rows.lastChild.remove();
    if (rows.rows.length) empty.hidden = true;
    for (const [kind, number] of Object.entries(batch.counts)) {
      totals[kind] = (totals[kind] ?? 0) + number;
      filter.querySelector(`[data-count="${kind}"]`).textContent = count.format(totals[kind]);
    }
    rate.textContent = count.format(batch.rate_per_s);
    const { dropped_by_worker: worker, dropped_by_gateway: gateway } = batch;
    dropped.hidden = worker + gateway === 0;
    dropped.textContent = `${count.format(worker + gateway)} left out`;
    dropped.title = `${count.format(worker)} by the worker, which says up to 5,000 a second; ${count.format(gateway)} on the way to this page`;
  }

  function chosen() {
    return [...filter.querySelectorAll("input[name=kind]:checked")].map((box) => box.value);
  }

  function query() {
    const fields = new URLSearchParams();
    if (chosen().length < filter.kind.length) fields.set("kinds", chosen().join(","));
    if (filter.prefix.value) fields.set("prefix", filter.prefix.value);
    return fields.size ? `?${fields}` : "";
  }

  const events = follow(() => `/events/keys${query()}`, {
    watch(state) {
      if (state.watching) say("dot-ok", "Live");
      else say("dot-bad", `Nothing comes: ${state.reason}`);
    },
    keys: show,
  }, (state) => {
    if (state === "broken") say("dot-bad", "The gateway does not answer; trying again");
    if (state === "refused") say("dot-bad", "The gateway sends no further stream; trying again");
  });

  function filtered() {
    history.replaceState(null, "", `/live${query()}`);
    totals = {};
    for (const output of filter.querySelectorAll("[data-count]")) output.textContent = "0";
    rate.textContent = "0";
    rows.replaceChildren();
    empty.hidden = false;
    events.stop();
    if (!chosen().length) say("", "No kind of event is chosen");
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
      say("", "Paused");
    } else if (chosen().length) {
      events.start();
    }
  });

  // Whoever is about to follow a link must not have it taken away.
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

  stream.hidden = false;
  live.hidden = false;
  say("", "Connecting");
})();
