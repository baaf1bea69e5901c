/* The forms of the API's reference page: each sends its request and shows the answer. */
"use strict";
(() => {
  const MOST_CHARACTERS = 20000; // of an answer that are shown
  const MOST_SECONDS = 5; // that an answer without end, as the event stream, is followed

  async function readAnswer(answer, abort) {
    const reader = answer.body.getReader();
    const decoder = new TextDecoder();
    const timer = setTimeout(() => abort.abort(), 1000 * MOST_SECONDS);
    let text = "";
    try {
      while (text.length < MOST_CHARACTERS) {
        const { done, value } = await reader.read();
        if (done) return text;
        text += decoder.decode(value, { stream: true });
      }
      abort.abort();
    } catch (error) {
      if (error.name !== "AbortError") throw error;
    } finally {
      clearTimeout(timer);
    }
    return `${text.slice(0, MOST_CHARACTERS)}\n… (cut off here)`;
  }

  function requestOf(form) {
    let path = form.dataset.path;
    const query = new URLSearchParams();
    for (const field of form.querySelectorAll("input[data-in]")) {
      if (field.dataset.in === "path") path = path.replace(`{${field.name}}`, encodeURIComponent(field.value));
      else if (field.dataset.in === "query" && field.value) field.value.split(/\s+/).forEach((value) => query.append(field.name, value));
    }
    const body = form.querySelector("textarea");
    const headers = body ? { "Content-Type": "application/json" } : {};
    for (const field of form.querySelectorAll("input[data-in=header]")) if (field.value) headers[field.name] = field.value;
    const tail = query.toString();
    return [tail ? `${path}?${tail}` : path, { method: form.dataset.method, headers, body: body ? body.value : undefined }];
  }

  async function send(form) {
    const shown = form.querySelector("output");
    const abort = new AbortController();
    shown.textContent = "…";
    try {
      const [path, options] = requestOf(form);
      const answer = await fetch(path, { ...options, signal: abort.signal });
      shown.textContent = `${options.method} ${path}\n${answer.status} ${answer.statusText}\n\n${await readAnswer(answer, abort)}`;
    } catch (error) {
      shown.textContent = String(error);
    }
  }

  for (const form of document.querySelectorAll("form")) {
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      send(form);
    });
  }
})();
