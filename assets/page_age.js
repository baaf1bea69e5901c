/* The age of the data by the clock of the browser, whether the server answers, and the zone of the times. */
(function () {
  "use strict";
  const page = window.redlinePage, { $, setProps, noUpdate, state, register, zones } = page;

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
    const call = {}, zone = zones.wanted();
    if (zone !== "UTC") asked[1] = { ...asked[1], headers: { ...asked[1]?.headers, "X-Redline-Zone": zone } };
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
    const text = zones.stamp(ms), time = text.slice(11, 19);
    return text.slice(0, 10) === zones.stamp(Date.now()).slice(0, 10) ? time : text;
  }

  // The clock of what is shown: of a simulated stream its own newest time, not today's beside an axis of another day.
  function clockText() {
    const plot = document.querySelector("#chart .js-plotly-plot"), meta = plot && plot._fullLayout && plot._fullLayout.meta;
    const now = new Date(), newest = meta && meta.clock !== "UTC" && (plot.data.find((trace) => trace.name === "score") || { x: [] }).x.at(-1);
    const shown = (at, timeZone) => at.toLocaleString("en-GB", { day: "numeric", month: "short", year: "numeric", hour: "2-digit", minute: "2-digit", second: "2-digit", timeZone }).replace(",", "");
    return newest && !["overview", "streams", "fleet"].includes(document.body.dataset.domain) ? `simulated ${shown(new Date(newest), "UTC")}` : `${shown(now, zones.shown())} ${zones.word(now)}`;
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

  // The times in lists say on hover what the viewer's clock showed, or what they are in UTC.
  function titleMoment(event) {
    const el = event.target.closest?.("[data-moment]"), ms = el && Number(el.dataset.moment), local = el && localMoment(ms);
    if (local) el.title = zones.shown() === "UTC" ? `${local}, by your clock` : `${zones.stamp(ms, "UTC")} UTC`;
  }

  // The zone of the times on the page, and the one that a click changes to, "" = none.
  function zoneTexts() {
    const now = new Date(), shown = zones.shown(), ahead = zoneOf(now);
    if (zones.own === "UTC") return ["Times are in UTC, as your clock.", ""];
    if (shown === "UTC" && zones.wanted() !== "UTC") return [`Times are in UTC; your clock is ${ahead || "UTC"}: ${now.toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit" })}.`, ""];
    if (shown === "UTC") return ["Times in UTC", zones.own];
    return [document.body.dataset.domain === "your-data" ? "Times as in the file" : `Times in ${zones.own} (${ahead || "UTC"})`, "UTC"];
  }

  function writeZone() {
    const [text, other] = zoneTexts();
    document.querySelectorAll(".zone").forEach((el) => {
      if (el.dataset.said === text + other) return;
      el.dataset.said = text + other;
      const button = Object.assign(document.createElement("button"), { className: "link", textContent: `show ${other}`, onclick: changeZone });
      el.replaceChildren(text, ...(other ? [" · ", button] : []));
    });
  }

  function changeZone() {
    if (localStorage.zone === "UTC") delete localStorage.zone;
    else localStorage.zone = "UTC";
    setProps("look", { data: document.documentElement.dataset.theme }); // has the plot drawn anew at once
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
    if (stale && state.heartbeat.since) return showAge(`silent since ${formatMoment(state.heartbeat.since * 1000)} ${zones.word(state.heartbeat.since * 1000)}`, "stale");
    if (stale) return showAge(`last data ${formatAge(age)}, retrying`, "stale");
    showAge(`live, ${formatAge(age)}`, "live");
  }

  function receiveHeartbeat(heartbeat) {
    if (!heartbeat) return noUpdate();
    if (state.lost) {
      const filled = Math.max(0, heartbeat.end - state.endWhenLost);
      state.lost = false;
      showTrouble(`The server is back, ${filled.toLocaleString("en")} points filled in.`);
      setTimeout(() => state.lost || showTrouble(state.trouble), 4000);
    }
    if (heartbeat.trouble !== state.trouble) showTrouble((state.trouble = heartbeat.trouble)); // of the store or a source; a click closes it until it changes
    traffic.failed = false;
    state.heartbeat = heartbeat;
    state.answeredAt = performance.now();
    if ($("explain")) Object.assign($("explain").dataset, { severity: heartbeat.severity || "", ongoing: heartbeat.ongoing ? "yes" : "" });
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
