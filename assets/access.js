/* What makes the page usable by keys and by screen readers where Dash's components lack it: names, roles, one tab stop for each strip of tabs, a focus that lists keep, and what is spoken. */
(function () {
  "use strict";
  const $ = (id) => document.getElementById(id);
  const setProps = (id, props) => window.dash_clientside.set_props(id, props);
  const STRIPS = { domain: "Streams", lower: "Lists" };
  const SLIDERS = { window: "Window", threshold: "Threshold", size: "Size of the injected fault" };
  const DROPDOWNS = { speed: "Speed of the simulation", range: "Steps shown", detector: "Detector", direction: "Anomalous when", "incident-severity": "Severity", "incident-state": "State", "col-time": "Column of the time", "col-stamps": "Time read as", "col-values": "Columns of values", "col-label": "Column of the labels" };
  const FIELDS = { search: "Find a stream by a part of its name", "incident-stream": "Incidents of streams with this in their name", "streams-part": "Streams with this in their name, or with these labels", "fleet-part": "Series with this in their name, or with these labels", "note-text": "Note" };
  const RADIOS = { by: "What is counted", "compare-at": "Threshold of each detector", "incident-scope": "Incidents of" };

  const setAttributes = (el, wanted) => {
    for (const [name, value] of Object.entries(wanted)) if (el.getAttribute(name) !== value) el.setAttribute(name, value);
  };

  // --- strips of tabs: one tab stop each, arrows move in it

  function dressStrip(id) {
    const strip = $(id);
    if (!strip) return;
    setAttributes(strip, { role: "tablist", "aria-label": STRIPS[id] });
    const tabs = [...strip.querySelectorAll(".tab")];
    const stop = tabs.find((tab) => tab === document.activeElement) || tabs.find((tab) => tab.matches(".tab--selected")) || tabs[0];
    for (const tab of tabs) setAttributes(tab, { role: "tab", "aria-selected": String(tab.matches(".tab--selected")), tabindex: tab === stop ? "0" : "-1" });
  }

  function onTabKey(event) {
    const tab = event.target.closest?.("#domain .tab, #lower .tab");
    if (!tab || event.ctrlKey || event.metaKey || event.altKey) return;
    const tabs = [...tab.parentElement.querySelectorAll(".tab")], at = tabs.indexOf(tab);
    const to = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: tabs.length - 1 }[event.key];
    const cross = tab.querySelector("[data-close]");
    if (to !== undefined) moveStop(tabs, tabs[(to + tabs.length) % tabs.length]);
    else if (event.key === "Enter" || event.key === " ") tab.click();
    else if (event.key === "Delete" && cross) cross.click();
    else return;
    event.preventDefault();
    event.stopPropagation();
  }

  function moveStop(tabs, to) {
    for (const tab of tabs) tab.tabIndex = tab === to ? 0 : -1;
    to.focus();
    to.scrollIntoView({ block: "nearest", inline: "nearest" });
  }

  // --- names and roles

  function nameDropdown(id) {
    const button = $(id), target = button?.parentElement.querySelector(".dash-dropdown-focus-target");
    if (!target) return;
    // Dash hides what takes the focus from screen readers; the button can take it itself
    setAttributes(target, { tabindex: "-1" });
    setAttributes(button, { tabindex: "0", "aria-label": DROPDOWNS[id], "aria-labelledby": `${id} ${id}-value` });
  }

  function nameRadios(id) {
    const group = $(id);
    if (!group) return;
    setAttributes(group, { role: "radiogroup", "aria-label": RADIOS[id] });
    group.querySelectorAll("label").forEach((label) => ["role", "aria-selected"].forEach((name) => label.removeAttribute(name)));
  }

  function nameSlider(id) {
    const thumb = document.querySelector(`#${id} [role=slider]`), said = $(`${id}-said`);
    if (thumb) setAttributes(thumb, { "aria-label": SLIDERS[id], "aria-valuetext": said ? said.textContent : "" });
  }

  function nameAll() {
    Object.keys(STRIPS).forEach(dressStrip);
    Object.keys(SLIDERS).forEach(nameSlider);
    Object.keys(DROPDOWNS).forEach(nameDropdown);
    Object.keys(RADIOS).forEach(nameRadios);
    for (const [id, name] of Object.entries(FIELDS)) if ($(id)) setAttributes($(id), { "aria-label": name });
    document.querySelectorAll("#upload input[type=file]").forEach((el) => setAttributes(el, { "aria-label": "Drop a CSV here, or choose one", tabindex: "0" }));
    document.querySelectorAll(".scroll").forEach((el) => setAttributes(el, { tabindex: "0", role: "group", "aria-label": "Table" }));
    const tab = document.querySelector("#domain .tab--selected .tab-label > span"), chart = document.querySelector(".graph");
    if (chart && tab) setAttributes(chart, { "aria-label": `Chart of ${tab.textContent}: values, expected range and score over time` });
  }

  // --- the focus stays on the same entry when a list is renewed

  const LISTS = "#history, #incidents, #domain, #compare";
  const held = { key: null, list: null, at: 0 };

  const keyOf = (el) => (el.dataset.act ? `${el.dataset.incident} ${el.dataset.act}` : el.dataset.step ? `${el.dataset.step} ${el.dataset.stream || ""}` : el.dataset.detector || el.querySelector("[data-spark]")?.dataset.spark || null);
  const stops = (list) => [...list.querySelectorAll("button, .tab")];

  function holdFocus(event) {
    const list = event.target.closest?.(LISTS);
    Object.assign(held, list ? { key: keyOf(event.target), list: list.id, at: stops(list).indexOf(event.target) } : { key: null, list: null });
  }

  function returnFocus() {
    const now = document.activeElement, list = held.list && $(held.list);
    if (!list || document.querySelector("dialog[open]") || (now !== document.body && !list.contains(now))) return;
    if (list.contains(now) && keyOf(now) === held.key) return;
    const all = stops(list), same = all.find((el) => keyOf(el) === held.key);
    const near = all.find((el) => held.key && el.dataset.incident === held.key.split(" ")[0]) || all[Math.min(held.at, all.length - 1)];
    const to = same || (now === document.body ? near : null);
    if (to) to.focus({ preventScroll: true });
  }

  // --- what is spoken: an anomaly once, not each of its steps

  const spoken = { head: "", text: "" };

  function speak(text) {
    const box = $("spoken");
    if (box && spoken.text !== text) box.textContent = spoken.text = text;
  }

  function speakSentence() {
    const text = $("explain")?.textContent || "", head = text.split(": ")[0];
    if (!head || head === spoken.head) return;
    const first = !spoken.head;
    spoken.head = head;
    if (!first) speak(text);
  }

  // --- the search

  function onSearchKey(event) {
    const field = $("search"), found = [...document.querySelectorAll("#streams-found button")], at = found.indexOf(event.target);
    const typing = /^(INPUT|TEXTAREA|SELECT)$/.test(event.target.tagName) && !event.target.readOnly;
    if (event.key === "/" && !typing && !event.ctrlKey && !event.metaKey && field) return event.preventDefault(), field.focus();
    if (!field || (event.target !== field && at < 0)) return;
    if (event.key === "Escape") field.focus(), setProps("search", { value: "" });
    else if (event.key === "Enter" && event.target === field && found.length) found[0].click();
    else if (event.key === "ArrowDown" && found.length) found[Math.min(at + 1, found.length - 1)].focus();
    else if (event.key === "ArrowUp" && at >= 0) (found[at - 1] || field).focus();
    else return;
    event.preventDefault();
  }

  // --- start

  function watch(id, act, options) {
    const el = $(id);
    if (el) new MutationObserver(act).observe(el, { childList: true, subtree: true, ...options });
  }

  // what the server answers replaces what was written meanwhile
  function renewed(changes) {
    const answered = changes.some((change) => !change.target.closest?.(".answer") && !change.target.parentElement?.closest(".answer"));
    if (answered) document.querySelectorAll(".answer").forEach((el) => el.textContent && (el.textContent = ""));
    returnFocus();
  }

  const ready = setInterval(() => {
    if (!$("domain") || !$("lower") || !$("explain")) return;
    clearInterval(ready);
    nameAll();
    const strip = { attributes: true, attributeFilter: ["class"] };
    watch("domain", () => (dressStrip("domain"), returnFocus()), strip);
    watch("lower-parent", (changes) => (nameAll(), renewed(changes)), { ...strip, characterData: true });
    watch("explain", speakSentence, { characterData: true });
    setInterval(nameAll, 1000);
  }, 20);
  document.addEventListener("keydown", onTabKey, true);
  document.addEventListener("keydown", onSearchKey, true);
  document.addEventListener("focusin", holdFocus);
  document.addEventListener("pointerdown", () => Object.assign(held, { key: null, list: null }), true);
})();
