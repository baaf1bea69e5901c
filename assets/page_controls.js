/* The controls in the browser: what is picked on the plot, and whether they preview. */
(function () {
  "use strict";
  const page = window.redlinePage, { $, setProps, noUpdate, state, register } = page;

  // --- what is picked on the plot, and whether the controls preview

  const moment = (x) => (typeof x === "number" ? x : Date.parse(x.length > 10 ? `${x.replace(" ", "T")}Z` : x));
  const zoneOfPlot = () => document.querySelector("#chart .js-plotly-plot")?._fullLayout?.meta?.zone || "UTC"; // that of its times
  const clock = (x) => { const text = page.zones.stamp(moment(x), zoneOfPlot()); return text.slice(11, 19) === "00:00:00" ? text.slice(0, 10) : text.slice(11, 19); };

  // Returns whether the label buttons are hidden, their texts, whether that of maintenance is, and what is picked: forgotten with the tab.
  function pickOnPlot(clicked, zoom, domain, done, seen) {
    const by = window.dash_clientside.callback_context.triggered_id, none = [true, "expected", "missed", true, null];
    if (by === "domain") setProps("labelled", { children: "" });
    const stream = seen && seen.look.stream;
    let range = null;
    if (by === "zoom" && zoom && zoom.range && zoom.stream === stream) range = zoom.range;
    if (by === "chart" && clicked) range = [clicked.points[0].x, clicked.points[0].x];
    if (!range || !stream) return none;
    const [start, end] = moment(range[0]) <= moment(range[1]) ? range : [range[1], range[0]];
    offerSilence(end);
    const words = start === end ? clock(start) : `${clock(start)} to ${clock(end)}`;
    return [false, `expected: ${words}`, `missed: ${words}`, start === end, { stream, range: [start, end] }];
  }

  // The live incident can be silenced where what was picked belongs to it: not before its first step.
  function offerSilence(picked) {
    const incident = state.heartbeat && state.heartbeat.incident;
    $("silence").hidden = !incident || moment(picked) < incident.start - 1;
    $("silence").dataset.incident = incident ? incident.id : "";
  }

  const setAvailable = (id, why) => {
    const button = $(id);
    if (!button) return;
    button.setAttribute("aria-disabled", String(Boolean(why)));
    button.title = why;
  };

  // The controls follow the applied settings when these change, unless they preview something else.
  function followApplied({ stream, applied }, shown) {
    const before = state.applied, names = Object.keys(shown);
    state.applied = { stream, ...applied };
    if (!before || before.stream !== stream || names.some((name) => before[name] !== shown[name])) return;
    for (const name of names) if (applied[name] !== shown[name]) setProps(name, { value: applied[name] });
  }

  // Returns the text of the chip; an act that would change nothing is not available, and says why.
  function showPreview(pulse, domain, detector, window_, threshold, direction) {
    const known = pulse && pulse.applied && pulse.stream === domain;
    const shown = { detector, window: window_, threshold, direction };
    if (known) followApplied(pulse, shown);
    const differs = known && Object.keys(shown).some((name) => pulse.applied[name] !== shown[name]);
    document.body.dataset.preview = differs ? "yes" : "";
    setAvailable("apply", differs ? "" : "these settings are applied already");
    setAvailable("undo", known && pulse.undoable ? "" : "there is no change to take back");
    setAvailable("best", known && pulse.events ? "" : "needs labelled anomalies: this buffer has none");
    return differs ? "Preview, not applied" : "";
  }

  // a row of the comparison: its detector, with its own best threshold where that is what it shows
  function chooseDetector({ detector, threshold }) {
    setProps("detector", { value: detector });
    if (threshold) setProps("threshold", { value: Number(threshold) });
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

  Object.assign(page, { chooseDetector });
  register({ picked: pickOnPlot, previewed: showPreview, zoomed: zoomAndEnd, said: sliderTexts, found: showProposal });
})();
