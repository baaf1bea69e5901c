/* What only a browser knows: the age of the data by its own clock, keys, theme, sound, the address, and whether the server still answers. */
(function () {
  "use strict";
  const $ = (id) => document.getElementById(id);
  const set = (id, props) => window.dash_clientside.set_props(id, props);
  const keep = () => window.dash_clientside.no_update;
  const state = { pulse: null, heard: performance.now(), lost: false, endWhenLost: 0, bell: false, sound: null, interval: 500, seed: 0 };

  // --- age, clock, and the three ways in which numbers stop being true

  const ago = (s) => (s < 90 ? `${Math.max(0, Math.round(s))} s ago` : s < 5400 ? `${Math.round(s / 60)} min ago` : `${Math.round(s / 3600)} h ago`);

  function show(text, kind) {
    const age = $("age");
    if (age && age.textContent !== text) age.textContent = text;
    document.body.dataset.state = kind;
  }

  function bar(text) {
    const trouble = $("trouble");
    if (trouble && trouble.dataset.link !== text) set("trouble", { children: text }), (trouble.dataset.link = text);
  }

  function beat() {
    const clock = $("clock");
    if (!clock) return;
    clock.textContent = new Date().toLocaleString("en-GB", { day: "numeric", month: "short", year: "numeric", hour: "2-digit", minute: "2-digit", second: "2-digit", timeZone: "UTC" }).replace(",", "") + " UTC";
    const silent = (performance.now() - state.heard) / 1000;
    const patience = Math.max(3 * state.interval, 1500) / 1000;
    if (state.pulse && silent > patience && !document.hidden) {
      if (!state.lost) (state.lost = true), (state.endWhenLost = state.pulse ? state.pulse.end : 0);
      show(`no answer for ${Math.round(silent)} s`, "lost");
      bar(`The server has not answered for ${Math.round(silent)} s. What you see is old; retrying.`);
      set("tick", { disabled: false });
      return;
    }
    if (!state.pulse) return;
    const p = state.pulse;
    if (p.at !== null) return show(`looking back, ${p.waiting.toLocaleString("en")} waiting`, "paused");
    if (p.age === null) return show("no points yet", "stale");
    const age = p.age + silent;
    if (p.over) return show("end of file", "paused");
    if (age > Math.max((3 * state.interval) / 1000, 3 * p.period)) return show(`last data ${ago(age)}, retrying`, "stale");
    show(`live, ${ago(age)}`, "live");
  }

  function heard(pulse) {
    if (!pulse) return keep();
    if (state.lost) {
      const filled = Math.max(0, pulse.end - state.endWhenLost);
      state.lost = false;
      bar(`The server is back, ${filled.toLocaleString("en")} points filled in.`);
      setTimeout(() => state.lost || bar(""), 4000);
    }
    state.pulse = pulse;
    state.heard = performance.now();
    const live = $("golive");
    if (live) {
      live.hidden = pulse.at === null && !pulse.waiting;
      live.textContent = `Go live (+${pulse.waiting.toLocaleString("en")})`;
    }
    beat();
    return pulse.at === null ? "Pause" : "Go on";
  }

  // --- the little lines

  function draw(el, spark) {
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

  const reach = () => document.querySelectorAll(".tabs .tab:not([tabindex])").forEach((tab) => Object.assign(tab, { tabIndex: 0, role: "tab" }));

  function sparks(data) {
    reach(); // a stream that appeared has a tab that no key reaches yet
    for (const [name, spark] of Object.entries(data || {})) {
      document.querySelectorAll(`[data-spark="${name}"]`).forEach((el) => draw(el, spark));
      document.querySelectorAll(`[data-open="${name}"]`).forEach((el) => (el.textContent = spark.open ? spark.open : ""));
    }
    return keep();
  }

  // --- alarms: at most three pop-ups, repeats merged; a sound only after a click on the bell

  function tell(news) {
    for (const item of news || []) popup(item);
    if (news && news.length && state.bell) ring();
    return keep();
  }

  function popup(item) {
    const box = $("popups");
    const same = [...box.children].find((el) => el.dataset.title === item.title);
    if (same) {
      same.dataset.count = Number(same.dataset.count) + 1;
      same.querySelector("b").textContent = `${item.title} (${same.dataset.count} times)`;
      same.querySelector("span").textContent = item.text;
      return;
    }
    const el = document.createElement("button");
    el.className = `popup ${item.kind}`;
    Object.assign(el.dataset, { title: item.title, count: 1, step: item.step });
    el.append(Object.assign(document.createElement("i"), { className: `mark ${item.kind}` }), Object.assign(document.createElement("b"), { textContent: item.title }), Object.assign(document.createElement("span"), { textContent: item.text }));
    while (box.children.length >= 3) box.firstChild.remove();
    box.append(el);
    setTimeout(() => el.remove(), 6000);
  }

  function ring() {
    const at = state.sound.currentTime, tone = state.sound.createOscillator(), volume = state.sound.createGain();
    tone.frequency.value = 660;
    volume.gain.setValueAtTime(0.12, at);
    volume.gain.exponentialRampToValueAtTime(0.001, at + 0.5);
    tone.connect(volume).connect(state.sound.destination);
    tone.start(at);
    tone.stop(at + 0.5);
  }

  function bell() {
    state.sound = state.sound || new AudioContext();
    state.bell = !state.bell;
    $("bell").textContent = state.bell ? "Bell on" : "Bell off";
    $("bell").setAttribute("aria-pressed", state.bell);
    if (state.bell) ring();
  }

  // --- theme, address, keys

  function theme(name) {
    document.documentElement.dataset.theme = name;
    $("theme").textContent = name === "dark" ? "Light" : "Dark";
    set("look", { data: name });
  }

  function address(domain, detector, window_, threshold, direction, range, at, served) {
    const now = new URLSearchParams(location.search);
    if (now.get("seed") && Number(now.get("seed")) !== served.seed && !state.told) bar(`This link was made with --seed ${now.get("seed")}; this server runs --seed ${served.seed}, so its streams differ.`);
    if (now.get("at") && !state.told) setTimeout(() => set("goto", { data: { step: Number(now.get("at")), asked: 0 } }), 600);
    state.told = true;
    Object.assign(state, { interval: served.interval, seed: served.seed });
    const view = new URLSearchParams({ domain, detector, window: window_, threshold, direction, range, seed: served.seed });
    if (at) view.set("at", at.end - range / 2);
    if (domain) history.replaceState(null, "", "?" + view);
    return "copy a link to this view";
  }

  function copied() {
    const done = () => { $("share").textContent = "Copied"; setTimeout(() => ($("share").textContent = "Share"), 1500); };
    if (navigator.clipboard) navigator.clipboard.writeText(location.href).then(done, () => prompt("The link to this view", location.href));
    else prompt("The link to this view", location.href);
  }

  function key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || /^(INPUT|TEXTAREA|SELECT)$/.test(event.target.tagName) || event.target.closest("[role=slider],[role=listbox],[role=combobox]")) return;
    const press = { " ": "pause", g: "golive", n: "next", p: "previous" }[event.key];
    const tabs = [...document.querySelectorAll("#domain .tab")];
    if (event.key === " " && event.target.closest("button")) return;
    if (event.key === "Enter" && event.target.matches(".tab")) event.target.click();
    if (press) event.preventDefault(), $(press).click();
    else if (/^[1-9]$/.test(event.key) && tabs[event.key]) tabs[event.key].click();
    else if (event.key === "?") $("keys").showModal();
  }

  function click(event) {
    const act = event.target.closest("[data-act]");
    if (act) return set("act", { data: { incident: act.dataset.incident, act: act.dataset.act, asked: Date.now() } });
    const el = event.target.closest("[data-step],[data-domain]:not(body),[data-detector],#theme,#bell,#share,#help");
    if (event.target.closest("#trouble")) return bar("");
    if (!el) return event.target.id === "keys" ? event.target.close() : undefined;
    if (el.dataset.step) set("goto", { data: { step: Number(el.dataset.step), asked: Date.now() } });
    else if (el.dataset.domain) set("domain", { value: el.dataset.domain });
    else if (el.dataset.detector) set("detector", { value: el.dataset.detector });
    else if (el.id === "theme") theme((localStorage.theme = document.documentElement.dataset.theme === "dark" ? "light" : "dark"));
    else if (el.id === "bell") bell();
    else if (el.id === "share") copied();
    else if (el.id === "help") $("keys").showModal();
  }

  // --- what the tab and the zoom change on the page

  function stage(domain, served) {
    const overview = domain === "overview", yours = domain === "your-data";
    document.body.dataset.domain = domain;
    return [!overview, overview ? "away" : "", !yours, !served.simulated.includes(domain)];
  }

  function zoomed(moved, zoom, seen) {  // who zooms looks back: what is in sight stays there until "Go live", or a double click
    if (!moved || !seen) return [keep(), keep()];
    const revision = (zoom && zoom.revision) || 0, stream = seen.look.stream;
    if ("xaxis.autorange" in moved) return [{ revision: revision + 1 }, zoom && zoom.range ? null : keep()];
    const range = moved["xaxis.range"] || [moved["xaxis.range[0]"], moved["xaxis.range[1]"]];
    return range[0] ? [{ revision, stream, range }, { id: stream, end: seen.end }] : [keep(), keep()];
  }

  const labels = (clicked, zoom) => ["domain", "done"].includes(window.dash_clientside.callback_context.triggered_id) || !(clicked || (zoom && zoom.range));

  const said = (window_, threshold, size) => [`${window_} steps`, `${Number(threshold).toFixed(1)} σ`, `${size} σ`];

  window.dash_clientside = Object.assign({}, window.dash_clientside, { redline: { heard, sparks, tell, stage, zoomed, labels, said, address } });
  document.addEventListener("keydown", key);
  document.addEventListener("click", click);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", (e) => localStorage.theme || theme(e.matches ? "dark" : "light"));
  const ready = setInterval(() => {
    if (!$("theme") || !$("domain")) return;
    clearInterval(ready);
    theme(document.documentElement.dataset.theme);
    reach();
  }, 20);
  setInterval(beat, 250);
})();
