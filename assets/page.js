/* What the scripts of the page share; Dash loads this one first, since it loads them by name. */
(function () {
  "use strict";
  const $ = (id) => document.getElementById(id);
  const setProps = (id, props) => window.dash_clientside.set_props(id, props);
  const noUpdate = () => window.dash_clientside.no_update;
  // heartbeat: the last one; answeredAt: when it came, ms; endWhenLost: the newest step when the server was lost; interval: ms between ticks
  const state = { heartbeat: null, answeredAt: performance.now(), lost: false, endWhenLost: 0, bell: false, sound: null, interval: 500, seed: 0, linkChecked: false };

  // Adds functions to those that redline/page/callbacks/browser.py, tuning.py and wall.py call by their names.
  function register(functions) {
    const { redline, ...others } = window.dash_clientside || {};
    window.dash_clientside = Object.assign({}, others, { redline: { ...redline, ...functions } });
  }

  // What a script adds to it others may call, when all are loaded.
  window.redlinePage = { $, setProps, noUpdate, state, register };
})();
