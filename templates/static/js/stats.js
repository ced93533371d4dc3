// Keeps the charts current: fetches the part of the page that holds them when a worker has said something new,
// or once a window where no events come through. The server draws them in the viewer's zone, which only the
// browser knows.
"use strict";

(() => {
  const stats = document.getElementById("stats");
  const live = document.querySelector("[data-live]");
  const text = live.querySelector("[data-live-text]");
  const dot = live.querySelector(".dot");
  const toggle = live.querySelector("[data-live-toggle]");
  const every = Number(stats.dataset.refreshMs);
  // A window is announced before it is a row.
  const settled = 300;
  let paused = false;
  let streaming = false;
  // Never, where the viewer's zone is another than the page's.
  let refreshed = -new Date().getTimezoneOffset() === Number(stats.dataset.offset) ? Date.now() : 0;
  let timer = 0;

  function say(state, words) {
    dot.className = `dot ${state}`;
    if (text.textContent !== words) text.textContent = words;
  }

  function tell() {
    if (stats.querySelector("[data-chart]")) say("dot-ok", "Live");
    else say("dot-bad", "Nothing to show; trying again");
  }

  const focusable = () => [...stats.querySelectorAll("a, button, [tabindex]")];

  /** Refreshes in so many milliseconds, unless that is about to happen anyway. */
  function soon(ms) {
    if (!timer) timer = setTimeout(refresh, ms);
  }

  async function refresh() {
    clearTimeout(timer);
    timer = 0;
    if (paused || document.hidden) return;
    refreshed = Date.now();
    try {
      const offset = -new Date().getTimezoneOffset();
      const answer = await fetch(`${stats.dataset.refresh}&offset=${offset}`, { signal: AbortSignal.timeout(10_000) });
      if (!answer.ok) throw new Error(`status ${answer.status}`);
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      // Whoever has come here by keyboard stays where they are.
      const focused = focusable().indexOf(document.activeElement);
      const scrolled = stats.querySelector("[data-scrolled]")?.scrollTop;
      stats.dispatchEvent(new CustomEvent("pixcache:updating"));
      stats.replaceChildren(...page.body.childNodes);
      if (focused >= 0) focusable()[focused]?.focus({ preventScroll: true });
      const region = stats.querySelector("[data-scrolled]");
      if (region && scrolled) region.scrollTop = scrolled;
      stats.dispatchEvent(new CustomEvent("pixcache:updated", { bubbles: true }));
      tell();
    } catch {
      say("dot-bad", "Not updating; trying again");
    }
    if (!streaming) soon(every);
  }

  const events = follow(() => "/events/stats", {
    bus({ connected }) {
      if (!connected) say("dot-bad", "The gateway has lost NATS; nothing new comes");
      else if (Date.now() - refreshed > settled) soon(0);
    },
    // Where a point stands for many windows, most of them change nothing to see.
    window: () => Date.now() - refreshed > every / 2 && soon(settled),
    configured: () => soon(settled),
    cleared: () => soon(settled),
    skipped: () => soon(settled),
  }, (state) => {
    streaming = state === "open";
    if (!streaming && !paused) soon(every);
  });

  toggle.addEventListener("click", () => {
    paused = !paused;
    toggle.querySelector("span").textContent = paused ? "Resume" : "Pause";
    toggle.querySelector("use").setAttribute("href", toggle.querySelector("use").getAttribute("href").replace(/#.*/, paused ? "#play" : "#pause"));
    if (paused) {
      events.stop();
      say("", "Paused");
    } else {
      events.start();
      refresh();
    }
  });
  document.addEventListener("visibilitychange", refresh);

  tell();
  live.hidden = false;
  soon(refreshed ? every : 0);
})();
