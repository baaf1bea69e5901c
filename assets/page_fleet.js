/* The swim lanes of the fleet: a row for each lane, drawn from one character a cell; every text is set as text, never as markup. */
(function () {
  "use strict";
  const page = window.redlinePage, { $, setProps, noUpdate, register } = page;
  const element = (...parts) => page.element(...parts); // of a script that is loaded later
  const FIRST = 48, AT_THRESHOLD = 9; // as in redline/page/fleet.py: the character of no score, and the highest calm level
  const CALM = [4, 6, 8, AT_THRESHOLD], HOT = [13, 17, Infinity]; // the highest level of each colour
  const MAX_TIME = 2e11; // seconds since the epoch, which a date can be of
  const DRAG = 5; // px that a pointer moves before it chooses a period
  let view = { by: null, part: "", span: 1200, all: false, period: null, group: null };
  let shown = null; // the document that is drawn
  let back = null; // how lanes were grouped before one was opened
  let cursor = null; // seconds since the epoch, in the cell that the keys are on; null = the worst of the lane
  let stop = null; // the value of the lane that the Tab key reaches
  let drag = null;

  const levelOf = (lane, i) => lane.cells.charCodeAt(i) - FIRST;
  const isHot = (level) => level > AT_THRESHOLD;
  const ratioOf = (level) => 2 ** ((level - 1) / 8) - 1;
  const clock = (seconds, short) => page.zones.stamp(seconds * 1000).slice(11, short ? 16 : 19);
  const startOf = (i) => shown.start + i * shown.seconds;
  const endOfAll = () => startOf(shown.columns);
  const columnAt = (seconds) => Math.min(Math.max(Math.floor((seconds - shown.start) / shown.seconds), 0), shown.columns - 1);

  function change(part) {
    view = { ...view, ...part };
    setProps("fleet-view", { data: view });
    const address = new URLSearchParams(location.search);
    for (const name of ["lanes", "part", "span", "from", "to"]) address.delete(name);
    for (const [name, value] of fleetAddress()) address.set(name, value);
    history.replaceState(null, "", "?" + address);
  }

  function fleetAddress() {
    const { by, part, span, period } = view;
    return [...(by === null ? [] : [["lanes", by]]), ...(part ? [["part", part]] : []), ["span", span], ...(period ? [["from", period[0]], ["to", period[1]]] : [])];
  }

  // What a link says of the lanes; the server checks it as it checks all else.
  function followAddress() {
    const asked = new URLSearchParams(location.search), [from, to, span] = ["from", "to", "span"].map((name) => Number(asked.get(name) || NaN));
    if (asked.get("domain") !== "fleet") return;
    const known = [...$("fleet-span").options].some((option) => Number(option.value) === span);
    view = { ...view, by: asked.get("lanes"), part: asked.get("part") || "", ...(known ? { span } : {}), ...(from >= 0 && to > from && to < MAX_TIME ? { period: [from, to] } : {}) };
    setProps("fleet-view", { data: view });
    if (view.part) setProps("fleet-part", { value: view.part });
  }

  // --- a lane

  const colours = () => {
    const style = getComputedStyle(document.documentElement), of = (name) => style.getPropertyValue(name).trim();
    return { calm: CALM.map((_, i) => of(`--calm-${i + 1}`)), hot: HOT.map((_, i) => of(`--hot-${i + 1}`)) };
  };

  const colourOf = (level, { calm, hot }) => (isHot(level) ? hot[HOT.findIndex((most) => level <= most)] : calm[CALM.findIndex((most) => level <= most)]);

  function paint(canvas, lane, palette) {
    const scale = devicePixelRatio || 1, w = Math.round(canvas.clientWidth * scale), h = Math.round(canvas.clientHeight * scale);
    if (!w || !h) return;
    if (canvas.width !== w || canvas.height !== h) Object.assign(canvas, { width: w, height: h });
    const pen = canvas.getContext("2d"), cell = w / shown.columns, gap = cell >= 4 ? Math.max(1, Math.round(scale * 0.75)) : 0;
    pen.clearRect(0, 0, w, h);
    for (let i = 0; i < shown.columns; i++) {
      const level = levelOf(lane, i);
      if (level <= 0) continue;
      pen.fillStyle = colourOf(level, palette);
      const left = Math.round(i * cell);
      pen.fillRect(left, 0, Math.round((i + 1) * cell) - left - gap, h);
    }
  }

  function cellWords(lane, i) {
    const level = levelOf(lane, i), { threshold } = lane;
    if (level <= 0) return "no score";
    const score = ratioOf(level) * (threshold || 1), text = score >= 100 ? Math.round(score).toLocaleString("en") : score.toPrecision(2);
    return `about ${text}${threshold ? " σ" : " times the threshold"}, ${isHot(level) ? "anomalous" : "calm"}`;
  }

  function nameLane(box, lane) {
    const i = cursor === null ? lane.at : columnAt(cursor);
    const wanted = { role: "slider", "aria-label": `${lane.title}, ${lane.labels || "lane"}, worst ${lane.worst} σ`, "aria-valuemin": "1", "aria-valuemax": String(shown.columns), "aria-valuenow": String(i + 1), "aria-valuetext": `${clock(startOf(i))}, ${cellWords(lane, i)}`, tabindex: lane.value === stop ? "0" : "-1" };
    for (const [name, value] of Object.entries(wanted)) if (box.getAttribute(name) !== value) box.setAttribute(name, value);
    box.querySelector("i").style.left = `${((i + 0.5) * 100) / shown.columns}%`;
  }

  function newRow() {
    const name = element("button", "link name"), box = element("div", "lane", element("canvas"), element("i", "cursor")), worst = element("button", "link worst");
    box.firstChild.setAttribute("aria-hidden", "true");
    const head = element("th", "", element("div", "", name, element("small", ""))), row = element("tr", "", head, element("td", "", box), element("td", "", worst));
    head.scope = "row";
    return row;
  }

  const setText = (el, text) => el.textContent !== text && (el.textContent = text);

  function fillRow(row, lane) {
    row.lane = lane;
    const name = row.querySelector(".name"), worst = row.querySelector(".worst"), box = row.querySelector(".lane");
    setText(name, lane.title);
    name.title = lane.inside ? `the series of ${lane.title}` : lane.value;
    setText(row.querySelector("small"), lane.labels);
    setText(worst, lane.worst);
    worst.setAttribute("aria-label", `worst of ${lane.title}: ${lane.worst} σ, open it`);
    worst.classList.toggle("hot", lane.hot);
    worst.classList.toggle("loud", levelOf(lane, lane.at) > HOT[0]);
    for (const el of [name, worst]) el.tabIndex = lane.value === stop ? 0 : -1;
    nameLane(box, lane);
  }

  // While the pointer or the focus is on the lanes, those that stay keep their places.
  function inPlace(body, lanes, same) {
    if (!same || !(body.matches(":hover") || body.contains(document.activeElement))) return lanes;
    const place = new Map([...body.children].map((row, i) => [row.lane.value, i]));
    return [...lanes].sort((a, b) => (place.get(a.value) ?? Infinity) - (place.get(b.value) ?? Infinity) || 0);
  }

  function fillLanes(body, lanes) {
    const active = body.contains(document.activeElement) && document.activeElement, held = active && active.closest("tr"), at = [...body.children].indexOf(held);
    const before = new Map([...body.children].map((row) => [row.lane.value, row]));
    if (!lanes.some((lane) => lane.value === stop)) (stop = lanes.length ? lanes[Math.min(Math.max(at, 0), lanes.length - 1)].value : null), (cursor = null);
    const after = lanes.map((lane) => {
      const row = before.get(lane.value) || newRow();
      fillRow(row, lane);
      return row;
    });
    if (after.length !== body.children.length || after.some((row, i) => row !== body.children[i])) body.replaceChildren(...after);
    if (active && document.activeElement !== active && after.length) (after.includes(held) ? active : after[Math.min(at, after.length - 1)].querySelector(".lane")).focus({ preventScroll: true });
    paintAll();
  }

  function paintAll() {
    if (!shown || !$("fleet-lanes")) return;
    const palette = colours();
    for (const row of $("fleet-lanes").children) paint(row.querySelector("canvas"), row.lane, palette);
    drawAxis();
    drawRange();
  }

  // --- around the lanes

  function boxOfLanes() {
    const lane = document.querySelector("#fleet-lanes .lane"), field = $("fleet-field").getBoundingClientRect();
    if (!lane) return null;
    const { left, width } = lane.getBoundingClientRect();
    return { left: left - field.left, width, top: $("fleet-lanes").getBoundingClientRect().top - field.top, height: $("fleet-lanes").offsetHeight };
  }

  function drawAxis() {
    const axis = $("fleet-axis"), box = boxOfLanes();
    if (!box || !shown.columns) return axis.replaceChildren();
    const whole = shown.columns * shown.seconds, step = [60, 120, 300, 600, 900, 1800, 3600, 7200].find((each) => (whole / each) * (box.width > 500 ? 76 : 50) <= box.width) || 7200;
    const marks = [];
    for (let at = Math.ceil(shown.start / step) * step; at < endOfAll(); at += step) {
      const mark = element("span", "", clock(at, true)), share = (at - shown.start) / whole;
      if (share * box.width < 20 || (1 - share) * box.width < 20) continue;
      mark.style.left = `${box.left + share * box.width}px`;
      marks.push(mark);
    }
    axis.replaceChildren(...marks);
  }

  function drawRange() {
    const box = boxOfLanes(), period = drag && drag.moved ? drag.period : view.period;
    let el = $("fleet-range");
    if (!el) (el = element("div")), (el.id = "fleet-range"), $("fleet-field").append(el);
    const whole = endOfAll() - shown.start;
    const [from, to] = (period || [0, 0]).map((at) => Math.min(Math.max((at - shown.start) / whole, 0), 1));
    el.hidden = !box || !period || to <= from;
    if (!el.hidden) Object.assign(el.style, { left: `${box.left + from * box.width}px`, width: `${(to - from) * box.width}px`, top: `${box.top}px`, height: `${box.height}px` });
  }

  function drawLegend() {
    const box = $("fleet-legend");
    if (box.children.length) return;
    const swatches = (name, colors) => colors.map((_, i) => { const el = element("i"); el.style.background = `var(--${name}-${i + 1})`; return el; });
    box.append("calm", ...swatches("calm", CALM), "threshold", ...swatches("hot", HOT), "worst");
  }

  function fillChoices(list) {
    const select = $("fleet-by"), options = [["", "by series"], ...list.labels.map(([label, values]) => [label, `by ${label === "__name__" ? "metric" : label} (${values.toLocaleString("en")})`])];
    const key = JSON.stringify(options);
    if (select.dataset.key !== key) {
      select.dataset.key = key;
      select.replaceChildren(...options.map(([value, words]) => Object.assign(element("option", "", words), { value })));
    }
    if (select.value !== list.by) select.value = list.by;
    if ($("fleet-span").value !== String(list.span)) $("fleet-span").value = String(list.span);
  }

  function drawFleet(list) {
    const body = $("fleet-lanes");
    if (!list || !body) return noUpdate();
    const same = shown && ["by", "part", "span", "all"].every((name) => shown[name] === list[name]);
    shown = list;
    fillChoices(list);
    drawLegend();
    $("fleet").dataset.lanes = list.by ? "label" : "series";
    fillLanes(body, inPlace(body, list.lanes, same));
    setText($("fleet-said"), list.empty ? "" : list.said);
    setText($("fleet-empty"), list.empty);
    $("fleet-empty").hidden = !list.empty;
    $("fleet-more").hidden = !list.more;
    setText($("fleet-more"), `show ${list.more.toLocaleString("en")} more`);
    setText($("fleet-beyond"), list.beyond && !list.more ? `and ${list.beyond.toLocaleString("en")} more; a filter finds them` : "");
    $("fleet-back").hidden = back === null;
    page.drawFleetSide(list);
    return noUpdate();
  }

  // --- to a stream and its moment

  function openCell(by, value, start, end) {
    $("fleet-found").textContent = "Opening …";
    setProps("fleet-cell", { data: { by, value, part: by ? shown.part : "", start, end, asked: Date.now() } });
  }

  const openColumn = (lane, i) => openCell(shown.by, lane.value, startOf(i), startOf(i + 1));

  function goToMoment(found) {
    if (!found) return noUpdate();
    if (!found.stream) return "There is no score in this cell any more.";
    page.showMoment(found.step, found.stream);
    return "";
  }

  // Shows the series of a lane, or those that a selector takes.
  function openLane(selector) {
    if (back === null) back = { by: shown.by, part: view.part };
    setProps("fleet-part", { value: selector });
    change({ by: "", part: selector, all: false });
  }

  function leaveLane() {
    const { by, part } = back;
    back = null;
    setProps("fleet-part", { value: part });
    change({ by, part, all: false });
    document.querySelector("#fleet-lanes .lane[tabindex='0']")?.focus();
  }

  function partTyped(value) {
    if ((value || "") !== view.part) (back = null), change({ part: value || "", all: false });
    return noUpdate();
  }

  function choosePeriod(one, other) {
    change({ period: one === null ? null : [Math.min(one, other), Math.max(one, other)] });
    drawRange();
  }

  // --- pointer

  const laneAt = (event) => event.target.closest?.("#fleet-lanes .lane");
  const cellAt = (box, event) => {
    const { left, width } = box.getBoundingClientRect();
    return Math.min(Math.max(Math.floor(((event.clientX - left) / width) * shown.columns), 0), shown.columns - 1);
  };

  function onDown(event) {
    const box = laneAt(event);
    if (box && event.button === 0) drag = { box, x: event.clientX, from: cellAt(box, event), moved: false, period: null };
  }

  function onMove(event) {
    if (!shown) return;
    const box = drag ? drag.box : laneAt(event);
    showTip(box, event);
    if (!drag) return;
    drag.moved = drag.moved || Math.abs(event.clientX - drag.x) > DRAG;
    const to = cellAt(drag.box, event);
    drag.period = [startOf(Math.min(drag.from, to)), startOf(Math.max(drag.from, to) + 1)];
    if (drag.moved) drawRange();
  }

  function onUp(event) {
    const done = drag;
    drag = null;
    if (!done || !done.box.isConnected) return;
    const { lane } = done.box.closest("tr");
    if (done.moved) choosePeriod(...done.period);
    else if (event.type === "pointerup") {
      stop = lane.value;
      cursor = startOf(done.from);
      openColumn(lane, done.from);
    }
  }

  function showTip(box, event) {
    let tip = $("fleet-tip");
    if (!tip) (tip = element("div")), (tip.id = "fleet-tip"), $("fleet-field").append(tip);
    tip.hidden = !box || event.pointerType === "touch";
    if (tip.hidden) return;
    const { lane } = box.closest("tr"), i = cellAt(box, event), field = $("fleet-field").getBoundingClientRect();
    tip.replaceChildren(element("b", "", lane.title), ` ${clock(startOf(i))} ${page.zones.word(startOf(i) * 1000)}`, element("span", "", cellWords(lane, i)));
    const left = event.clientX - field.left + 14;
    tip.style.left = `${Math.min(left, field.width - tip.offsetWidth - 4)}px`;
    tip.style.top = `${box.getBoundingClientRect().bottom - field.top + 6}px`;
  }

  // --- keys

  function moveStop(row) {
    if (!row) return;
    stop = row.lane.value;
    for (const each of $("fleet-lanes").children) fillRow(each, each.lane);
    row.querySelector(".lane").focus();
    row.scrollIntoView({ block: "nearest" });
  }

  function onKey(event) {
    const box = laneAt(event);
    if (!box || event.ctrlKey || event.metaKey || event.altKey) return;
    const row = box.closest("tr"), { lane } = row, at = cursor === null ? lane.at : columnAt(cursor);
    const to = { ArrowLeft: at - 1, ArrowRight: at + 1, PageUp: at - 10, PageDown: at + 10, Home: 0, End: shown.columns - 1 }[event.key];
    if (to !== undefined) {
      const next = Math.min(Math.max(to, 0), shown.columns - 1);
      cursor = startOf(next);
      if (event.shiftKey) {
        const anchor = (box.anchor = box.anchor ?? startOf(at));
        choosePeriod(Math.min(anchor, cursor), Math.max(anchor, cursor) + shown.seconds);
      } else box.anchor = undefined;
      for (const each of $("fleet-lanes").children) nameLane(each.querySelector(".lane"), each.lane);
    } else if (event.key === "ArrowDown") moveStop(row.nextElementSibling);
    else if (event.key === "ArrowUp") moveStop(row.previousElementSibling);
    else if (event.key === "Enter" || event.key === " ") openColumn(lane, at);
    else if (event.key === "Escape" && view.period) choosePeriod(null);
    else return;
    event.preventDefault();
    event.stopPropagation();
  }

  function onClick(event) {
    const row = event.target.closest("#fleet-lanes tr");
    if (row && event.target.closest(".worst")) openColumn(row.lane, row.lane.at);
    else if (row && event.target.closest(".name")) row.lane.inside ? openLane(row.lane.inside) : openColumn(row.lane, row.lane.at);
    else if (event.target.id === "fleet-more") change({ all: true });
    else if (event.target.id === "fleet-back") leaveLane();
  }

  Object.assign(page, { fleetAddress, openCell, openLane, choosePeriod, fleetClock: clock, changeFleet: change });
  register({ fleet: drawFleet, fleetMoment: goToMoment, fleetPart: partTyped });
  document.addEventListener("pointerdown", onDown);
  document.addEventListener("pointermove", onMove);
  document.addEventListener("pointerup", onUp);
  document.addEventListener("pointercancel", onUp);
  document.addEventListener("keydown", onKey, true);
  document.addEventListener("click", onClick);
  document.addEventListener("change", (event) => {
    if (event.target.id === "fleet-by") (back = null), change({ by: event.target.value, all: false });
    if (event.target.id === "fleet-span") change({ span: Number(event.target.value), period: null });
  });
  new MutationObserver(paintAll).observe(document.documentElement, { attributes: true, attributeFilter: ["data-theme"] });
  const ready = setInterval(() => {
    if (!$("fleet-field")) return;
    clearInterval(ready);
    new ResizeObserver(paintAll).observe($("fleet-field"));
    followAddress();
  }, 20);
})();
