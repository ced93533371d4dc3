// Makes the upload form one for many files: each gets a line with its picture, its key and its progress; it is
// checked before it is sent, and says whether it replaces an image. The server checks all of it again. Without this
// script the form sends one file.
"use strict";

(() => {
  const form = document.querySelector("[data-upload]");
  const input = form.elements.namedItem("file");
  const button = form.querySelector("button[type=submit]");
  const queue = form.querySelector("[data-queue]");
  const summary = form.querySelector("[data-summary]");
  const prefix = document.getElementById("prefix");
  const template = document.querySelector("[data-queued]");
  const single = form.querySelector("[data-single]");
  const maxBytes = Number(form.dataset.maxBytes);
  const maxMegapixels = Number(form.dataset.maxMegapixels);
  const MOST_FILES = 500;
  // The name of each format, and its first bytes, of which null may be any.
  const KINDS = JSON.parse(form.dataset.signatures);

  const lines = [];
  // The key that the page came with is that of the first file.
  let givenKey = form.elements.namedItem("key").value;

  // As the server writes them: 1 kB is 1024 bytes.
  function size(bytes) {
    if (bytes < 1024) return `${bytes} B`;
    if (bytes < 2 ** 20) return `${Math.round(bytes / 1024)} kB`;
    return `${Number((bytes / 2 ** 20).toFixed(1))} MB`;
  }

  /** Runs tasks, so many at once; the others wait for their turn. */
  function lane(width) {
    const waiting = [];
    let running = 0;
    const next = () => {
      while (running < width && waiting.length > 0) {
        running += 1;
        waiting.shift()().finally(() => {
          running -= 1;
          next();
        });
      }
    };
    return (task) =>
      new Promise((resolve, reject) => {
        waiting.push(() => task().then(resolve, reject));
        next();
      });
  }
  const sending = lane(3);
  const asking = lane(3);
  // A large picture takes a hundred times its file's size while it is decoded.
  const drawing = lane(1);

  /** What is wrong with a key, if anything is. */
  function wrongWith(line) {
    const key = line.key.value;
    const bytes = new TextEncoder().encode(key).length;
    if (key === "") return "The key must be 1 to 255 bytes, and is empty.";
    if (bytes > 255) return `The key must be 1 to 255 bytes, and has ${bytes}.`;
    if (key === "." || key === "..") return "The key must be one that a URL can name, and . and .. are not.";
    if (/[\u0000-\u001f\u007f-\u009f]/.test(key)) return "The key must have no control characters.";
    if (key.trim() !== key) return "The key must begin and end with other characters than white space.";
    const twin = lines.find((other) => other !== line && other.key.value === key && other.state !== "refused");
    if (twin && lines.indexOf(twin) < lines.indexOf(line)) return "The key must differ from the others of this list.";
    return "";
  }

  function show(line, state, says, link) {
    line.state = state;
    line.element.dataset.state = state;
    line.says.textContent = says;
    if (link) {
      const open = document.createElement("a");
      open.href = link;
      open.textContent = "Show it";
      line.says.append(" ", open);
    }
    line.key.disabled = ["sending", "stored", "refused"].includes(state);
    line.progress.hidden = state !== "sending";
    line.retry.hidden = state !== "failed";
    line.remove.disabled = state === "sending";
    count();
  }

  /** Says what is wrong with the keys, or what they replace. */
  function checkKeys() {
    for (const line of lines) {
      if (!["ready", "failed"].includes(line.state)) continue;
      const wrong = wrongWith(line);
      line.key.setCustomValidity(wrong);
      line.key.setAttribute("aria-invalid", String(wrong !== ""));
      line.element.toggleAttribute("data-replaces", wrong === "" && Boolean(line.taken));
      if (line.state === "failed") continue;
      line.says.textContent = wrong || (line.taken ? `Replaces the image stored under this key (${line.taken}).` : "");
    }
    count();
  }

  function count() {
    const of = (...states) => lines.filter((line) => states.includes(line.state)).length;
    const [ready, busy, stored, refused] = [of("ready", "failed"), of("sending"), of("stored"), of("refused")];
    const checking = of("checking");
    button.disabled = ready === 0;
    const label = button.querySelector("span");
    label.textContent = ready > 1 ? `Store ${ready} images` : "Store";
    const parts = [];
    if (checking) parts.push(`${checking} being checked`);
    if (busy) parts.push(`${busy} under way`);
    if (stored) parts.push(`${stored} stored`);
    if (refused) parts.push(`${refused} refused`);
    if (of("failed")) parts.push(`${of("failed")} failed`);
    summary.textContent = parts.length > 0 ? `${parts.join(", ")}.` : "";
  }

  /** What was said of a line was said of another key. */
  function renamed(line) {
    line.taken = undefined;
    if (line.state === "failed") show(line, "ready", "");
  }

  /** Finds out whether the key is taken; only the last question counts. */
  function askWhetherTaken(line) {
    line.question?.abort();
    const question = (line.question = new AbortController());
    const key = line.key.value;
    line.taken = undefined;
    if (wrongWith(line) !== "") return;
    asking(async () => {
      if (question.signal.aborted) return;
      try {
        // Of all keys that begin with a key, it is the first itself.
        const answer = await fetch(`/api/images?${new URLSearchParams({ prefix: key, limit: "1" })}`, { signal: question.signal });
        if (!answer.ok) return;
        const found = (await answer.json()).images[0];
        line.taken = found?.key === key ? `${found.width} × ${found.height}, ${size(found.size)}` : null;
        checkKeys();
      } catch {
        // Aborted, or the gateway can't be reached: then sending says so.
      }
    });
  }

  async function draw(line) {
    const picture = await createImageBitmap(line.file);
    const { width, height } = picture;
    // The middle of it, as the gallery shows it.
    const scale = Math.max(line.canvas.width / width, line.canvas.height / height);
    const [x, y] = [(line.canvas.width - width * scale) / 2, (line.canvas.height - height * scale) / 2];
    line.canvas.getContext("2d").drawImage(picture, x, y, width * scale, height * scale);
    picture.close();
    return { width, height };
  }

  /** Looks at a file before it is sent. */
  async function check(line) {
    const { file } = line;
    if (file.size > maxBytes) return `The image must be at most ${size(maxBytes)}, and has ${size(file.size)}.`;
    let head;
    try {
      head = new Uint8Array(await file.slice(0, 16).arrayBuffer());
    } catch {
      return "The file can’t be read. For a folder, use bin/import.";
    }
    const wanted = `The image must be a ${form.dataset.formats} image`;
    if (head.length === 0) return `${wanted}, and is empty.`;
    const kind = KINDS.find(([, magic]) => magic.every((byte, at) => byte === null || head[at] === byte));
    if (!kind) return `${wanted}.`;
    line.facts.textContent = `${file.name} · ${kind[0]} · ${size(file.size)}`;
    try {
      const { width, height } = await drawing(() => draw(line));
      line.facts.textContent = `${file.name} · ${kind[0]} · ${width} × ${height} · ${size(file.size)}`;
      if (width * height > maxMegapixels * 1e6) return `The image must have at most ${maxMegapixels} megapixels, and has ${Math.ceil((width * height) / 1e6)}.`;
    } catch {
      line.facts.textContent += " · this browser can’t show it";
    }
    return "";
  }

  function add(files) {
    for (const file of files) {
      if (lines.length >= MOST_FILES) {
        summary.textContent = `The files must be at most ${MOST_FILES} at once: the others were left out.`;
        break;
      }
      const element = template.content.firstElementChild.cloneNode(true);
      const part = (selector) => element.querySelector(selector);
      const line = {
        file,
        element,
        key: part("input"),
        canvas: part("canvas"),
        facts: part(".queued-facts"),
        says: part(".queued-says"),
        retry: part("[data-retry]"),
        remove: part("[data-remove]"),
        progress: part("progress"),
        state: "checking",
        edited: givenKey !== "",
      };
      line.key.value = givenKey || prefix.value + file.name.normalize("NFC").trim();
      givenKey = "";
      line.key.setAttribute("aria-label", `Key of ${file.name}`);
      line.retry.setAttribute("aria-label", `Try ${file.name} again`);
      line.remove.setAttribute("aria-label", `Remove ${file.name} from this list`);
      line.progress.setAttribute("aria-label", file.name);
      line.facts.textContent = `${file.name} · ${size(file.size)}`;
      line.key.addEventListener("input", () => {
        line.edited = true;
        renamed(line);
        checkKeys();
        clearTimeout(line.pause);
        line.pause = setTimeout(() => askWhetherTaken(line), 250);
      });
      line.retry.addEventListener("click", () => send(line));
      line.remove.addEventListener("click", () => {
        line.question?.abort();
        const at = lines.indexOf(line);
        lines.splice(at, 1);
        element.remove();
        checkKeys();
        // The focus goes where the next of them is.
        (lines[at]?.remove ?? lines.at(-1)?.remove ?? input).focus();
      });
      lines.push(line);
      queue.append(element);
      show(line, "checking", "");
      askWhetherTaken(line);
      check(line).then((wrong) => {
        if (wrong) show(line, "refused", wrong);
        else if (line.state === "checking") show(line, "ready", "");
        checkKeys();
      });
    }
  }

  /** A key at the end of a path. Its slashes stay, but where a browser would fold a segment away. */
  function inPath(key) {
    const segments = key.split("/");
    const folds = segments.some((segment) => ["", ".", ".."].includes(segment));
    return segments.map(encodeURIComponent).join(folds ? "%2F" : "/");
  }

  /** Sends one file; resolves once it is answered, whatever the answer. */
  function put(line) {
    return new Promise((resolve) => {
      const request = new XMLHttpRequest();
      request.open("PUT", `/images/${inPath(line.key.value)}`);
      // Nothing is replaced of which the line has not said so: it may have come in between, or the question be under way.
      if (!line.taken) request.setRequestHeader("If-None-Match", "*");
      request.upload.addEventListener("progress", (event) => {
        line.progress.value = (event.loaded / event.total) * 100;
        if (event.loaded === event.total) line.says.textContent = "Storing…";
      });
      request.addEventListener("loadend", () => resolve(request));
      request.send(line.file);
    });
  }

  function send(line) {
    clearTimeout(line.pause);
    line.question?.abort();
    show(line, "sending", "Waiting for its turn…");
    line.progress.value = 0;
    return sending(async () => {
      line.says.textContent = "Sending…";
      const answer = await put(line);
      const page = `/image?key=${encodeURIComponent(line.key.value)}`;
      if (answer.status === 201) {
        line.how = "new";
        show(line, "stored", "Stored.", page);
      } else if (answer.status === 200) {
        line.how = "replaced";
        show(line, "stored", "Stored. It replaced the image under this key.", page);
      } else if (answer.status === 412) {
        line.taken = "stored already";
        show(line, "failed", "An image is stored under this key already. Try again to replace it.");
      } else {
        let why = "The gateway can’t be reached.";
        if (answer.status > 0) {
          why = `The gateway answered ${answer.status}.`;
          try {
            const { message } = JSON.parse(answer.responseText).error;
            why = `${message[0].toUpperCase()}${message.slice(1)}.`;
          } catch {
            // Something between here and the gateway has answered; its status has to do.
          }
        }
        // What is no image stays none.
        show(line, [413, 415, 422].includes(answer.status) ? "refused" : "failed", why);
      }
    });
  }

  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const ready = lines.filter((line) => ["ready", "failed"].includes(line.state));
    await Promise.all(ready.map(send));
    // One image alone leads to its page, as it does without this script.
    if (lines.length === 1 && lines[0].state === "stored") {
      location.assign(`/image?key=${encodeURIComponent(lines[0].key.value)}&stored=${lines[0].how}`);
    }
  });
  window.addEventListener("beforeunload", (event) => {
    if (lines.some((line) => line.state === "sending")) event.preventDefault();
  });

  let prefixPause = 0;
  prefix.addEventListener("input", () => {
    for (const line of lines) {
      if (line.edited || !["checking", "ready", "failed"].includes(line.state)) continue;
      line.key.value = prefix.value + line.file.name.normalize("NFC").trim();
      renamed(line);
    }
    checkKeys();
    clearTimeout(prefixPause);
    prefixPause = setTimeout(() => lines.filter((line) => !line.edited && ["checking", "ready"].includes(line.state)).forEach(askWhetherTaken), 250);
  });

  input.addEventListener("change", () => {
    add(input.files);
    // So that the same file can be chosen again after it was removed.
    input.value = "";
  });
  // Anywhere on the page: a file that misses the field must not take the browser away from here.
  let depth = 0;
  const over = (by) => {
    depth = Math.max(0, depth + by);
    form.classList.toggle("is-over", depth > 0);
  };
  document.addEventListener("dragenter", () => over(1));
  document.addEventListener("dragleave", () => over(-1));
  document.addEventListener("dragover", (event) => event.preventDefault());
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    over(-depth);
    add(event.dataTransfer.files);
  });
  document.addEventListener("paste", (event) => {
    if (event.clipboardData.files.length > 0) add(event.clipboardData.files);
  });

  input.multiple = true;
  input.required = false;
  single.remove();
  count();
})();
