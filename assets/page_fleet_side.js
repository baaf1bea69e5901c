/* Beside the swim lanes: what rose together, and what was unusual in a period; every text is set as text, never as markup. */
(function () {
  "use strict";
  const page = window.redlinePage, { $ } = page;
  const element = (...parts) => page.element(...parts); // of a script that is loaded later
  const BEFORE = 5, AFTER = 60; // seconds around a beginning, in which its worst score is looked for
  const HINT = "Drag over the lanes, or press Shift with an arrow key on one, to choose another period.";
  const actions = new WeakMap(); // button -> what a click on it does
  const drawn = {}; // what each part shows, as text

  function button(className, key, act, ...parts) {
    const el = element("button", className, ...parts);
    el.dataset.key = key;
    actions.set(el, act);
    return el;
  }

  const moment = (seconds) => {
    const el = element("time", "", page.fleetClock(seconds));
    el.dataset.moment = 1000 * seconds;
    return el;
  };

  // Shows a part anew where it has changed; the focus stays on the same entry.
  function renew(id, what, parts) {
    const box = $(id), text = JSON.stringify(what);
    if (drawn[id] === text && box.children.length) return;
    drawn[id] = text;
    const held = box.contains(document.activeElement) && document.activeElement.dataset.key;
    box.replaceChildren(...parts());
    if (held) ([...box.querySelectorAll("button")].find((el) => el.dataset.key === held) || box.querySelector("button"))?.focus({ preventScroll: true });
  }

  // --- what rose together

  function memberRow(member, group) {
    const dot = element("i", `mark ${member.severity}`), track = element("span", "track", dot);
    dot.style.left = `${Math.min(100, (100 * member.after) / group.within)}%`;
    const words = element("span", "", member.title, " ", element("small", "", member.labels));
    const open = () => page.openCell("", member.stream, member.time - BEFORE, member.time + AFTER);
    const row = button("member", `${group.id} ${member.stream}`, open, words, track, element("small", "", `+${Math.round(member.after)} s`));
    row.title = `${member.stream}, ${member.severity}`;
    return element("li", "", row);
  }

  function openGroup(group) {
    const cause = button("link", `${group.id} cause`, () => page.openLane(group.inside), group.cause);
    const sentence = element("p", "sentence", element("b", "", `${group.count.toLocaleString("en")} series`), " of ", cause, ` within ${group.within} s, first `, element("b", "", group.first));
    const chip = element("em", `chip ${group.severity}`, element("i", `mark ${group.severity}`), group.severity);
    const rest = group.more ? [element("p", "quiet", `and ${group.more.toLocaleString("en")} more`)] : [];
    return [element("p", "row", chip, element("span", "soft", "began at ", moment(group.start), ` ${page.zones.word(group.start * 1000)}`)), sentence, element("ol", "", ...group.members.map((member) => memberRow(member, group))), ...rest];
  }

  function groupLine(group) {
    const words = `${group.count.toLocaleString("en")} series of ${group.cause} within ${group.within} s, first ${group.first}`;
    return button("group", group.id, () => page.changeFleet({ group: group.id }), element("i", `mark ${group.severity}`), moment(group.start), element("span", "", words));
  }

  function groupParts(groups) {
    const head = element("h3", "", "What rose together"), open = groups.filter((group) => group.open), others = groups.filter((group) => !group.open);
    if (!groups.length) return [head, element("p", "quiet", "Nothing yet. A group is at least three series with a label in common whose incidents began together, more of them than by chance.")];
    return [head, ...open.flatMap(openGroup), ...(others.length ? [element("h4", "", "Other groups"), ...others.map(groupLine)] : [])];
  }

  // --- what was unusual

  function seriesRow(row, period) {
    const open = () => page.openCell("", row.stream, period.from, period.to);
    const el = button("ranked", `series ${row.stream}`, open, element("span", "", row.title, " ", element("small", "", row.labels)), element("b", "hot", row.score));
    el.title = row.stream;
    return element("li", "", el);
  }

  function valueRow(row) {
    const share = `${row.anomalous.toLocaleString("en")} of ${row.series.toLocaleString("en")}`;
    return element("li", "", button("ranked", `value ${row.title}`, () => page.openLane(row.inside), element("span", "", row.title), element("b", "", share)));
  }

  const listOf = (title, rows) => (rows.length ? [element("h4", "", title), element("ol", "", ...rows)] : []);

  function periodParts(period) {
    const head = element("h3", "", "What was unusual between ", moment(period.from), " and ", moment(period.to), "?");
    const whole = period.chosen ? [" ", button("link", "whole", () => page.choosePeriod(null), "Show that of all the time in sight.")] : [];
    const said = element("p", "soft", `${period.said}. `, ...whole);
    said.setAttribute("role", "status");
    return [
      head,
      said,
      ...listOf("Labels that explain it, with their anomalous series", period.values.map(valueRow)),
      ...listOf("Series, the worst first", period.series.map((row) => seriesRow(row, period))),
      element("p", "quiet", HINT),
    ];
  }

  function drawFleetSide({ groups, period, empty, columns }) {
    $("fleet-period").hidden = Boolean(empty) && !columns;
    // the answer to a question that was just asked comes first; the groups are moved, so that what has the focus stays
    const side = $("fleet-side"), first = period.chosen ? $("fleet-period") : $("fleet-groups");
    if (side.firstElementChild !== first) side[period.chosen ? "append" : "prepend"]($("fleet-groups"));
    renew("fleet-groups", groups, () => groupParts(groups));
    renew("fleet-period", period, () => periodParts(period));
  }

  Object.assign(page, { drawFleetSide });
  document.addEventListener("click", (event) => {
    const act = actions.get(event.target.closest?.("button"));
    if (act) act();
  });
})();
