// Reads values off the charts: a line at the pointer's time through all of them, with each chart's value at
// that time beside its title. With the keyboard, arrow keys move it, and Escape puts it away.
"use strict";

(() => {
  const stats = document.getElementById("stats");
  const spoken = document.createElement("p");
  spoken.className = "visually-hidden";
  spoken.setAttribute("role", "status");
  stats.after(spoken);

  let readings = null;
  let charts = [];
  // Which point is read, and when it began: it stays at its time while charts move on.
  let at = -1;
  let beginMs = 0;
  let updating = false;

  function load() {
    const source = stats.querySelector("[data-readings]");
    readings = source && JSON.parse(source.dataset.readings);
    charts = [...stats.querySelectorAll("[data-chart]")].map((figure) => {
      const svg = figure.querySelector("svg");
      const reading = figure.querySelector("[data-reading]");
      return { figure, svg, reading, last: reading.textContent, title: figure.querySelector(".chart-title").textContent };
    });
    for (const help of stats.querySelectorAll("[data-reading-help]")) help.hidden = false;
    if (at >= 0) show(readings ? readings.begins_ms.indexOf(beginMs) : -1);
  }

  function show(index) {
    at = index;
    for (const [number, chart] of charts.entries()) {
      chart.svg.querySelector(".chart-cursor")?.remove();
      chart.reading.textContent = chart.last;
      if (at < 0) continue;
      const line = document.createElementNS("http://www.w3.org/2000/svg", "line");
      const [, , , height] = chart.svg.getAttribute("viewBox").split(" ");
      const x = readings.left[at];
      for (const [name, value] of Object.entries({ class: "chart-cursor", x1: x, x2: x, y1: 80, y2: height - 280 })) {
        line.setAttribute(name, value);
      }
      chart.svg.append(line);
      const when = document.createElement("span");
      when.className = "chart-when";
      when.textContent = time(readings.begins_ms[at]);
      chart.reading.replaceChildren(when, readings.values[number][at] ?? "–");
    }
    if (at >= 0) beginMs = readings.begins_ms[at];
  }

  function time(ms) {
    const first = new Date(readings.begins_ms[0]);
    const moment = new Date(ms);
    const days = first.toDateString() !== new Date(readings.begins_ms.at(-1)).toDateString();
    const date = days ? { day: "numeric", month: "short" } : { second: "2-digit" };
    return moment.toLocaleString("en-GB", { hour: "2-digit", minute: "2-digit", ...date });
  }

  /** The point nearest to so many units from the left. */
  function nearest(x) {
    let best = -1;
    for (const [index, left] of readings.left.entries()) {
      if (best < 0 || Math.abs(left - x) < Math.abs(readings.left[best] - x)) best = index;
    }
    return best;
  }

  function chartOf(event) {
    return charts.find((chart) => chart.figure === event.target.closest("[data-chart]"));
  }

  stats.addEventListener("pointermove", (event) => {
    const chart = chartOf(event);
    if (!readings || !chart) return show(-1);
    const box = chart.svg.getBoundingClientRect();
    const [, , width] = chart.svg.getAttribute("viewBox").split(" ");
    show(nearest(((event.clientX - box.left) / box.width) * width));
  });
  stats.addEventListener("pointerleave", () => show(-1));
  stats.addEventListener("keydown", (event) => {
    const chart = chartOf(event);
    if (!readings?.left.length || !chart) return;
    const last = readings.left.length - 1;
    const from = at < 0 ? last + (event.key === "ArrowLeft" ? 1 : 0) : at;
    const to = { ArrowLeft: from - 1, ArrowRight: from + 1, PageUp: from - 10, PageDown: from + 10, Home: 0, End: last }[event.key];
    if (event.key === "Escape") show(-1);
    if (to === undefined) return;
    event.preventDefault();
    show(Math.min(Math.max(to, 0), last));
    spoken.textContent = `${chart.title}: ${readings.values[charts.indexOf(chart)][at] ?? "no value"} at ${time(beginMs)}`;
  });
  stats.addEventListener("focusout", () => updating || show(-1));
  stats.addEventListener("pixcache:updating", () => (updating = true));
  stats.addEventListener("pixcache:updated", () => {
    updating = false;
    load();
  });
  load();
})();
