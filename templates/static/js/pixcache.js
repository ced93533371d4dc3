// What every page gets from a script: times in the viewer's own zone, buttons that copy, and a sign
// that something is under way. Without it all pages work, with times in UTC.
"use strict";

(() => {
  const short = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });
  const full = new Intl.DateTimeFormat(undefined, { dateStyle: "full", timeStyle: "long" });

  function localizeTimes(root) {
    for (const time of root.querySelectorAll("time[datetime]")) {
      const moment = new Date(time.dateTime);
      if (Number.isNaN(moment.getTime())) continue;
      time.title = full.format(moment);
      if (!("ago" in time.dataset)) time.textContent = short.format(moment);
    }
  }

  function showCopyButtons(root) {
    if (!navigator.clipboard) return;
    for (const button of root.querySelectorAll("[data-copy]")) button.hidden = false;
  }

  document.addEventListener("click", async (event) => {
    const button = event.target.closest("[data-copy]");
    if (!button) return;
    const label = button.querySelector("span");
    const before = label.textContent;
    try {
      await navigator.clipboard.writeText(button.closest(".snippet").querySelector("code").textContent);
      label.textContent = "Copied";
    } catch {
      label.textContent = "Not allowed";
    }
    setTimeout(() => { label.textContent = before; }, 1500);
  });

  // A second click on a form that is being sent would send it again.
  document.addEventListener("submit", (event) => {
    const button = event.target.querySelector("button[data-busy]");
    if (!button || event.defaultPrevented) return;
    const label = button.querySelector("span");
    button.dataset.idle = label.textContent;
    label.textContent = button.dataset.busy;
    // Only afterwards: a disabled button would not be part of what is sent.
    setTimeout(() => { button.disabled = true; });
  });

  // Whatever leads to another page shows that it works, unless that page is there at once.
  let waiting = 0;
  window.addEventListener("beforeunload", () => {
    waiting = setTimeout(() => document.documentElement.classList.add("is-under-way"), 80);
  });
  function settle() {
    clearTimeout(waiting);
    document.documentElement.classList.remove("is-under-way");
  }

  // Back again by the browser's history, the page is as it was left: in the middle of sending.
  window.addEventListener("pageshow", () => {
    settle();
    for (const button of document.querySelectorAll("button[data-idle]")) {
      button.querySelector("span").textContent = button.dataset.idle;
      delete button.dataset.idle;
      button.disabled = false;
    }
  });

  // A thumbnail that can't be made gives its place to the original, which the browser may know how to show.
  function showOriginal(image) {
    const address = new URL(image.src);
    if (!address.searchParams.has("w")) return false;
    address.searchParams.delete("w");
    image.removeAttribute("srcset");
    image.src = address;
    return true;
  }

  // A picture that can't be drawn says so in its place.
  function markBroken(image) {
    if (showOriginal(image)) return;
    const template = document.querySelector("template[data-broken]");
    if (image.matches("[data-picture]")) image.closest(".picture").replaceChildren(template.content.cloneNode(true));
    else image.closest(".frame")?.classList.add("is-broken");
  }
  document.addEventListener("error", (event) => {
    if (event.target instanceof HTMLImageElement) markBroken(event.target);
  }, true);
  for (const image of document.images) {
    if (image.complete && image.naturalWidth === 0 && image.currentSrc !== "") markBroken(image);
  }

  function prepare(root) {
    localizeTimes(root);
    showCopyButtons(root);
  }

  // Whether all parts are there is asked again on every page, and on their own page all that stands there.
  const system = document.getElementById("system-page");
  const parts = (system ? ["system", "notices", "system-page"] : ["system"]).map((id) => document.getElementById(id)).filter(Boolean);
  async function askAgain() {
    if (document.hidden) return;
    try {
      const answer = await fetch("/system", { signal: AbortSignal.timeout(4000) });
      if (!answer.ok) return;
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      for (const part of parts) {
        const now = page.getElementById(part.id);
        prepare(now);
        // What is the same stays: nothing is spoken twice, and what is selected stays selected.
        if (now.innerHTML !== part.innerHTML && !part.contains(document.activeElement)) part.replaceChildren(...now.childNodes);
      }
    } catch {
      // The gateway is away: the next page says so.
    }
  }
  if (parts.length) setInterval(askAgain, system ? 5000 : 15_000);

  document.addEventListener("pixcache:updated", (event) => prepare(event.target));
  prepare(document);
})();
