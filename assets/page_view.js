/* The view of a visitor: its theme, its address, the tab that is open and what it shows. */
(function () {
  "use strict";
  const page = window.redlinePage, { $, setProps, noUpdate, state, register } = page;

  // --- theme, address, keys

  function setTheme(name) {
    document.documentElement.dataset.theme = name;
    $("theme").textContent = name === "dark" ? "Light" : "Dark";
    setProps("look", { data: name });
  }

  function updateAddress(domain, detector, window_, threshold, direction, range, at, served) {
    const now = new URLSearchParams(location.search);
    if (now.get("seed") && Number(now.get("seed")) !== served.seed && !state.linkChecked) page.showTrouble(`This link was made with --seed ${now.get("seed")}; this server runs --seed ${served.seed}, so its streams differ.`);
    const step = Math.round(Number(now.get("at") || NaN));
    if (Number.isSafeInteger(step) && !state.linkChecked) setTimeout(() => setProps("goto", { data: { step, asked: 0 } }), 600);
    state.linkChecked = true;
    Object.assign(state, { interval: served.interval, seed: served.seed });
    const view = new URLSearchParams({ domain, detector, window: window_, threshold, direction, range, seed: served.seed });
    if (at) view.set("at", Math.round(at.end - range / 2));
    if (domain === "fleet") for (const [name, value] of page.fleetAddress()) view.set(name, value);
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

  // Returns what is hidden: the overview, the chart (a class), the upload area, the inject row, the list of streams, the fleet.
  function showParts(domain, served) {
    const overview = domain === "overview", streams = domain === "streams", fleet = domain === "fleet", yours = domain === "your-data";
    if (document.body.dataset.domain !== domain && $("brush")) $("brush").classList.add("empty"); // until that of the new stream comes
    document.body.dataset.domain = domain;
    return [!overview, overview || streams || fleet ? "away" : "", !yours, !served.simulated.includes(domain), !streams, !fleet];
  }

  // The form of *Your data* is open until a file was read; each reading folds it again.
  function foldForm(read) {
    const form = $("upload-form");
    if (form) form.open = !read;
    return "other columns, or another file";
  }

  Object.assign(page, { setTheme, copyLink, openStream, showMoment, closeTab });
  register({ address: updateAddress, opened: keepOpened, stage: showParts, folded: foldForm });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", (e) => localStorage.theme || setTheme(e.matches ? "dark" : "light"));
  const ready = setInterval(() => {
    if (!$("theme") || !$("domain")) return;
    clearInterval(ready);
    setTheme(document.documentElement.dataset.theme);
  }, 20);
})();
