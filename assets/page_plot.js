/* What lies over the plot: the box under the pointer, and the handle of the threshold. */
(function () {
  "use strict";
  const page = window.redlinePage, { $, setProps } = page;

  // The plot is as high as its lanes need.
  function fitLanes() {
    const plot = document.querySelector("#chart .js-plotly-plot"), meta = plot && plot._fullLayout && plot._fullLayout.meta;
    const lanes = meta && meta.lanes ? meta.lanes.length : 1, box = document.querySelector(".plot");
    if (box && box.style.getPropertyValue("--lanes") !== String(lanes)) box.style.setProperty("--lanes", lanes);
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

    function formatMoment(ms, { clock, period, zone = "UTC" }) {
      const at = new Date(ms), part = (options) => at.toLocaleString("en-GB", { timeZone: zone, ...options });
      const seconds = period < 60 ? { second: "2-digit" } : {}, tenths = period < 1 ? `.${Math.floor(at.getUTCMilliseconds() / 100)}` : "";
      return `${part({ weekday: "short", day: "numeric", month: "short" })} ${part({ hour: "2-digit", minute: "2-digit", ...seconds })}${tenths} ${clock === "UTC" ? page.zones.word(ms, zone) : "UTC, simulated"}`;
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
      const ofWorld = meta.clock === "UTC" && meta.zone === page.zones.shown() && page.localMoment(time); // not that of a file
      const other = meta.zone === "UTC" ? ["your clock", ofWorld] : ["UTC", page.zones.stamp(time, "UTC")];
      return { time: formatMoment(time, meta), rows: ofWorld ? [other, ...rows] : rows };
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

  setInterval(() => (hover(), thresholdHandle(), fitLanes()), 250); // a plot that Dash mounted anew is connected too
})();
