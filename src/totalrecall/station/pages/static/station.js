// What HTML alone cannot: the heat under a slider, keys, dropped files, the threshold's handle, times of this place.
"use strict";
(() => {
  const all = (selector, from = document) => from.querySelectorAll(selector);
  const language = document.documentElement.lang;
  document.documentElement.classList.add("scripted");

  // ---------------------------------------------------------------- heat
  let heat = { share: 70, on: true };
  try { heat = { ...heat, ...JSON.parse(localStorage.getItem("totalrecall-heat") || "{}") }; } catch { /* first time */ }

  function showHeat() {
    all("img.heat").forEach(layer => { layer.style.opacity = heat.on ? heat.share / 100 : 0; });
    all("[data-heat]").forEach(slider => { slider.value = heat.share; });
    all("[data-heat-toggle]").forEach(button => button.setAttribute("aria-pressed", String(heat.on)));
    try { localStorage.setItem("totalrecall-heat", JSON.stringify(heat)); } catch { /* private window */ }
  }
  document.addEventListener("input", event => {
    if (event.target.matches("[data-heat]")) { heat = { share: Number(event.target.value), on: true }; showHeat(); }
  });
  document.addEventListener("click", event => {
    if (event.target.closest("[data-print]")) window.print();
    if (event.target.closest("[data-heat-toggle]")) { heat.on = !heat.on; showHeat(); }
  });

  // ---------------------------------------------------------------- keys
  document.addEventListener("keydown", event => {
    if (event.ctrlKey || event.altKey || event.metaKey || event.repeat) return;
    const field = event.target.closest("input, select, textarea, [contenteditable]");
    if (field && !field.matches("[data-heat]")) return;
    if (field && event.key.startsWith("Arrow")) return;
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    const wanted = [...all("[data-shortcut]")].find(one => one.dataset.shortcut === key);
    if (!wanted) return;
    event.preventDefault();
    const card = wanted.closest("#card"); // while a judgement is on its way, a second key must not hit the next picture unseen
    if (!card || !card.matches(".htmx-request") && !card.querySelector(".htmx-request")) wanted.click();
  });

  // ---------------------------------------------------------------- forms
  document.addEventListener("change", event => {
    if (event.target.matches("[data-submits]")) event.target.form.requestSubmit();
    if (event.target.matches("input[type=file]")) {
      const place = event.target.parentElement.querySelector("[data-files]"), files = [...event.target.files];
      if (place && files.length) place.textContent = files.length > 2 ? `${files[0].name} … (${files.length})` : files.map(one => one.name).join(", ");
    }
    const picker = event.target.closest("form[data-picks]");
    if (picker) countPicked(picker);
  });
  document.addEventListener("submit", event => {
    const question = event.submitter?.dataset.asks;
    if (question && !window.confirm(question)) { event.preventDefault(); event.stopImmediatePropagation(); return; }
    all('input[type="datetime-local"]', event.target).forEach(field => {
      if (!field.value) { field.disabled = true; return; }
      const time = new Date(field.value);
      field.type = "text";
      field.value = time.toISOString();
    });
  }, true);

  function countPicked(form) {
    const count = all("input[type=checkbox]:checked", form).length;
    all("[data-picked]", form).forEach(place => { place.textContent = String(count); });
    all("button[data-needs-picked]", form).forEach(button => { button.disabled = count === 0; });
  }

  for (const name of ["dragover", "drop", "dragleave"]) {
    document.addEventListener(name, event => {
      const drop = event.target.closest?.("[data-drop]") || (name === "dragover" || name === "drop" ? document.querySelector("[data-drop]") : null);
      if (!drop || (event.dataTransfer && ![...event.dataTransfer.types].includes("Files"))) return;
      event.preventDefault();
      drop.classList.toggle("over", name === "dragover");
      if (name === "drop" && event.dataTransfer.files.length) {
        const field = drop.querySelector("input[type=file]");
        field.files = event.dataTransfer.files;
        field.dispatchEvent(new Event("change", { bubbles: true }));
      }
    });
  }

  // ---------------------------------------------------------------- times of this place
  const two = number => String(number).padStart(2, "0");
  function written(time, seconds) {
    const day = `${time.getFullYear()}-${two(time.getMonth() + 1)}-${two(time.getDate())}`;
    return `${day} ${two(time.getHours())}:${two(time.getMinutes())}${seconds ? `:${two(time.getSeconds())}` : ""}`;
  }
  function showTimes(from) {
    all("time[data-local]", from).forEach(place => {
      place.title = place.dateTime;
      place.textContent = written(new Date(place.dateTime), place.dataset.local === "seconds");
    });
    all("[data-hour]", from).forEach(place => {
      place.textContent = written(new Date(place.dataset.hour), false).slice(11);
    });
    all("input[data-utc]", from).forEach(field => {
      if (!field.dataset.utc) return;
      const time = new Date(field.dataset.utc);
      if (Number.isNaN(time.getTime())) return;
      field.value = new Date(time.getTime() - 60000 * time.getTimezoneOffset()).toISOString().slice(0, 16);
    });
  }

  // ---------------------------------------------------------------- the threshold's handle
  function tune(form) {
    const told = JSON.parse(form.dataset.tuner);
    const field = form.elements.score, rate = form.querySelector('input[name="rate"]'), parts = form.querySelector("[data-parts]");
    const drawing = document.getElementById("scores"), handle = drawing.querySelector("[data-handle]");
    const left = Number(drawing.dataset.left), width = Number(drawing.dataset.width);
    const inUse = form.dataset.inUse === "" ? null : Number(form.dataset.inUse);
    const number = (value, digits) => value.toLocaleString(language, { maximumSignificantDigits: digits });
    const share = value => value.toLocaleString(language, { style: "percent", maximumFractionDigits: value < 0.001 ? 3 : value < 0.1 ? 2 : 0 });
    const places = Object.fromEntries([...all("[data-shows]", form)].map(place => [place.dataset.shows, place]));

    function rateAt(score) {
      if (!told.rates || !told.rates.length) return null;
      const steps = told.rates.length - 1;
      const at = Math.min(Math.max((score - told.low) / (told.high - told.low) * steps, 0), steps);
      const low = Math.floor(at), high = Math.min(low + 1, steps);
      return told.rates[low] + (at - low) * (told.rates[high] - told.rates[low]);
    }
    function show() {
      const score = Number(field.value);
      const isInUse = inUse !== null && Math.abs(score - inUse) < 1e-9;
      const expected = rate.value ? Number(rate.value) : isInUse && told.rate !== null ? told.rate : rateAt(score);
      const alarms = expected === null ? null : expected * Number(parts.value || 0);
      const counted = (place, scores) => {
        const above = scores.filter(one => one > score).length;
        place.textContent = scores.length ? place.dataset.of.replace("{above}", number(above, 6)).replace("{all}", number(scores.length, 6)) : "–";
      };
      places.threshold.textContent = score.toLocaleString(language, { minimumSignificantDigits: 4, maximumSignificantDigits: 4 });
      places.rate.textContent = expected === null ? "–" : share(expected);
      places.alarms.textContent = alarms === null ? "–" : alarms < 0.05 ? `< ${number(0.1, 1)}` : number(alarms, alarms < 10 ? 2 : 3);
      counted(places.defects, told.defects);
      counted(places.fine, told.fine);
      const x = left + (score - told.low) / (told.high - told.low) * (width - left);
      if (handle) handle.setAttribute("transform", `translate(${x.toFixed(1)} 0)`);
      field.setAttribute("aria-valuetext", `${places.threshold.textContent}, ${places.rate.textContent}`);
      const apply = form.querySelector("[data-apply]");
      if (apply) apply.disabled = isInUse && !rate.value;
    }
    function move(score) { rate.value = ""; field.value = String(score); show(); }
    field.addEventListener("input", () => { rate.value = ""; show(); });
    parts.addEventListener("input", show);
    all("[data-level]", form).forEach(button => button.addEventListener("click", event => {
      event.preventDefault(); // without scripts it leads to the comparison at once
      field.value = button.dataset.level; rate.value = button.dataset.rate; show();
    }));
    form.querySelector("[data-reset]")?.addEventListener("click", () => move(inUse));
    if (handle) {
      const drag = event => {
        const box = drawing.getBoundingClientRect();
        const at = ((event.clientX - box.left) / box.width * width - left) / (width - left);
        move(told.low + Math.min(Math.max(at, 0), 1) * (told.high - told.low));
      };
      handle.addEventListener("pointerdown", event => { handle.setPointerCapture(event.pointerId); event.preventDefault(); });
      handle.addEventListener("pointermove", event => { if (handle.hasPointerCapture(event.pointerId)) drag(event); });
    }
    show();
  }

  // ---------------------------------------------------------------- htmx
  function ready(from) {
    showHeat();
    showTimes(from);
    all("form[data-tuner]", from).forEach(form => { if (!form.dataset.ready) { form.dataset.ready = "1"; tune(form); } });
    all("form[data-picks]", from).forEach(countPicked);
  }
  const lost = isLost => {
    const place = document.getElementById("lost");
    place.hidden = !isLost;
    place.textContent = isLost ? document.body.dataset.lost : "";
  };
  document.addEventListener("htmx:afterSettle", event => ready(event.target.isConnected ? event.target : document));
  document.addEventListener("htmx:oobAfterSwap", () => showHeat());
  document.addEventListener("htmx:sendError", () => lost(true));
  document.addEventListener("htmx:timeout", () => lost(true));
  document.addEventListener("htmx:afterRequest", event => {
    if (event.detail.xhr?.status) lost(false);
    if (event.detail.elt.matches?.("[data-clears]")) event.detail.elt.reset();
  });
  document.addEventListener("htmx:beforeRequest", event => {
    if (!event.detail.elt.matches?.("[hx-trigger]")) document.getElementById("message").replaceChildren();
  });
  document.addEventListener("htmx:beforeSwap", event => {
    const answer = event.detail.xhr, kind = answer.getResponseHeader("content-type") || "";
    if (answer.status < 400) return;
    event.detail.shouldSwap = kind.startsWith("text/html");
    if (!event.detail.shouldSwap) {
      let words = `${answer.status} ${answer.statusText}`;
      try { words = JSON.parse(answer.responseText).detail || words; } catch { /* not a problem of ours */ }
      const said = document.createElement("p");
      said.className = "refused";
      said.textContent = words;
      document.getElementById("message").replaceChildren(said);
    }
  });
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", () => ready(document));
  else ready(document);
})();
