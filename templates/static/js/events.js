// Server-sent events for pages that follow what happens.
"use strict";

/**
 * Follows `url` for as long as the page is seen: browsers allow six connections to a host, for all tabs together.
 * `on` has a handler for each name of an event. `state` is told "open", "broken" (the browser tries again) and
 * "refused" (the gateway sends no further stream, or can't at all; tried again here, less often) and "gave way" (another
 * reader has the place; at once, this one would only take it from the next).
 * Returns functions that stop and go on.
 */
function follow(url, on, state) {
  const again = 5000;
  const later = 30_000;
  let source;
  let timer = 0;
  let wanted = true;

  function close() {
    clearTimeout(timer);
    source?.close();
    source = undefined;
  }

  function open() {
    close();
    if (!wanted || document.hidden) return;
    source = new EventSource(url());
    source.addEventListener("open", () => state("open"));
    source.addEventListener("error", () => {
      if (source.readyState !== EventSource.CLOSED) return state("broken");
      timer = setTimeout(open, again);
      state("refused");
    });
    source.addEventListener("gave_way", () => {
      source.close();
      timer = setTimeout(open, later);
      state("gave way");
    });
    for (const [name, handler] of Object.entries(on)) {
      source.addEventListener(name, (event) => handler(JSON.parse(event.data)));
    }
  }

  document.addEventListener("visibilitychange", open);
  open();
  return {
    stop() {
      wanted = false;
      close();
    },
    start() {
      wanted = true;
      open();
    },
  };
}
