/* The list of all streams: one row each, in the order that the server gives; every text is set as text, never as markup. */
(function () {
  "use strict";
  const page = window.redlinePage, { $, setProps, noUpdate, register } = page;
  let shown = { by: "unusual", descending: true, page: 0, part: "" }; // what the rows are

  const element = (...parts) => page.element(...parts); // of a script that is loaded later

  function rowParts(row) {
    const name = element("button", "link", row.title);
    if (row.labels) name.append(" ", element("small", "", row.labels));
    name.title = row.stream;
    const cell = element("div", "", name), head = element("th", "", cell);
    head.scope = "row";
    if (row.incident) cell.append(element("span", "badge", element("i", `mark ${row.incident.severity}`), `${row.incident.severity}, ${row.incident.state}`));
    return [
      head,
      element("td", "", row.value, ...(row.unit ? [" ", element("small", "", row.unit)] : [])),
      element("td", "", page.wallLine({ ...row.line, low: null, high: null })),
      element("td", row.above ? "above" : "", row.score, element("small", "", ` of ${row.threshold}`)),
      element("td", row.worstAbove ? "loud fold" : "fold", row.worst),
      element("td", "fold", row.seen),
    ];
  }

  // While the pointer or the focus is on the rows, those that stay keep their places.
  function inPlace(body, rows, same) {
    if (!same || !(body.matches(":hover") || body.contains(document.activeElement))) return rows;
    const place = new Map([...body.children].map((el, i) => [el.dataset.domain, i]));
    return [...rows].sort((a, b) => (place.get(a.stream) ?? Infinity) - (place.get(b.stream) ?? Infinity) || 0);
  }

  function fillRows(body, rows) {
    const held = body.contains(document.activeElement) && document.activeElement.closest("tr"), at = [...body.children].indexOf(held);
    const before = new Map([...body.children].map((el) => [el.dataset.domain, el]));
    const after = rows.map((row) => {
      const el = before.get(row.stream) || element("tr");
      el.dataset.domain = row.stream;
      el.replaceChildren(...rowParts(row));
      return el;
    });
    if (after.length !== body.children.length || after.some((el, i) => el !== body.children[i])) body.replaceChildren(...after);
    const to = after.includes(held) ? held : after[Math.min(at, after.length - 1)]; // where its row is gone, the one in its place
    if (held && to) to.querySelector("button").focus({ preventScroll: true });
  }

  // The heading of the order says which way it goes.
  function markOrder({ by, descending }) {
    for (const button of document.querySelectorAll("#streams thead [data-sort]")) {
      const th = button.closest("th");
      if (button.dataset.sort === by) th.setAttribute("aria-sort", descending ? "descending" : "ascending");
      else th.removeAttribute("aria-sort");
    }
    $("streams-unusual").setAttribute("aria-pressed", String(by === "unusual"));
  }

  function drawStreams(list) {
    const body = $("streams-body");
    if (!list || !body) return noUpdate();
    const { by, descending, part } = list, same = ["by", "descending", "page", "part"].every((name) => shown[name] === list[name]);
    shown = { by, descending, part, page: list.page };
    fillRows(body, inPlace(body, list.rows, same));
    markOrder(list);
    if ($("streams-said").textContent !== list.said) $("streams-said").textContent = list.said;
    $("streams-before").hidden = !list.page;
    $("streams-after").hidden = !list.more;
    $("streams-after").textContent = `${list.more} ›`;
    return noUpdate();
  }

  const ask = (order) => setProps("streams-order", { data: { ...shown, ...order } });

  // A second click on a heading turns the order round.
  function sortStreams(by) {
    ask({ by, page: 0, descending: shown.by === by && by !== "unusual" ? !shown.descending : null });
  }

  function turnPage(by) {
    ask({ page: shown.page + by });
    $("streams").scrollIntoView();
  }

  Object.assign(page, { sortStreams, turnPage });
  register({ streams: drawStreams });
})();
