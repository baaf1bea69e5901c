/* Incidents in the browser: pop-ups, the sound of the bell, and what a person does about one. */
(function () {
  "use strict";
  const page = window.redlinePage, { $, setProps, noUpdate, state, register } = page;

  const PHONE = "(max-width: 768px)"; // as in style.css

  // --- alarms: at most three pop-ups, repeats merged; a sound only after a click on the bell

  function announceIncidents(news) {
    for (const item of news || []) showPopup(item);
    if (news && news.length && state.bell) playTone();
    return noUpdate();
  }

  function showPopup(item) {
    const box = $("popups");
    const same = [...box.children].find((el) => el.dataset.title === item.title);
    if (same) {
      same.dataset.count = Number(same.dataset.count) + 1;
      same.querySelector("b").textContent = `${item.title} (${same.dataset.count} times)`;
      same.querySelector("span").textContent = item.text;
      same.title = item.text;
      same.dataset.step = item.step;
      return;
    }
    const el = document.createElement("button");
    el.className = `popup ${item.kind}`;
    el.title = item.text;
    Object.assign(el.dataset, { title: item.title, count: 1, step: item.step, stream: item.stream });
    el.append(Object.assign(document.createElement("i"), { className: `mark ${item.kind}` }), Object.assign(document.createElement("b"), { textContent: item.title }), Object.assign(document.createElement("span"), { textContent: item.text }));
    while (box.children.length >= 3) box.firstChild.remove();
    const fresh = !box.children.length || box.classList.contains("settling");
    box.append(el);
    if (fresh) placePopups(box); // later ones do not move those that are read
    box.classList.add("settling"); // a click that was meant for what lies below goes there
    clearTimeout(state.settling);
    state.settling = setTimeout(() => box.classList.remove("settling"), 600);
    setTimeout(() => el.remove(), 6000);
  }

  // At the foot; at the top where a person works at the foot, or where they would lie over a control. A phone has no room there.
  function placePopups(box) {
    const place = (apart) => {
      box.classList.toggle("apart", apart);
      const at = box.getBoundingClientRect();
      return [...document.querySelectorAll(".slide, .size, .acts, #inject-point")].filter((el) => page.meets(at, el.getBoundingClientRect())).length;
    };
    const busy = document.querySelector("aside:hover, .lower:hover"), foot = place(false);
    if ((!busy && !foot) || matchMedia(PHONE).matches) return;
    if (place(true) && !busy) place(false);
  }

  function playTone() {
    const at = state.sound.currentTime, tone = state.sound.createOscillator(), volume = state.sound.createGain();
    tone.frequency.value = 660;
    volume.gain.setValueAtTime(0.12, at);
    volume.gain.exponentialRampToValueAtTime(0.001, at + 0.5);
    tone.connect(volume).connect(state.sound.destination);
    tone.start(at);
    tone.stop(at + 0.5);
  }

  function toggleBell() {
    state.sound = state.sound || new AudioContext();
    state.bell = !state.bell;
    $("bell").textContent = state.bell ? "Bell on" : "Bell off";
    $("bell").setAttribute("aria-pressed", state.bell);
    if (state.bell) playTone();
  }

  // --- what a person does about an incident: shown at once, then as the server answers

  function actOnIncident(button) {
    const { incident, act } = button.dataset;
    if (act === "note") return beginNote(button);
    const picked = button.id === "silence"; // it is answered beside the plot, where it was clicked
    if (picked) setProps("labelled", { children: `${button.textContent}, by you …` });
    sendAct(incident, act, picked ? { picked } : {});
  }

  function sendAct(incident, act, more) {
    document.querySelectorAll(`[data-answer="${CSS.escape(incident)}"]`).forEach((el) => (el.textContent = `· ${act}, by you …`));
    setProps("act", { data: { incident, act, asked: Date.now(), ...more } });
  }

  function beginNote(button) {
    state.noted = button.dataset.incident;
    $("note-on").textContent = button.closest(".incident").querySelector("small").textContent;
    setProps("note-text", { value: "" });
    $("note").showModal();
    $("note-text").focus();
  }

  function endNote(write) {
    const note = $("note-text").value.trim();
    $("note").close();
    if (write && note) sendAct(state.noted, "note", { note });
  }

  Object.assign(page, { actOnIncident, endNote, toggleBell });
  register({ tell: announceIncidents });
})();
