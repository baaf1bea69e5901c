/* Keys and clicks: which of them does what on the page. */
(function () {
  "use strict";
  const page = window.redlinePage, { $, setProps } = page;

  function onKey(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || /^(INPUT|TEXTAREA|SELECT)$/.test(event.target.tagName) || event.target.closest("[role=slider],[role=listbox],[role=combobox]")) return;
    const button = { " ": "pause", g: "golive", n: "next", p: "previous" }[event.key];
    const tabs = [...document.querySelectorAll("#domain .tab")];
    if (event.key === " " && event.target.closest("button")) return;
    if (button) event.preventDefault(), $(button).click();
    else if (/^[1-9]$/.test(event.key) && tabs[event.key]) tabs[event.key].click();
    else if (event.key === "Escape" && page.hints.isOpen()) page.hints.close();
    else if (event.key === "Escape" && document.body.dataset.wall === "full") page.toggleWall(false);
    else if (event.key === "?") $("keys").showModal();
  }

  // An unavailable button keeps the focus, but does nothing.
  function holdUnavailable(event) {
    if (!event.target.closest?.("[aria-disabled=true]")) return;
    event.preventDefault();
    event.stopPropagation();
  }

  function onClick(event) {
    const act = event.target.closest("[data-act]");
    if (act) return page.actOnIncident(act);
    if (event.target.closest("#note-write,#note-cancel")) return page.endNote(event.target.id === "note-write");
    if (event.target.closest("#label-expected,#label-missed,#mute")) setProps("labelled", { children: `${event.target.closest("button").textContent}, by you …` });
    const unmute = event.target.closest("[data-unmute]");
    if (unmute) return setProps("act", { data: { window: Number(unmute.dataset.unmute), asked: Date.now() } });
    if (event.target.closest("[data-close]")) return page.closeTab(event.target.closest("[data-close]").dataset.close);
    const el = event.target.closest("[data-step],[data-domain]:not(body),[data-detector],[data-sort],#streams-before,#streams-after,#theme,#bell,#share,#help,#wall-full,#hint-next,#hint-close,#hint-again");
    if (event.target.closest("#trouble")) return page.showTrouble("");
    if (!el) return event.target.id === "keys" ? event.target.close() : undefined;
    if (el.dataset.step) page.showMoment(Number(el.dataset.step), el.dataset.stream);
    else if (el.dataset.domain) page.openStream(el.dataset.domain);
    else if (el.dataset.detector) page.chooseDetector(el.dataset);
    else if (el.dataset.sort) page.sortStreams(el.dataset.sort);
    else if (/^streams-/.test(el.id)) page.turnPage(el.id === "streams-after" ? 1 : -1);
    else if (el.id === "theme") page.setTheme((localStorage.theme = document.documentElement.dataset.theme === "dark" ? "light" : "dark"));
    else if (el.id === "bell") page.toggleBell();
    else if (el.id === "share") page.copyLink();
    else if (el.id === "hint-next") page.hints.next();
    else if (el.id === "hint-close") page.hints.close();
    else if (el.id === "hint-again") $("keys").close(), page.hints.show(0);
    else if (el.id === "wall-full") page.toggleWall(document.body.dataset.wall !== "full");
    else if (el.id === "help") $("keys").showModal();
  }

  document.addEventListener("keydown", onKey);
  document.addEventListener("click", holdUnavailable, true);
  document.addEventListener("click", onClick);
})();
