/* The age of the data by the clock of the browser, whether the server answers, and the zone of the times. */
(function () {
  "use strict";
  const page = window.redlinePage, { $, setProps, noUpdate, state, register } = page;

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
    return newest && !["overview", "streams", "fleet"].includes(document.body.dataset.domain) ? `simulated ${shown(new Date(newest))}` : `${shown(new Date())} UTC`;
  }

  // The zone of the viewer at a moment, "" = UTC.
  function zoneOf(at) {
    const ahead = -at.getTimezoneOffset(), size = Math.abs(ahead);
    return ahead ? `UTC${ahead < 0 ? "−" : "+"}${Math.floor(size / 60)}${size % 60 ? `:${String(size % 60).padStart(2, "0")}` : ""}` : "";
  }

  // A moment in ms since the epoch as the viewer's clock shows it, "" where that is UTC
  function localMoment(ms) {
    const at = new Date(ms), zone = zoneOf(at);
    return zone && `${at.toLocaleString("en-GB", { weekday: "short", day: "numeric", month: "short", hour: "2-digit", minute: "2-digit", second: "2-digit" })} ${zone}`;
  }

  // The times in lists say on hover what the viewer's clock showed.
  function titleMoment(event) {
    const el = event.target.closest?.("[data-moment]"), local = el && localMoment(Number(el.dataset.moment));
    if (local) el.title = `${local}, by your clock`;
  }

  // The zone of the times on the page, and that of the viewer beside it.
  function zoneText() {
    const now = new Date(), zone = zoneOf(now);
    if (!zone) return "Times are in UTC, as your clock.";
    return `Times are in UTC; your clock is ${zone}: ${now.toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit" })}.`;
  }

  function writeZone() {
    const text = zoneText();
    document.querySelectorAll(".zone").forEach((el) => el.textContent !== text && (el.textContent = text));
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

  Object.assign(page, { showTrouble, localMoment });
  document.addEventListener("pointerover", titleMoment);
  register({ heard: receiveHeartbeat });
  setInterval(updateAge, 250);
})();
