/* The first steps: three bubbles that never come back once closed; `localStorage.hints` remembers it. */
(function () {
  "use strict";
  const page = window.redlinePage, { $, state } = page;

  // what it speaks of, its width, 0 = a bar of one line where the window is wide; its text
  const HINTS = [
    ["#explain", 0, "Red is what the detector did not expect. This sentence says what, since when and why."],
    [".slide:has(#threshold)", 290, "The threshold decides what is red. Move it: the marks and the numbers change at once, for you alone."],
    ["#inject", 0, "Put a fault into the stream, and see which detectors catch it, and how soon."],
  ];
  const hintTarget = () => document.querySelector(HINTS[hint][0]);
  const BAR_FROM = 960; // px
  let hint = -1; // the bubble that is shown, -1 = none

  const isShown = (el) => Boolean(el && el.getClientRects().length);

  function showHint(next) {
    hint = HINTS.findIndex(([target], i) => i >= next && isShown(document.querySelector(target)));
    if (hint < 0) return closeHint();
    const [, width, text] = HINTS[hint];
    const bar = !width && document.documentElement.clientWidth > BAR_FROM;
    $("hint").classList.toggle("bar", bar);
    $("hint").style.width = bar ? "max-content" : `min(${width || 420}px, calc(100vw - 20px))`;
    $("hint-text").textContent = text;
    $("hint-count").textContent = `${hint + 1} of ${HINTS.length}`;
    $("hint-next").textContent = hint + 1 < HINTS.length ? "Next" : "Done";
    $("hint").hidden = false;
    if (next) hintTarget().scrollIntoView({ block: "center" });
    placeHint();
  }

  // Over or under what it speaks of, else at an edge of the window: where it covers neither that nor the plot nor a slider, and the tabs only if it must.
  function placeHint() {
    if (hint < 0) return;
    const box = $("hint"), target = hintTarget();
    if (!isShown(target)) return closeHint(false);
    const at = target.getBoundingClientRect(), plot = document.querySelector(".plot").getBoundingClientRect();
    const { offsetWidth: w, offsetHeight: h } = box, gap = 10, wide = document.documentElement.clientWidth;
    const x = Math.max(gap, Math.min(at.left, wide - w - gap)), right = at.right - w;
    const spots = [[x, at.top - h - gap], [x, at.bottom + gap], [right, at.bottom + gap], [right, at.top - h - gap], [at.left - w - gap, at.top], [gap, innerHeight - h - gap], [wide - w - gap, gap]];
    const sliders = [...document.querySelectorAll(".slide, .size, #inject-point")].map((el) => el.getBoundingClientRect());
    const fits = (others) => ([left, top]) => left >= 0 && top >= 0 && top + h <= innerHeight && others.every((each) => !page.meets({ left, top, right: left + w, bottom: top + h }, each));
    const kept = [at, plot, ...sliders], tabs = $("domain").getBoundingClientRect();
    const [left, top] = spots.find(fits([...kept, tabs])) || spots.find(fits(kept)) || spots[spots.length - 1];
    Object.assign(box.style, { left: `${left}px`, top: `${top}px` });
  }

  function closeHint(forGood = true) {
    hint = -1;
    $("hint").hidden = true;
    if (forGood) localStorage.hints = "closed";
  }

  // The first bubble comes when the plot is drawn, so that it is known where there is room.
  function welcome() {
    placeHint(); // what it speaks of may have moved
    if (localStorage.hints === "closed" || hint >= 0 || !state.heartbeat || !isShown(document.querySelector("#chart .plot-container"))) return;
    showHint(0);
  }

  Object.assign(page, { hints: { show: showHint, close: closeHint, next: () => showHint(hint + 1), isOpen: () => hint >= 0 } });
  addEventListener("resize", placeHint);
  addEventListener("scroll", placeHint, { passive: true });
  setInterval(welcome, 1000);
})();
