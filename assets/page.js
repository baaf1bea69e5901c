/* The part of the page that runs in the browser: age of the data by its own clock, lost connection, keys, theme, sound, address. */
(function () {
  "use strict";
  const $ = (id) => document.getElementById(id);
  const setProps = (id, props) => window.dash_clientside.set_props(id, props);
  const noUpdate = () => window.dash_clientside.no_update;
  // heartbeat: the last one; answeredAt: when it came, ms; endWhenLost: the newest step when the server was lost; interval: ms between ticks
  const state = { heartbeat: null, answeredAt: performance.now(), lost: false, endWhenLost: 0, bell: false, sound: null, interval: 500, seed: 0, linkChecked: false };

  // --- age and clock; whether the numbers are lost, paused or stale

  const formatAge = (s) => (s < 90 ? `${Math.max(0, Math.round(s))} s ago` : s < 5400 ? `${Math.round(s / 60)} min ago` : `${Math.round(s / 3600)} h ago`);

  function showAge(text, kind) {
    const age = $("age");
    if (age && age.textContent !== text) age.textContent = text;
    document.body.dataset.state = kind;
  }

  function showTrouble(text) {
    const trouble = $("trouble");
    if (trouble && trouble.dataset.link !== text) setProps("trouble", { children: text }), (trouble.dataset.link = text);
  }

  // calls of the server: which are open, and whether one failed since the last answer; awake = ms in which this page ran
  const traffic = { open: new Map(), failed: false, awake: 0, looked: performance.now() };
  const plainFetch = window.fetch;

  window.fetch = async (...asked) => {
    if (!String(asked[0]?.url || asked[0]).includes("_dash-update-component")) return plainFetch(...asked);
    const call = {};
    traffic.open.set(call, traffic.awake);
    try {
      const answer = await plainFetch(...asked);
      if (answer.status >= 500) traffic.failed = true;
      return answer;
    } catch (error) {
      traffic.failed = true;
      throw error;
    } finally {
      traffic.open.delete(call);
    }
  };

  // A page that was hidden, or on a laptop that slept, did not wait in that time.
  function longestWait() {
    const now = performance.now();
    traffic.awake += Math.min(now - traffic.looked, 500);
    traffic.looked = now;
    return Math.max(0, ...[...traffic.open.values()].map((began) => traffic.awake - began));
  }

  // A time in ms since the epoch as a clock shows it, with its day where that is another one
  function formatMoment(ms) {
    const text = new Date(ms).toISOString(), time = text.slice(11, 19);
    return text.slice(0, 10) === new Date().toISOString().slice(0, 10) ? time : `${text.slice(0, 10)} ${time}`;
  }

  // The clock of what is shown: of a simulated stream its own newest time, not today's beside an axis of another day.
  function clockText() {
    const plot = document.querySelector("#chart .js-plotly-plot"), meta = plot && plot._fullLayout && plot._fullLayout.meta;
    const newest = meta && meta.clock !== "UTC" && (plot.data.find((trace) => trace.name === "score") || { x: [] }).x.at(-1);
    const shown = (at) => at.toLocaleString("en-GB", { day: "numeric", month: "short", year: "numeric", hour: "2-digit", minute: "2-digit", second: "2-digit", timeZone: "UTC" }).replace(",", "");
    return newest && document.body.dataset.domain !== "overview" ? `simulated ${shown(new Date(newest))}` : `${shown(new Date())} UTC`;
  }

  // The zone of the times on the page, and that of the viewer beside it.
  function zoneText() {
    const now = new Date(), ahead = -now.getTimezoneOffset(), size = Math.abs(ahead);
    if (!ahead) return "Times are in UTC, as your clock.";
    const zone = `UTC${ahead < 0 ? "−" : "+"}${Math.floor(size / 60)}${size % 60 ? `:${String(size % 60).padStart(2, "0")}` : ""}`;
    return `Times are in UTC; your clock is ${zone}: ${now.toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit" })}.`;
  }

  function writeZone() {
    const text = zoneText();
    document.querySelectorAll(".zone").forEach((el) => el.textContent !== text && (el.textContent = text));
  }

  // The plot is as high as its lanes need.
  function fitLanes() {
    const plot = document.querySelector("#chart .js-plotly-plot"), meta = plot && plot._fullLayout && plot._fullLayout.meta;
    const lanes = meta && meta.lanes ? meta.lanes.length : 1, box = document.querySelector(".plot");
    if (box && box.style.getPropertyValue("--lanes") !== String(lanes)) box.style.setProperty("--lanes", lanes);
  }

  function updateAge() {
    const clock = $("clock");
    if (!clock) return;
    clock.textContent = clockText();
    writeZone();
    const silent = (performance.now() - state.answeredAt) / 1000;
    const patience = Math.max(3 * state.interval, 1500) / 1000;
    const unanswered = longestWait() / 1000 > patience;
    if (state.heartbeat && silent > patience && !document.hidden && !traffic.failed && !unanswered) setProps("tick", { disabled: false }); // the browser slept, not the server
    else if (state.heartbeat && silent > patience && !document.hidden) {
      if (!state.lost) (state.lost = true), (state.endWhenLost = state.heartbeat ? state.heartbeat.end : 0);
      showAge(`no answer for ${Math.round(silent)} s`, "lost");
      showTrouble(`The server has not answered for ${Math.round(silent)} s. What you see is old; retrying.`);
      setProps("tick", { disabled: false });
      return;
    }
    if (!state.heartbeat) return;
    const { at, waiting, period, over } = state.heartbeat;
    if (at !== null) return showAge(`looking back, ${waiting.toLocaleString("en")} waiting`, "paused");
    if (state.heartbeat.age === null) return showAge("no points yet", "stale");
    const age = state.heartbeat.age + silent;
    if (over) return showAge("end of file", "paused");
    const stale = age > Math.max((3 * state.interval) / 1000, 3 * period);
    if (stale && state.heartbeat.since) return showAge(`silent since ${formatMoment(state.heartbeat.since * 1000)} UTC`, "stale");
    if (stale) return showAge(`last data ${formatAge(age)}, retrying`, "stale");
    showAge(`live, ${formatAge(age)}`, "live");
  }

  function receiveHeartbeat(heartbeat) {
    if (!heartbeat) return noUpdate();
    if (state.lost) {
      const filled = Math.max(0, heartbeat.end - state.endWhenLost);
      state.lost = false;
      showTrouble(`The server is back, ${filled.toLocaleString("en")} points filled in.`);
      setTimeout(() => state.lost || showTrouble(""), 4000);
    }
    traffic.failed = false;
    state.heartbeat = heartbeat;
    state.answeredAt = performance.now();
    const live = $("golive");
    if (live) {
      live.hidden = heartbeat.at === null && !heartbeat.waiting;
      live.textContent = `Go live (+${heartbeat.waiting.toLocaleString("en")})`;
    }
    updateAge();
    return heartbeat.at === null ? "Pause" : "Go on";
  }

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
    $("wall-tiles").dataset.more = wall.more ? `and ${wall.more.toLocaleString("en")} more` : "";
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

  // --- first steps: three bubbles that never come back once closed; `localStorage.hints` remembers it

  // what it speaks of, its width, its text
  const HINTS = [
    ["#explain", 420, "Red is what the detector did not expect. This sentence says what, since when and why."],
    [".slide:has(#threshold)", 290, "The threshold decides what is red. Move it: the marks and the numbers change at once, for you alone."],
    ["#inject", 420, "Put a fault into the stream, and see which detectors catch it, and how soon."],
  ];
  const hintTarget = () => document.querySelector(HINTS[hint][0]);
  let hint = -1; // the bubble that is shown, -1 = none

  const isShown = (el) => Boolean(el && el.getClientRects().length);
  const meets = (a, b) => a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom;

  function showHint(next) {
    hint = HINTS.findIndex(([target], i) => i >= next && isShown(document.querySelector(target)));
    if (hint < 0) return closeHint();
    const [, width, text] = HINTS[hint];
    $("hint").style.width = `min(${width}px, calc(100vw - 20px))`;
    $("hint-text").textContent = text;
    $("hint-count").textContent = `${hint + 1} of ${HINTS.length}`;
    $("hint-next").textContent = hint + 1 < HINTS.length ? "Next" : "Done";
    $("hint").hidden = false;
    if (next) hintTarget().scrollIntoView({ block: "center" });
    placeHint();
  }

  // Over or under what it speaks of, else at an edge of the window: where it covers neither that nor the plot.
  function placeHint() {
    if (hint < 0) return;
    const box = $("hint"), target = hintTarget();
    if (!isShown(target)) return closeHint(false);
    const at = target.getBoundingClientRect(), plot = document.querySelector(".plot").getBoundingClientRect();
    const { offsetWidth: w, offsetHeight: h } = box, gap = 10, wide = document.documentElement.clientWidth;
    const x = Math.max(gap, Math.min(at.left, wide - w - gap)), right = at.right - w;
    const spots = [[x, at.top - h - gap], [x, at.bottom + gap], [right, at.bottom + gap], [right, at.top - h - gap], [at.left - w - gap, at.top], [gap, innerHeight - h - gap], [wide - w - gap, gap]];
    const fits = ([left, top]) => left >= 0 && top >= 0 && top + h <= innerHeight && [at, plot].every((each) => !meets({ left, top, right: left + w, bottom: top + h }, each));
    const [left, top] = spots.find(fits) || spots[spots.length - 1];
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

  // --- what is under the pointer in the chart: time, value, expected range, score, truth, reason

  const hover = (function () {
    const SI = [[1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"]];
    const digits = (value) => (value === 0 ? "0" : Math.abs(value) >= 1000 ? Math.round(value).toLocaleString("en") : Number(value.toPrecision(3)).toString());
    const plain = (text) => text.replace(/&lt;/g, "<").replace(/&gt;/g, ">").replace(/&#37;/g, "%").replace(/&amp;/g, "&");
    const milliseconds = (x) => (typeof x === "number" ? x : new Date(String(x).replace(" ", "T") + (String(x).endsWith("Z") ? "" : "Z")).getTime());

    function scaled(values, { unit, si }) {
      const most = Math.max(...values.map(Math.abs)), found = si && SI.find(([size]) => most >= size);
      const [size, prefix] = found || [1, ""];
      return `${values.map((value) => digits(value / size)).join(" to ")}${unit ? ` ${prefix}${unit}` : ""}`;
    }

    // The index of the x nearest to a moment; the x are in order.
    function nearest(x, ms) {
      let low = 0, high = x.length - 1;
      while (high - low > 1) {
        const middle = (low + high) >> 1;
        if (milliseconds(x[middle]) <= ms) low = middle;
        else high = middle;
      }
      return Math.abs(milliseconds(x[high]) - ms) < Math.abs(milliseconds(x[low]) - ms) ? high : low;
    }

    function formatMoment(ms, { clock, period }) {
      const at = new Date(ms), part = (options) => at.toLocaleString("en-GB", { timeZone: "UTC", ...options });
      const seconds = period < 60 ? { second: "2-digit" } : {}, tenths = period < 1 ? `.${Math.floor(at.getUTCMilliseconds() / 100)}` : "";
      return `${part({ weekday: "short", day: "numeric", month: "short" })} ${part({ hour: "2-digit", minute: "2-digit", ...seconds })}${tenths} ${clock === "UTC" ? "UTC" : "UTC, simulated"}`;
    }

    // Rows of [label, text] for a moment of the plot.
    function describe(plot, ms) {
      const { meta } = plot._fullLayout, traces = plot.data, rows = [];
      const edges = traces.filter((trace) => trace.name === "expected"), score = traces.find((trace) => trace.name === "score");
      const lines = traces.filter((trace, i) => i < score_index(traces) && trace.name !== "expected");
      const at = nearest(lines[0].x, ms), time = milliseconds(lines[0].x[at]);
      meta.lanes.forEach((lane, i) => {
        const value = lines[i] && lines[i].y[at], low = edges[2 * i] && edges[2 * i].y[at], high = edges[2 * i + 1] && edges[2 * i + 1].y[at];
        const known = value !== null && value !== undefined && !Number.isNaN(value);
        const one = meta.lanes.length === 1, expected = known && low !== null && Number.isFinite(low) && high > low ? scaled([low, high], lane) : "";
        rows.push([one ? "value" : lane.name, known ? scaled([value], lane) + (one || !expected ? "" : `, expected ${expected}`) : "no data"]);
        if (one && expected) rows.push(["expected", expected]);
      });
      const said = score.y[at];
      rows.push(["score", said === null || said === undefined || Number.isNaN(said) || said < 0 ? "no opinion" : said >= 100 ? "≥ 100 σ" : `${said.toFixed(1)} σ`]);
      for (const mark of traces.filter((trace) => trace.name === "anomaly")) {
        const found = mark.x.findIndex((x) => Math.abs(milliseconds(x) - time) < 1);
        if (found >= 0) rows.push(["", plain(mark.text[found])]);
      }
      const truth = traces.find((trace) => trace.name === "truth");
      ((truth && truth.base) || []).forEach((base, i) => time >= base && time <= base + truth.x[i] && rows.push(["truth", plain(truth.text[i])]));
      return { time: formatMoment(time, meta), rows };
    }

    const score_index = (traces) => traces.findIndex((trace) => trace.name === "score");

    function show(plot, event) {
      if (!event.xvals || !plot._fullLayout.meta || score_index(plot.data) < 1) return;
      const box = $("under-pointer"), { time, rows } = describe(plot, milliseconds(event.xvals[0])), make = (name, text) => Object.assign(document.createElement(name), { textContent: text });
      box.replaceChildren(make("b", time), ...rows.flatMap(([label, text]) => (label ? [make("span", label), make("em", text)] : [make("p", text)])));
      box.hidden = false;
      const area = plot.getBoundingClientRect(), x = event.event.clientX - area.left, y = event.event.clientY - area.top;
      const left = x > area.width / 2 ? x - box.offsetWidth - 18 : x + 18;
      Object.assign(box.style, { left: `${Math.max(left, 0)}px`, top: `${Math.min(Math.max(y - box.offsetHeight / 2, 4), area.height - box.offsetHeight - 4)}px` });
    }

    // Connects the plot as soon as it stands.
    return function watchPointer() {
      const plot = document.querySelector("#chart .js-plotly-plot");
      if (!plot || !plot.on || plot.dataset.watched) return;
      plot.dataset.watched = "yes";
      const box = plot.parentElement.appendChild(Object.assign(document.createElement("div"), { id: "under-pointer", hidden: true }));
      box.setAttribute("role", "tooltip");
      plot.on("plotly_hover", (event) => show(plot, event));
      plot.on("plotly_unhover", () => (box.hidden = true));
    };
  })();

  // --- the threshold line in the score strip: a handle at its right end that can be dragged

  const thresholdHandle = (function () {
    let drag = null, handle = null;
    const plotOf = () => document.querySelector("#chart .js-plotly-plot");

    function place(plot) {
      const { meta, _size } = plot._fullLayout, axis = meta && plot._fullLayout[meta.strip];
      if (!axis || !handle) return handle && (handle.hidden = true);
      const value = drag ? drag.value : meta.threshold, y = axis._offset + axis._length * (1 - value / axis.range[1]);
      handle.hidden = false;
      handle.textContent = `${value.toFixed(1)} σ`;
      Object.assign(handle.style, { left: `${_size.l + _size.w + 6}px`, top: `${Math.max(y, axis._offset - 14)}px` });
      handle.classList.toggle("dragged", Boolean(drag));
      handle.style.setProperty("--line", `${_size.w}px`);
    }

    function set(value, now) {
      drag.value = Math.round(Math.min(Math.max(value, 1.5), 12) * 10) / 10;
      place(plotOf());
      if (drag.value === drag.last || (!now && performance.now() - drag.sent < 80)) return;
      Object.assign(drag, { last: drag.value, sent: performance.now() });
      setProps("threshold", { value: drag.value });
    }

    function end(keep) {
      if (!drag) return;
      set(keep ? drag.value : drag.from, true);
      drag = null;
      handle.classList.remove("dragged");
    }

    function connect(plot) {
      handle = plot.parentElement.appendChild(Object.assign(document.createElement("div"), { id: "threshold-handle", hidden: true, title: "drag to move the threshold; Escape takes it back" }));
      handle.setAttribute("aria-hidden", "true"); // the slider beside the chart is the one for keys
      handle.addEventListener("pointerdown", (event) => {
        const { meta } = plot._fullLayout, axis = plot._fullLayout[meta.strip];
        drag = { y: event.clientY, from: meta.threshold, value: meta.threshold, last: meta.threshold, sent: 0, scale: axis.range[1] / axis._length };
        handle.setPointerCapture(event.pointerId);
        event.preventDefault();
      });
      handle.addEventListener("pointermove", (event) => drag && set(drag.from + (drag.y - event.clientY) * drag.scale));
      handle.addEventListener("pointerup", () => end(true));
      handle.addEventListener("pointercancel", () => end(false));
      addEventListener("keydown", (event) => event.key === "Escape" && end(false));
      plot.on("plotly_afterplot", () => place(plot));
      place(plot);
    }

    return function watchPlot() {
      const plot = plotOf();
      if (!plot || !plot.on || plot.dataset.handle) return;
      plot.dataset.handle = "yes";
      connect(plot);
    };
  })();

  // --- the brush: the whole buffer as a small line with red ticks, and a window on what is in sight

  const brush = (function () {
    const NS = "http://www.w3.org/2000/svg", H = 34, EDGE = 10; // EDGE: px at an end of the window that resize it
    const SETTLED = 500; // ms after which the plot has followed a new size of the window
    const PATIENCE = 2000; // ms until a view is shown that is not the one asked for last
    const make = (name, attributes, parent) => {
      const el = document.createElementNS(NS, name);
      for (const [key, value] of Object.entries(attributes)) el.setAttribute(key, value);
      return parent.appendChild(el);
    };
    let data = null, zoom = null, spans = [], drag = null, parts = null, drawn = "", asked = null;

    function build(root) {
      const svg = make("svg", { height: H, "aria-hidden": "true" }, root);
      parts = { root, svg, back: make("rect", { class: "back", y: 0, height: H }, svg), learning: make("rect", { class: "learning", y: 0, height: H }, svg), line: make("path", { class: "line" }, svg), marks: make("path", { class: "marks" }, svg), times: root.appendChild(Object.assign(document.createElement("div"), { className: "times" })) };
      const sliders = { left: "Start of the view", move: "Position of the view", right: "End of the view" };
      for (const [part, label] of Object.entries(sliders)) {
        const el = root.appendChild(Object.assign(document.createElement("div"), { className: `thumb ${part}`, tabIndex: 0 }));
        for (const [key, value] of Object.entries({ role: "slider", "aria-label": label })) el.setAttribute(key, value);
        el.dataset.part = part;
        parts[part] = el;
      }
      root.addEventListener("pointerdown", onDown);
      root.addEventListener("pointermove", onMove);
      root.addEventListener("pointerup", (event) => drag && (commit(drag.part, drag.left, drag.right), (drag = null), event.preventDefault()));
      root.addEventListener("pointercancel", cancel);
      root.addEventListener("keydown", onKey);
      addEventListener("resize", () => (draw(true), setTimeout(draw, SETTLED, true)));
    }

    // Where the plot above begins and ends, px from the left of the strip.
    function frame() {
      const plot = document.querySelector("#chart .js-plotly-plot"), size = plot && plot._fullLayout && plot._fullLayout._size;
      const width = parts.root.clientWidth;
      if (!size) return { x: 58, w: Math.max(width - 142, 50) };
      return { x: plot.getBoundingClientRect().left - parts.root.getBoundingClientRect().left + size.l, w: Math.max(size.w, 50) };
    }

    function draw(again) {
      if (!data || !parts) return;
      const { x, w } = frame(), n = data.end - data.first, at = (step) => x + (w * (step - data.first)) / n;
      const shape = JSON.stringify([data.id, data.line, data.marks, x, w]);
      if (again || shape !== drawn) {
        drawn = shape;
        parts.svg.setAttribute("width", parts.root.clientWidth);
        for (const part of ["back"]) parts[part].setAttribute("x", x), parts[part].setAttribute("width", w);
        parts.learning.setAttribute("x", x), parts.learning.setAttribute("width", w * data.learning);
        let path = "", pen = "M";
        data.line.forEach((y, i) => {
          if (y === null) return (pen = "M");
          path += `${pen}${(x + (w * (i + 0.5)) / data.line.length).toFixed(1)},${(H - 12 - y * (H - 16)).toFixed(1)}`;
          pen = "L";
        });
        parts.line.setAttribute("d", path);
        parts.marks.setAttribute("d", data.marks.map((share) => `M${(x + w * share).toFixed(1)},${H - 8}V${H}`).join(""));
      }
      const left = Math.max(drag ? drag.left : data.left, data.first), right = drag ? drag.right : data.right;
      const a = at(left), b = Math.max(at(right), a + 4);
      Object.assign(parts.move.style, { left: `${a}px`, width: `${b - a}px` });
      parts.left.style.left = `${a - 5}px`;
      parts.right.style.left = `${b - 5}px`;
      parts.times.replaceChildren(...data.ticks.map(([share, text]) => Object.assign(document.createElement("span"), { textContent: text, style: `left:${x + w * share}px` })), Object.assign(document.createElement("b"), { textContent: data.text, style: `right:${parts.root.clientWidth - x - w}px` }));
      for (const part of ["left", "move", "right"]) {
        const now = { left, move: right, right }[part];
        for (const [key, value] of Object.entries({ valuemin: data.first, valuemax: data.end, valuenow: now, valuetext: `${data.valuetext}, ${data.text}` })) parts[part].setAttribute(`aria-${key}`, value);
      }
    }

    // The steps first..end that a drag of a part by so many steps leads to.
    function moved(part, left, right, by) {
      const { first, end } = data, least = 10;
      if (part === "left") return [Math.min(Math.max(left + by, first), right - least), right];
      if (part === "right") return [left, Math.max(Math.min(right + by, end), left + least)];
      const shift = Math.min(Math.max(by, first - left), end - right);
      return [left + shift, right + shift];
    }

    function onDown(event) {
      if (!data || event.button) return;
      const { x, w } = frame(), n = data.end - data.first, px = event.clientX - parts.root.getBoundingClientRect().left;
      let part = (event.target.dataset || {}).part, { left, right } = data;
      left = Math.max(left, data.first);
      if (!part) { // a click beside the window brings it there
        if (px < x - EDGE || px > x + w + EDGE || event.target.closest(".times")) return;
        const step = data.first + Math.round(((px - x) / w) * n);
        [left, right] = moved("move", left, right, step - Math.round((left + right) / 2));
        part = "move";
      }
      drag = { part, px, left, right, from: [left, right], sent: 0 };
      parts.root.setPointerCapture(event.pointerId);
      parts[part].focus({ preventScroll: true });
      event.preventDefault();
      draw();
    }

    function onMove(event) {
      if (!drag) return;
      const px = event.clientX - parts.root.getBoundingClientRect().left, steps = Math.round(((px - drag.px) / frame().w) * (data.end - data.first));
      [drag.left, drag.right] = moved(drag.part, ...drag.from, steps);
      draw();
      if (drag.part !== "move" || performance.now() - drag.sent < 150) return;
      drag.sent = performance.now(); // the plot follows while the window is moved
      commit(drag.part, drag.left, drag.right);
    }

    function cancel() {
      if (drag) commit(drag.part, ...drag.from);
      drag = null;
      draw();
    }

    function commit(part, left, right) {
      const span = right - left, live = right >= data.end;
      const known = spans.some((option) => option.value === span) || part === "move";
      if (!known) setProps("range", { options: [...spans, { label: `${span.toLocaleString("en")} steps`, value: span }], value: span });
      if (zoom && zoom.range) {
        if (part === "move") setProps("range", { options: [...spans, { label: `${span.toLocaleString("en")} steps`, value: span }], value: span });
        setProps("zoom", { data: { revision: (zoom.revision || 0) + 1 } });
      }
      setProps("at", { data: live ? null : { id: data.id, end: right } });
      Object.assign(data, { left, right });
      asked = { id: data.id, right, span, live, until: performance.now() + PATIENCE };
      if (!drag) draw();
    }

    // Whether a view is an answer to an older question than the last one: it would move the window back.
    function isOutdated(next) {
      const answers = asked && (asked.live ? next.right >= next.end : next.right === asked.right && next.right - next.left === asked.span);
      if (!asked || answers || next.id !== asked.id || performance.now() > asked.until) asked = null;
      return asked !== null;
    }

    function onKey(event) {
      const part = (event.target.dataset || {}).part;
      if (event.key === "Escape" && drag) return cancel();
      if (!part || !data) return;
      const left = Math.max(data.left, data.first), span = data.right - left, small = Math.max(Math.round(span / 10), 1);
      const by = { ArrowLeft: -small, ArrowDown: -small, ArrowRight: small, ArrowUp: small, PageDown: -span, PageUp: span, Home: data.first - data.end, End: data.end - data.first }[event.key];
      if (by === undefined) return;
      event.preventDefault();
      commit(part, ...moved(part, left, data.right, by));
    }

    return function (next, zoomed, served) {
      const root = $("brush");
      if (!root) return noUpdate();
      if (!parts || parts.root !== root) root.replaceChildren(), build(root);
      root.classList.toggle("empty", !next || !next.line);
      zoom = zoomed;
      spans = served.spans;
      if (next && next.line && !drag && !isOutdated(next)) (data = next), draw();
      return noUpdate();
    };
  })();

  // --- alarms: at most three pop-ups, repeats merged; a sound only after a click on the bell

  function announceIncidents(news) {
    for (const item of news || []) showPopup(item);
    if (news && news.length && state.bell) playTone();
    return noUpdate();
  }

  function showPopup(item) {
    const box = $("popups");
    const same = [...box.children].find((el) => el.dataset.title === item.title);
    if (same) {
      same.dataset.count = Number(same.dataset.count) + 1;
      same.querySelector("b").textContent = `${item.title} (${same.dataset.count} times)`;
      same.querySelector("span").textContent = item.text;
      same.dataset.step = item.step;
      return;
    }
    const el = document.createElement("button");
    el.className = `popup ${item.kind}`;
    Object.assign(el.dataset, { title: item.title, count: 1, step: item.step, stream: item.stream });
    el.append(Object.assign(document.createElement("i"), { className: `mark ${item.kind}` }), Object.assign(document.createElement("b"), { textContent: item.title }), Object.assign(document.createElement("span"), { textContent: item.text }));
    while (box.children.length >= 3) box.firstChild.remove();
    if (!box.children.length) box.classList.toggle("apart", Boolean(document.querySelector("aside:hover, .lower:hover"))); // never where a person works
    box.append(el);
    box.classList.add("settling"); // a click that was meant for what lies below goes there
    clearTimeout(state.settling);
    state.settling = setTimeout(() => box.classList.remove("settling"), 600);
    setTimeout(() => el.remove(), 6000);
  }

  function playTone() {
    const at = state.sound.currentTime, tone = state.sound.createOscillator(), volume = state.sound.createGain();
    tone.frequency.value = 660;
    volume.gain.setValueAtTime(0.12, at);
    volume.gain.exponentialRampToValueAtTime(0.001, at + 0.5);
    tone.connect(volume).connect(state.sound.destination);
    tone.start(at);
    tone.stop(at + 0.5);
  }

  function toggleBell() {
    state.sound = state.sound || new AudioContext();
    state.bell = !state.bell;
    $("bell").textContent = state.bell ? "Bell on" : "Bell off";
    $("bell").setAttribute("aria-pressed", state.bell);
    if (state.bell) playTone();
  }

  // --- theme, address, keys

  function setTheme(name) {
    document.documentElement.dataset.theme = name;
    $("theme").textContent = name === "dark" ? "Light" : "Dark";
    setProps("look", { data: name });
  }

  function updateAddress(domain, detector, window_, threshold, direction, range, at, served) {
    const now = new URLSearchParams(location.search);
    if (now.get("seed") && Number(now.get("seed")) !== served.seed && !state.linkChecked) showTrouble(`This link was made with --seed ${now.get("seed")}; this server runs --seed ${served.seed}, so its streams differ.`);
    const step = Math.round(Number(now.get("at") || NaN));
    if (Number.isSafeInteger(step) && !state.linkChecked) setTimeout(() => setProps("goto", { data: { step, asked: 0 } }), 600);
    state.linkChecked = true;
    Object.assign(state, { interval: served.interval, seed: served.seed });
    const view = new URLSearchParams({ domain, detector, window: window_, threshold, direction, range, seed: served.seed });
    if (at) view.set("at", Math.round(at.end - range / 2));
    if (domain) history.replaceState(null, "", "?" + view);
    return "copy a link to this view";
  }

  function copyLink() {
    const confirmCopy = () => {
      const share = $("share");
      const say = (word) => { share.textContent = word; share.classList.toggle("copied", word === "Copied"); };
      say("Copied");
      setTimeout(say, 1500, "Share");
    };
    if (navigator.clipboard) navigator.clipboard.writeText(location.href).then(confirmCopy, () => prompt("The link to this view", location.href));
    else prompt("The link to this view", location.href);
  }

  function onKey(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || /^(INPUT|TEXTAREA|SELECT)$/.test(event.target.tagName) || event.target.closest("[role=slider],[role=listbox],[role=combobox]")) return;
    const button = { " ": "pause", g: "golive", n: "next", p: "previous" }[event.key];
    const tabs = [...document.querySelectorAll("#domain .tab")];
    if (event.key === " " && event.target.closest("button")) return;
    if (button) event.preventDefault(), $(button).click();
    else if (/^[1-9]$/.test(event.key) && tabs[event.key]) tabs[event.key].click();
    else if (event.key === "Escape" && hint >= 0) closeHint();
    else if (event.key === "Escape" && document.body.dataset.wall === "full") toggleWall(false);
    else if (event.key === "?") $("keys").showModal();
  }

  // --- streams, tabs and moments

  function openStream(name) {
    setProps("domain", { value: name });
    if ($("search") && $("search").value) setProps("search", { value: "" });
  }

  function showMoment(step, stream) {
    if (stream && stream !== document.body.dataset.domain) openStream(stream);
    setProps("goto", { data: { step, asked: Date.now(), ...(stream ? { stream } : {}) } });
  }

  function closeTab(name) {
    state.opened = (state.opened || []).filter((each) => each !== name);
    if (document.body.dataset.domain === name) setProps("domain", { value: "wave" });
    setProps("opened", { data: state.opened });
  }

  const keepOpened = (names) => ((state.opened = names || []), noUpdate());

  // --- what a person does about an incident: shown at once, then as the server answers

  function actOnIncident(button) {
    const { incident, act } = button.dataset;
    if (act === "note") return beginNote(button);
    const picked = button.id === "silence"; // it is answered beside the plot, where it was clicked
    if (picked) setProps("labelled", { children: `${button.textContent}, by you …` });
    sendAct(incident, act, picked ? { picked } : {});
  }

  function sendAct(incident, act, more) {
    document.querySelectorAll(`[data-answer="${CSS.escape(incident)}"]`).forEach((el) => (el.textContent = `· ${act}, by you …`));
    setProps("act", { data: { incident, act, asked: Date.now(), ...more } });
  }

  function beginNote(button) {
    state.noted = button.dataset.incident;
    $("note-on").textContent = button.closest(".incident").querySelector("small").textContent;
    setProps("note-text", { value: "" });
    $("note").showModal();
    $("note-text").focus();
  }

  function endNote(write) {
    const note = $("note-text").value.trim();
    $("note").close();
    if (write && note) sendAct(state.noted, "note", { note });
  }

  // --- what is picked on the plot, and whether the controls preview

  const moment = (x) => (typeof x === "number" ? x : Date.parse(x.length > 10 ? `${x.replace(" ", "T")}Z` : x));
  const clock = (x) => { const text = new Date(moment(x)).toISOString(); return text.slice(11, 19) === "00:00:00" ? text.slice(0, 10) : text.slice(11, 19); };

  // Returns whether the label buttons are hidden, their texts, whether that of maintenance is, and what is picked: forgotten with the tab.
  function pickOnPlot(clicked, zoom, domain, done, seen) {
    const by = window.dash_clientside.callback_context.triggered_id, none = [true, "expected", "missed", true, null];
    if (by === "domain") setProps("labelled", { children: "" });
    const stream = seen && seen.look.stream;
    let range = null;
    if (by === "zoom" && zoom && zoom.range && zoom.stream === stream) range = zoom.range;
    if (by === "chart" && clicked) range = [clicked.points[0].x, clicked.points[0].x];
    if (!range || !stream) return none;
    const [start, end] = moment(range[0]) <= moment(range[1]) ? range : [range[1], range[0]];
    offerSilence(end);
    const words = start === end ? clock(start) : `${clock(start)} to ${clock(end)}`;
    return [false, `expected: ${words}`, `missed: ${words}`, start === end, { stream, range: [start, end] }];
  }

  // The live incident can be silenced where what was picked belongs to it: not before its first step.
  function offerSilence(picked) {
    const incident = state.heartbeat && state.heartbeat.incident;
    $("silence").hidden = !incident || moment(picked) < incident.start - 1;
    $("silence").dataset.incident = incident ? incident.id : "";
  }

  const setAvailable = (id, why) => {
    const button = $(id);
    if (!button) return;
    button.setAttribute("aria-disabled", String(Boolean(why)));
    button.title = why;
  };

  // The controls follow the applied settings when these change, unless they preview something else.
  function followApplied({ stream, applied }, shown) {
    const before = state.applied, names = Object.keys(shown);
    state.applied = { stream, ...applied };
    if (!before || before.stream !== stream || names.some((name) => before[name] !== shown[name])) return;
    for (const name of names) if (applied[name] !== shown[name]) setProps(name, { value: applied[name] });
  }

  // Returns the text of the chip; an act that would change nothing is not available, and says why.
  function showPreview(pulse, domain, detector, window_, threshold, direction) {
    const known = pulse && pulse.applied && pulse.stream === domain;
    const shown = { detector, window: window_, threshold, direction };
    if (known) followApplied(pulse, shown);
    const differs = known && Object.keys(shown).some((name) => pulse.applied[name] !== shown[name]);
    document.body.dataset.preview = differs ? "yes" : "";
    setAvailable("apply", differs ? "" : "these settings are applied already");
    setAvailable("undo", known && pulse.undoable ? "" : "there is no change to take back");
    setAvailable("best", known && pulse.events ? "" : "needs labelled anomalies: this buffer has none");
    return differs ? "Preview, not applied" : "";
  }

  // An unavailable button keeps the focus, but does nothing.
  function holdUnavailable(event) {
    if (!event.target.closest?.("[aria-disabled=true]")) return;
    event.preventDefault();
    event.stopPropagation();
  }

  // a row of the comparison: its detector, with its own best threshold where that is what it shows
  function chooseDetector({ detector, threshold }) {
    setProps("detector", { value: detector });
    if (threshold) setProps("threshold", { value: Number(threshold) });
  }

  function onClick(event) {
    const act = event.target.closest("[data-act]");
    if (act) return actOnIncident(act);
    if (event.target.closest("#note-write,#note-cancel")) return endNote(event.target.id === "note-write");
    if (event.target.closest("#label-expected,#label-missed,#mute")) setProps("labelled", { children: `${event.target.closest("button").textContent}, by you …` });
    const unmute = event.target.closest("[data-unmute]");
    if (unmute) return setProps("act", { data: { window: Number(unmute.dataset.unmute), asked: Date.now() } });
    if (event.target.closest("[data-close]")) return closeTab(event.target.closest("[data-close]").dataset.close);
    const el = event.target.closest("[data-step],[data-domain]:not(body),[data-detector],#theme,#bell,#share,#help,#wall-full,#hint-next,#hint-close,#hint-again");
    if (event.target.closest("#trouble")) return showTrouble("");
    if (!el) return event.target.id === "keys" ? event.target.close() : undefined;
    if (el.dataset.step) showMoment(Number(el.dataset.step), el.dataset.stream);
    else if (el.dataset.domain) openStream(el.dataset.domain);
    else if (el.dataset.detector) chooseDetector(el.dataset);
    else if (el.id === "theme") setTheme((localStorage.theme = document.documentElement.dataset.theme === "dark" ? "light" : "dark"));
    else if (el.id === "bell") toggleBell();
    else if (el.id === "share") copyLink();
    else if (el.id === "hint-next") showHint(hint + 1);
    else if (el.id === "hint-close") closeHint();
    else if (el.id === "hint-again") $("keys").close(), showHint(0);
    else if (el.id === "wall-full") toggleWall(document.body.dataset.wall !== "full");
    else if (el.id === "help") $("keys").showModal();
  }

  // --- what a change of tab, zoom or slider shows and hides

  // Returns what is hidden: the overview, the chart (a class), the upload area, the inject row.
  function showParts(domain, served) {
    const overview = domain === "overview", yours = domain === "your-data";
    if (document.body.dataset.domain !== domain && $("brush")) $("brush").classList.add("empty"); // until that of the new stream comes
    document.body.dataset.domain = domain;
    return [!overview, overview ? "away" : "", !yours, !served.simulated.includes(domain)];
  }

  // A zoom also pauses: the view stays until "Go live" or a double click.
  function zoomAndEnd(moved, zoom, seen) {
    if (!moved || !seen) return [noUpdate(), noUpdate()];
    const revision = (zoom && zoom.revision) || 0, stream = seen.look.stream;
    if ("xaxis.autorange" in moved) return [{ revision: revision + 1 }, zoom && zoom.range ? null : noUpdate()];
    const range = moved["xaxis.range"] || [moved["xaxis.range[0]"], moved["xaxis.range[1]"]];
    return range[0] ? [{ revision, stream, range }, { id: stream, end: seen.end }] : [noUpdate(), noUpdate()];
  }

  // The form of *Your data* is open until a file was read; each reading folds it again.
  function foldForm(read) {
    const form = $("upload-form");
    if (form) form.open = !read;
    return "other columns, or another file";
  }

  const sliderTexts = (window_, threshold, size) => [`${window_} steps`, `${Number(threshold).toFixed(1)} σ`, `${size} σ`];

  // The proposal of a search moves the controls, as a preview.
  function showProposal(found) {
    for (const [name, value] of Object.entries(found || {})) setProps(name, { value });
    return noUpdate();
  }

  // the names that redline/page/callbacks/browser.py calls them by
  const redline = {
    heard: receiveHeartbeat,
    sparks: drawSparklines,
    brush,
    tell: announceIncidents,
    stage: showParts,
    folded: foldForm,
    zoomed: zoomAndEnd,
    picked: pickOnPlot,
    previewed: showPreview,
    opened: keepOpened,
    found: showProposal,
    wall: drawWall,
    said: sliderTexts,
    address: updateAddress,
  };
  window.dash_clientside = Object.assign({}, window.dash_clientside, { redline });
  document.addEventListener("keydown", onKey);
  document.addEventListener("click", holdUnavailable, true);
  document.addEventListener("click", onClick);
  document.addEventListener("fullscreenchange", () => document.fullscreenElement || document.body.dataset.wall !== "full" || toggleWall(false));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", (e) => localStorage.theme || setTheme(e.matches ? "dark" : "light"));
  const ready = setInterval(() => {
    if (!$("theme") || !$("domain")) return;
    clearInterval(ready);
    setTheme(document.documentElement.dataset.theme);
  }, 20);
  addEventListener("resize", placeHint);
  addEventListener("scroll", placeHint, { passive: true });
  setInterval(updateAge, 250);
  setInterval(welcome, 1000);

  setInterval(() => (hover(), thresholdHandle(), fitLanes()), 250); // a plot that Dash mounted anew is connected too
})();
