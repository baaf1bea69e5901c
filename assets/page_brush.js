/* The brush: the whole buffer as a small line with red ticks, and a window on what is in sight. */
(function () {
  "use strict";
  const { $, setProps, noUpdate, register } = window.redlinePage;

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

  register({ brush });
})();
