// Keeps the charts current: fetches the part of the page that holds them once a window. The server
// draws them in the viewer's zone, which only the browser knows.
"use strict";

(() => {
  const stats = document.getElementById("stats");
  const live = document.querySelector("[data-live]");
  const text = live.querySelector("[data-live-text]");
  const dot = live.querySelector(".dot");
  const toggle = live.querySelector("[data-live-toggle]");
  const every = Number(stats.dataset.refreshMs);
  let paused = false;
  let timer = 0;

  function say(state, words) {
    dot.className = `dot ${state}`;
    text.textContent = words;
  }

  async function refresh() {
    clearTimeout(timer);
    if (paused || document.hidden) return;
    try {
      const offset = -new Date().getTimezoneOffset();
      const answer = await fetch(`${stats.dataset.refresh}&offset=${offset}`, { signal: AbortSignal.timeout(10_000) });
      if (!answer.ok) throw new Error(`status ${answer.status}`);
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      stats.replaceChildren(...page.body.childNodes);
      stats.dispatchEvent(new CustomEvent("pixcache:updated", { bubbles: true }));
      say("dot-ok", "Live");
    } catch {
      say("dot-bad", "Not updating; trying again");
    }
    timer = setTimeout(refresh, every);
  }

  toggle.addEventListener("click", () => {
    paused = !paused;
    toggle.querySelector("span").textContent = paused ? "Resume" : "Pause";
    toggle.querySelector("use").setAttribute("href", toggle.querySelector("use").getAttribute("href").replace(/#.*/, paused ? "#play" : "#pause"));
    if (paused) say("", "Paused");
    else refresh();
  });
  document.addEventListener("visibilitychange", refresh);

  say("dot-ok", "Live");
  live.hidden = false;
  // At once where the viewer's zone is another than the page's, else when the next window is over.
  if (-new Date().getTimezoneOffset() !== Number(stats.dataset.offset)) refresh();
  else timer = setTimeout(refresh, every);
})();
