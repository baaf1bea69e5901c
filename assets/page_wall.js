/* The lines on the tabs, and the overview as a wall display, worst first; every text is set as text, never as markup. */
(function () {
  "use strict";
  const page = window.redlinePage, { $, noUpdate, register } = page;

  // --- sparklines

  function drawSparkline(el, spark) {
    const w = 100, h = 100, line = spark.line;
    let path = "", pen = "M";
    for (const [x, y] of line) {
      if (y === null) { pen = "M"; continue; }
      path += `${pen}${(x * w).toFixed(1)},${(94 - y * 88).toFixed(1)}`;
      pen = "L";
    }
    const dots = spark.marks.filter((i) => line[i][1] !== null)
      .map((i) => `<i style="left:${line[i][0] * 100}%;top:${94 - line[i][1] * 88}%"></i>`).join("");
    el.innerHTML = `<svg viewBox="0 0 ${w} ${h}" preserveAspectRatio="none" aria-hidden="true"><path d="${path}"/></svg>${dots}`;
  }

  function drawSparklines(data) {
    for (const [name, spark] of Object.entries(data || {})) {
      document.querySelectorAll(`[data-spark="${CSS.escape(name)}"]`).forEach((el) => (drawSparkline(el, spark), (el.title = spark.name)));
      document.querySelectorAll(`[data-open="${CSS.escape(name)}"]`).forEach((el) => ((el.textContent = spark.open ? spark.open : ""), (el.title = spark.open ? `${spark.open} open incident${spark.open > 1 ? "s" : ""}` : "")));
    }
    return noUpdate();
  }

  // --- the wall: the overview, worst first; every text is set as text, never as markup

  const element = (tag, className, ...parts) => {
    const el = document.createElement(tag);
    if (className) el.className = className;
    el.append(...parts);
    return el;
  };

  // Returns the SVG of a line with its band; anomalous stretches are red lines, single points dots.
  function wallLine({ y, hot, low, high }) {
    const box = element("span", "spark"), n = Math.max(y.length - 1, 1), isHot = new Set(hot);
    const at = (i, v) => `${((100 * i) / n).toFixed(1)},${(96 - 0.092 * v).toFixed(1)}`;
    const path = (from, to, keep) => {
      let d = "", pen = "M";
      for (let i = from; i <= to; i++) {
        if (y[i] === null || !keep(i)) { pen = "M"; continue; }
        d += pen + at(i, y[i]);
        pen = "L";
      }
      return d;
    };
    let band = "";
    if (low) {
      const known = y.map((_, i) => i).filter((i) => low[i] !== null && high[i] !== null);
      if (known.length > 1) band = `M${known.map((i) => at(i, high[i])).join("L")}L${known.reverse().map((i) => at(i, low[i])).join("L")}Z`;
    }
    const long = (i) => isHot.has(i) && (isHot.has(i - 1) || isHot.has(i + 1));
    box.innerHTML = `<svg viewBox="0 0 100 100" preserveAspectRatio="none" aria-hidden="true"><path class="band" d="${band}"/><path d="${path(0, y.length - 1, () => true)}"/><path class="hot" d="${path(0, y.length - 1, long)}"/></svg>`;
    for (const i of hot) {
      if (long(i) || y[i] === null) continue;
      const dot = element("i");
      dot.style.left = `${(100 * i) / n}%`;
      dot.style.top = `${96 - 0.092 * y[i]}%`;
      box.append(dot);
    }
    return box;
  }

  function tileParts(tile) {
    const chip = element("em", `chip ${tile.severity}`, element("i", `mark ${tile.severity}`), tile.severity);
    const expected = tile.expected ? ["expected ", element("b", "", tile.expected), ` ${tile.unit}`] : ["no expected range"];
    return [
      element("span", "tile-head", element("b", "", tile.title), chip),
      element("span", "tile-value", element("strong", "", tile.value), " ", element("small", "", tile.unit)),
      element("span", "tile-expected", ...expected),
      ...(tile.alarm ? [element("span", "tile-alarm", tile.alarm)] : []),
      wallLine(tile.line),
      element("span", "tile-foot", element("span", "", "since ", element("b", "", tile.since), ` for ${tile.for}`), element("span", "", tile.incident)),
    ];
  }

  const calmParts = (row) => [element("b", "", row.title), wallLine(row.line), element("span", "calm-value", element("strong", "", row.value), " ", element("small", "", row.unit))];

  // Shows one button for each stream, in order; a button that stays keeps its focus.
  function fillWall(box, rows, className, parts) {
    const focused = document.activeElement, before = new Map([...box.children].map((el) => [el.dataset.domain, el]));
    const after = rows.map((row) => {
      const el = before.get(row.stream) || element("button");
      el.className = className(row);
      el.dataset.domain = row.stream;
      el.replaceChildren(...parts(row));
      return el;
    });
    if (after.length !== box.children.length || after.some((el, i) => el !== box.children[i])) box.replaceChildren(...after);
    if (box.contains(focused) && document.activeElement !== focused) focused.focus({ preventScroll: true });
  }

  // The sentence over the tiles: the worst stream as a link, or that all are calm; it is written only when it changes.
  function writeHeadline({ stream, severity, title, text }) {
    const box = $("wall-worst"), words = [stream, severity, title, text].join("\n");
    if (box.dataset.words === words) return;
    box.dataset.words = words;
    if (!stream) return box.replaceChildren(text);
    const link = box.querySelector("button") || element("button", "link"); // it keeps the focus
    link.dataset.domain = stream;
    link.textContent = title;
    if (box.contains(link)) [...box.childNodes].forEach((node) => node === link || node.remove());
    else box.replaceChildren(link);
    link.before(element("i", `mark ${severity}`), "Most unusual now: ");
    link.after(`, ${text}.`);
  }

  function drawWall(wall) {
    if (!wall || !$("wall-tiles")) return noUpdate();
    writeHeadline(wall.headline);
    const counts = Object.entries(wall.counts).map(([name, count]) => element("span", name, ...(name === "calm" ? [] : [element("i", `mark ${name}`)]), element("b", "", count.toLocaleString("en")), ` ${name}`));
    $("wall-counts").replaceChildren(...counts);
    fillWall($("wall-tiles"), wall.tiles, (tile) => `tile ${tile.severity}${tile.open ? " alarmed" : ""}`, tileParts);
    fillWall($("wall-calm"), wall.calm, () => "calm-row", calmParts);
    $("wall-tiles").dataset.more = wall.more ? `and ${wall.more.toLocaleString("en")} more, under Streams` : "";
    $("wall-shown").textContent = `${wall.calm.length} of ${wall.counts.calm.toLocaleString("en")} shown`;
    return noUpdate();
  }

  // Without the tabs, over the whole screen where the browser allows it.
  function toggleWall(full) {
    document.body.dataset.wall = full ? "full" : "";
    $("wall-full").textContent = full ? "Leave full screen" : "Full screen";
    if (full && document.documentElement.requestFullscreen) document.documentElement.requestFullscreen().catch(() => {});
    if (!full && document.fullscreenElement) document.exitFullscreen();
  }

  Object.assign(page, { toggleWall, element, wallLine });
  register({ sparks: drawSparklines, wall: drawWall });
  document.addEventListener("fullscreenchange", () => document.fullscreenElement || document.body.dataset.wall !== "full" || toggleWall(false));
})();
