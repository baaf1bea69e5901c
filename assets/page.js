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

  function updateAge() {
    const clock = $("clock");
    if (!clock) return;
    clock.textContent = new Date().toLocaleString("en-GB", { day: "numeric", month: "short", year: "numeric", hour: "2-digit", minute: "2-digit", second: "2-digit", timeZone: "UTC" }).replace(",", "") + " UTC";
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
      document.querySelectorAll(`[data-spark="${CSS.escape(name)}"]`).forEach((el) => drawSparkline(el, spark));
      document.querySelectorAll(`[data-open="${CSS.escape(name)}"]`).forEach((el) => (el.textContent = spark.open ? spark.open : ""));
    }
    return noUpdate();
  }

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
    box.append(el);
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
    sendAct(incident, act);
  }

  function sendAct(incident, act, note) {
    document.querySelectorAll(`[data-answer="${CSS.escape(incident)}"]`).forEach((el) => (el.textContent = `· ${act}, by you …`));
    setProps("act", { data: { incident, act, asked: Date.now(), ...(note ? { note } : {}) } });
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
    if (write && note) sendAct(state.noted, "note", note);
  }

  // --- what is picked on the plot, and whether the controls preview

  const moment = (x) => (typeof x === "number" ? x : Date.parse(x.length > 10 ? `${x.replace(" ", "T")}Z` : x));
  const clock = (x) => { const text = new Date(moment(x)).toISOString(); return text.slice(11, 19) === "00:00:00" ? text.slice(0, 10) : text.slice(11, 19); };

  // Returns whether the label buttons are hidden, their texts, and what is picked: forgotten with the tab.
  function pickOnPlot(clicked, zoom, domain, done, seen) {
    const by = window.dash_clientside.callback_context.triggered_id, none = [true, "expected", "missed", null];
    if (by === "domain") setProps("labelled", { children: "" });
    const stream = seen && seen.look.stream;
    let range = null;
    if (by === "zoom" && zoom && zoom.range && zoom.stream === stream) range = zoom.range;
    if (by === "chart" && clicked) range = [clicked.points[0].x, clicked.points[0].x];
    if (!range || !stream) return none;
    const [start, end] = moment(range[0]) <= moment(range[1]) ? range : [range[1], range[0]];
    const words = start === end ? clock(start) : `${clock(start)} to ${clock(end)}`;
    return [false, `expected: ${words}`, `missed: ${words}`, { stream, range: [start, end] }];
  }

  const setAvailable = (id, why) => {
    const button = $(id);
    if (!button) return;
    button.setAttribute("aria-disabled", String(Boolean(why)));
    button.title = why;
  };

  // Returns the text of the chip; an act that would change nothing is not available, and says why.
  function showPreview(pulse, domain, detector, window_, threshold, direction) {
    const known = pulse && pulse.applied && pulse.stream === domain;
    const shown = { detector, window: window_, threshold, direction };
    const differs = known && Object.keys(shown).some((name) => pulse.applied[name] !== shown[name]);
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
    if (event.target.closest("#label-expected,#label-missed")) setProps("labelled", { children: `${event.target.closest("button").textContent}, by you …` });
    if (event.target.closest("[data-close]")) return closeTab(event.target.closest("[data-close]").dataset.close);
    const el = event.target.closest("[data-step],[data-domain]:not(body),[data-detector],#theme,#bell,#share,#help");
    if (event.target.closest("#trouble")) return showTrouble("");
    if (!el) return event.target.id === "keys" ? event.target.close() : undefined;
    if (el.dataset.step) showMoment(Number(el.dataset.step), el.dataset.stream);
    else if (el.dataset.domain) openStream(el.dataset.domain);
    else if (el.dataset.detector) chooseDetector(el.dataset);
    else if (el.id === "theme") setTheme((localStorage.theme = document.documentElement.dataset.theme === "dark" ? "light" : "dark"));
    else if (el.id === "bell") toggleBell();
    else if (el.id === "share") copyLink();
    else if (el.id === "help") $("keys").showModal();
  }

  // --- what a change of tab, zoom or slider shows and hides

  // Returns what is hidden: the overview, the chart (a class), the upload area, the inject row.
  function showParts(domain, served) {
    const overview = domain === "overview", yours = domain === "your-data";
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
    tell: announceIncidents,
    stage: showParts,
    zoomed: zoomAndEnd,
    picked: pickOnPlot,
    previewed: showPreview,
    opened: keepOpened,
    found: showProposal,
    said: sliderTexts,
    address: updateAddress,
  };
  window.dash_clientside = Object.assign({}, window.dash_clientside, { redline });
  document.addEventListener("keydown", onKey);
  document.addEventListener("click", holdUnavailable, true);
  document.addEventListener("click", onClick);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", (e) => localStorage.theme || setTheme(e.matches ? "dark" : "light"));
  const ready = setInterval(() => {
    if (!$("theme") || !$("domain")) return;
    clearInterval(ready);
    setTheme(document.documentElement.dataset.theme);
  }, 20);
  setInterval(updateAge, 250);
})();
