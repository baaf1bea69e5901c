/* What the scripts of the page share; Dash loads this one first, since it loads them by name. */
(function () {
  "use strict";
  const $ = (id) => document.getElementById(id);
  const setProps = (id, props) => window.dash_clientside.set_props(id, props);
  const noUpdate = () => window.dash_clientside.no_update;
  // heartbeat: the last one; answeredAt: when it came, ms; endWhenLost: the newest step when the server was lost; interval: ms between ticks
  const state = { heartbeat: null, answeredAt: performance.now(), lost: false, trouble: "", endWhenLost: 0, bell: false, sound: null, interval: 500, seed: 0, linkChecked: false };

  const meets = (a, b) => a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom; // of rectangles

  // Adds functions to those that redline/page/callbacks/browser.py, tuning.py and wall.py call by their names.
  function register(functions) {
    const { redline, ...others } = window.dash_clientside || {};
    window.dash_clientside = Object.assign({}, others, { redline: { ...redline, ...functions } });
  }

  // --- the zone of the times: that of the viewer, or UTC where that was chosen

  const own = Intl.DateTimeFormat().resolvedOptions().timeZone || "UTC";
  const zones = {
    own: /^(Etc\/)?(UTC|GMT|UCT|Universal|Zulu)$/.test(own) ? "UTC" : own,
    wanted: () => (localStorage.zone === "UTC" ? "UTC" : zones.own), // every call of the server names it
    shown: () => (state.heartbeat && state.heartbeat.zone) || "UTC", // what the server wrote times in
    word: (ms, zone = zones.shown()) => (zone === "UTC" ? "UTC" : new Intl.DateTimeFormat("en-GB", { timeZone: zone, timeZoneName: "short" }).formatToParts(ms).find(({ type }) => type === "timeZoneName").value),
    stamp: (ms, zone = zones.shown()) => new Date(ms).toLocaleString("sv-SE", { timeZone: zone }), // 2026-01-05 14:02:31
  };

  // What a script adds to it others may call, when all are loaded.
  window.redlinePage = { $, setProps, noUpdate, state, meets, register, zones };
})();
