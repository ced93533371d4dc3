// Helps with the list of images: shows it in another order as soon as that is chosen, selects all that are
// on the page, and says how many are selected. Without it the list's forms do the same by their buttons.
"use strict";

(() => {
  const toolbar = document.querySelector("[data-listing]");
  toolbar.elements.namedItem("sort").addEventListener("change", () => toolbar.requestSubmit());

  const list = document.querySelector("[data-select]");
  if (!list) return;
  const boxes = [...list.querySelectorAll(".choose")];
  const all = list.querySelector("[data-select-all]");
  const allBox = all.querySelector("input");
  const button = list.querySelector("button[type=submit]");
  const said = list.querySelector("[data-selected]");

  function count() {
    const selected = boxes.filter((box) => box.checked).length;
    allBox.checked = selected === boxes.length;
    allBox.indeterminate = selected > 0 && selected < boxes.length;
    button.disabled = selected === 0;
    said.textContent = selected === 0 ? "" : `${selected} selected`;
  }

  allBox.addEventListener("change", () => {
    for (const box of boxes) box.checked = allBox.checked;
    count();
  });

  // With shift, everything between this box and the one before it.
  let last = null;
  list.addEventListener("click", (event) => {
    const at = boxes.indexOf(event.target);
    if (at < 0) return;
    if (event.shiftKey && last !== null) {
      for (const box of boxes.slice(Math.min(at, last), Math.max(at, last) + 1)) box.checked = event.target.checked;
    }
    last = at;
    count();
  });
  list.addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    for (const box of boxes) box.checked = false;
    count();
  });

  all.hidden = false;
  // Back again by the browser's history, the page may be as it was left.
  window.addEventListener("pageshow", count);
  count();
})();
