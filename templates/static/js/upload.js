// Helps with the upload form: suggests the file's name as the key, shows the picture before it is
// sent, and says beforehand when it is too large or the key is taken. The server checks it all again.
"use strict";

(() => {
  const form = document.querySelector("[data-upload]");
  const file = form.elements.namedItem("file");
  const key = form.elements.namedItem("key");
  const preview = form.querySelector("[data-preview]");
  const fileHelp = form.querySelector("[data-file-help]");
  const keyNote = form.querySelector("[data-key-note]");
  const drop = file.parentElement;
  const maxBytes = Number(form.dataset.maxBytes);
  const unprompted = fileHelp.textContent;

  // As the server writes them: 1 kB is 1024 bytes.
  function size(bytes) {
    if (bytes < 1024) return `${bytes} B`;
    if (bytes < 2 ** 20) return `${Math.round(bytes / 1024)} kB`;
    return `${Number((bytes / 2 ** 20).toFixed(1))} MB`;
  }

  // A key that somebody typed, or that the page came with, is not overwritten.
  let suggested = key.value === "" ? "" : null;

  async function showPreview(chosen) {
    preview.hidden = true;
    if (!chosen) return;
    try {
      const picture = await createImageBitmap(chosen);
      const scale = Math.min(1, 960 / picture.width, 640 / picture.height);
      preview.width = Math.max(1, Math.round(picture.width * scale));
      preview.height = Math.max(1, Math.round(picture.height * scale));
      preview.getContext("2d").drawImage(picture, 0, 0, preview.width, preview.height);
      fileHelp.textContent = `${picture.width} × ${picture.height} pixels, ${size(chosen.size)}`;
      picture.close();
      preview.hidden = false;
    } catch {
      fileHelp.textContent = "This browser can’t read that file as an image.";
    }
  }

  file.addEventListener("change", () => {
    const [chosen] = file.files;
    drop.classList.remove("is-over");
    file.setCustomValidity("");
    fileHelp.textContent = chosen ? size(chosen.size) : unprompted;
    if (chosen && chosen.size > maxBytes) {
      file.setCustomValidity(`This file has ${size(chosen.size)}; up to ${size(maxBytes)} are allowed.`);
      file.reportValidity();
    }
    if (chosen && suggested !== null && key.value === suggested) {
      key.value = suggested = chosen.name;
      key.dispatchEvent(new Event("input"));
    }
    showPreview(chosen);
  });

  for (const name of ["dragenter", "dragover"]) {
    drop.addEventListener(name, (event) => {
      event.preventDefault();
      drop.classList.add("is-over");
    });
  }
  drop.addEventListener("dragleave", () => drop.classList.remove("is-over"));
  drop.addEventListener("drop", (event) => {
    event.preventDefault();
    drop.classList.remove("is-over");
    if (event.dataTransfer.files.length === 0) return;
    file.files = event.dataTransfer.files;
    file.dispatchEvent(new Event("change"));
  });

  // Whether the key is taken is asked once the typing pauses; only the last question counts.
  let question = null;
  let pause = 0;
  key.addEventListener("input", () => {
    clearTimeout(pause);
    question?.abort();
    keyNote.hidden = true;
    const asked = key.value;
    if (asked === "") return;
    pause = setTimeout(async () => {
      question = new AbortController();
      try {
        // Of all keys that begin with a key, it is the first itself.
        const query = new URLSearchParams({ prefix: asked, limit: "1" });
        const answer = await fetch(`/api/images?${query}`, { signal: question.signal });
        const taken = answer.ok && (await answer.json()).images[0]?.key === asked;
        keyNote.hidden = !taken;
        if (taken) keyNote.textContent = "An image is stored under this key: it will be replaced.";
      } catch {
        // Aborted, or the gateway can't be reached: then there is nothing to say.
      }
    }, 300);
  });
  if (key.value !== "") key.dispatchEvent(new Event("input"));
})();
