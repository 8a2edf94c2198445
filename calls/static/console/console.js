/* Keeps an open page up to date. What the server sends are plain texts; they go into slots as text, never as markup.
   A row that came once is filled again under its id, so that hearing something twice changes nothing. */
"use strict";

const main = document.getElementById("main");
const FORMATS = {
  "day": new Intl.DateTimeFormat(undefined, { month: "short", day: "numeric", hour: "2-digit", minute: "2-digit" }),
  "day-second": new Intl.DateTimeFormat(undefined, { month: "short", day: "numeric", hour: "2-digit", minute: "2-digit", second: "2-digit" }),
  "day-of-other-year": new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" }),
  "clock": new Intl.DateTimeFormat("en-GB", { timeStyle: "medium" }),
  "clock-ms": new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit", fractionalSecondDigits: 3 }),
};
const VIEWERS_ZONE = Intl.DateTimeFormat().resolvedOptions().timeZone;
let ahead = 0; // ms by which the server's clock is ahead of ours

// --- texts into slots ---------------------------------------------------------------------------------------------

function showTime(element) {
  const at = new Date(element.dateTime);
  if (Number.isNaN(at.valueOf())) return;
  const show = element.dataset.show;
  element.textContent = FORMATS[show === "day" && at.getFullYear() !== new Date().getFullYear() ? "day-of-other-year" : show].format(at);
  element.title = `${element.dateTime.slice(0, 23).replace("T", " ")} UTC`;
}

const MARKS = new Map([...document.querySelectorAll("template[data-mark]")].map((shape) => [shape.dataset.mark, shape]));
const BETWEEN_MARKS = /(\[(?:card|e-mail|phone|left out)\])/;

// What was left out has a mark in the text; it is shown as a shape of its own.
function write(place, text) {
  const parts = text.split(BETWEEN_MARKS).filter(Boolean);
  place.replaceChildren(...parts.map((part) => MARKS.get(part)?.content.cloneNode(true) ?? part));
}

function fill(element, item) {
  for (const [name, value] of Object.entries(item.data)) element.dataset[name] = value;
  for (const slot of element.querySelectorAll("[data-slot]")) {
    const text = item.slots[slot.dataset.slot];
    if (text === undefined) continue;
    if (slot.tagName === "TIME") {
      slot.dateTime = text;
      showTime(slot);
    } else if (slot.textContent !== text && !("timer" in slot.dataset && item.data.since)) write(slot, text);
  }
}

const orderOf = (element) => element.dataset.order.split(",").map(Number);

function comesAfter(a, b) {
  for (let i = 0; i < a.length; i += 1) if (a[i] !== b[i]) return a[i] > b[i];
  return false;
}

function put(list, item) {
  let element = document.getElementById(item.id);
  if (element && element.parentElement !== list) element = void element.remove();
  if (!element) {
    const shape = document.querySelector(`template[data-for="${item.data.role === "tool" ? "tool" : list.dataset.list}"]`);
    element = shape.content.firstElementChild.cloneNode(true);
    element.id = item.id;
    element.dataset.order = item.order.join(",");
    let before = list.lastElementChild;
    while (before && comesAfter(orderOf(before), item.order)) before = before.previousElementSibling;
    list.insertBefore(element, before ? before.nextElementSibling : list.firstElementChild);
  }
  const link = element.querySelector("a[data-link]");
  if (link) link.href = item.href;
  const sound = element.querySelector("audio[data-sound]");
  if (sound && item.href && sound.getAttribute("src") !== item.href) sound.src = item.href;
  if (sound) sound.hidden = !item.href;
  fill(element, item);
}

function showPartial(events) {
  const ghost = document.querySelector("[data-partial]"); // not there for who may not read what is said
  if (!ghost) return;
  for (const { data, slots } of events) {
    if (data.kind === "transcript-partial") {
      ghost.dataset.role = data.role;
      write(ghost.firstElementChild, slots.partial);
      ghost.hidden = false;
    } else if (data.kind === "call-ended" || (data.kind === "transcript-final" && data.role === ghost.dataset.role)) ghost.hidden = true;
  }
}

function take(news) {
  if (news.now) ahead = new Date(news.now) - Date.now();
  if (!news.lists) return;
  const following = [...document.querySelectorAll("[data-follow]")].filter((box) => box.scrollHeight - box.scrollTop - box.clientHeight < 60);
  for (const [name, items] of Object.entries(news.lists)) {
    const list = document.querySelector(`[data-list="${name}"]`);
    for (const item of items) put(list, item);
    if (!news.whole.includes(name)) continue;
    const kept = new Set(items.map((item) => item.id));
    for (const row of [...list.children]) if (!kept.has(row.id)) row.remove();
  }
  for (const id of news.gone) document.getElementById(id)?.remove();
  if (news.lists.events) showPartial(news.lists.events);
  if (news.head) fill(document.querySelector("[data-head]"), news.head);
  main.dataset.after = news.after;
  main.dataset.line = news.line;
  for (const box of following) box.scrollTop = box.scrollHeight;
  tick();
}

// --- the socket: reconnects with back-off and goes on at its cursor -----------------------------------------------

const SILENT_TOO_LONG_MS = 40000; // the server says something at least every 15 s
let socket = null, tries = 0, heardAt = 0;

function say(state, words) {
  const place = document.querySelector("[data-connection]");
  if (place.dataset.state === state) return;
  place.dataset.state = state;
  place.querySelector("[data-connection-words]").textContent = words;
}

const LOG_IN_ENDED = 4401;

function askToLogIn() {
  const notice = document.querySelector("[data-log-in-ended]");
  const link = notice.querySelector("a");
  link.search = new URLSearchParams({ next: location.pathname + location.search });
  notice.hidden = false;
  link.focus();
  say("ended", "Logged out");
}

async function whatBecameOfUs() {
  const page = await fetch(location.href, { method: "HEAD", redirect: "manual", signal: AbortSignal.timeout(3000) }).catch(() => null);
  if (page?.type === "opaqueredirect") return "logged out";
  return page?.status === 403 || page?.status === 404 ? "not ours" : "";
}

function connect() {
  const address = new URL(main.dataset.socket, location.href);
  address.protocol = location.protocol === "https:" ? "wss:" : "ws:";
  const { sees, after, line } = main.dataset;
  address.search = new URLSearchParams(after ? { sees, after, line } : { sees });
  heardAt = Date.now();
  socket = new WebSocket(address);
  socket.onmessage = ({ data }) => {
    heardAt = Date.now();
    tries = 0;
    say("on", "Updating live");
    take(JSON.parse(data));
  };
  socket.onclose = async ({ code }) => {
    socket = null;
    if (code === 1000) return say("done", "Complete");
    if (code === LOG_IN_ENDED) return askToLogIn();
    if (code === 4410) return location.reload(); // we may see other things than when this page was made
    say("lost", "Connection lost, trying again");
    const became = await whatBecameOfUs();
    if (became === "logged out") return askToLogIn();
    if (became === "not ours") return location.reload();
    setTimeout(connect, Math.min(500 * 2 ** tries, 10000) * (0.75 + Math.random() / 2));
    tries += 1;
  };
}

// --- clocks, following, seeking -----------------------------------------------------------------------------------

function tick() {
  for (const timer of document.querySelectorAll("[data-timer]")) {
    const since = timer.closest("[data-since]")?.dataset.since;
    if (!since) continue;
    const s = Math.max(0, Math.floor((Date.now() + ahead - new Date(since)) / 1000));
    const pad = (n) => String(n).padStart(2, "0");
    timer.textContent = s < 3600 ? `${Math.floor(s / 60)}:${pad(s % 60)}` : `${Math.floor(s / 3600)}:${pad(Math.floor(s / 60) % 60)}:${pad(s % 60)}`;
  }
  if (socket && Date.now() - heardAt > SILENT_TOO_LONG_MS) socket.close(4000);
}

function seek(click) {
  const line = click.target.closest(".seek")?.closest("[data-ms]");
  if (!line) return;
  click.preventDefault();
  const far = (event) => Math.abs(event.dataset.ms - line.dataset.ms);
  const events = [...document.querySelectorAll("[data-list=events] > li")];
  if (!events.length) return;
  const nearest = events.reduce((best, event) => (far(event) < far(best) ? event : best));
  document.querySelector(".found")?.classList.remove("found");
  nearest.classList.add("found");
  nearest.tabIndex = -1;
  nearest.focus({ preventScroll: true });
  nearest.scrollIntoView({ block: "center" });
}

// --- recordings: when one cannot be played, the door says why in a sentence ---------------------------------------

async function sayWhySilent({ target }) {
  if (target.tagName !== "AUDIO" || !("sound" in target.dataset)) return;
  const answer = await fetch(target.src).catch(() => null);
  const isSentence = answer && !answer.ok && answer.headers.get("Content-Type").startsWith("text/plain");
  target.parentElement.querySelector(".sound-problem").textContent = isSentence ? await answer.text() : "This recording cannot be played now.";
}

// --- the search form: an address with nothing in it that nobody asked for -----------------------------------------

function tidy({ target: form }) {
  if (!("tidy" in form.dataset)) return;
  const zone = form.querySelector("[data-viewers-zone]");
  const dated = ["from", "to"].some((name) => form.elements[name].value);
  zone.value = dated ? zone.value || VIEWERS_ZONE : "";
  for (const field of form.elements) if (field.name && !field.value) field.disabled = true;
  setTimeout(() => { for (const field of form.elements) field.disabled = false; });
}

document.querySelectorAll("time[data-show]").forEach(showTime);
document.querySelector("[data-zone]").textContent = VIEWERS_ZONE;
document.cookie = `zone=${VIEWERS_ZONE}; path=/; max-age=31536000; samesite=lax${location.protocol === "https:" ? "; secure" : ""}`; // the desk's times
document.addEventListener("click", seek);
document.addEventListener("submit", tidy);
document.addEventListener("error", sayWhySilent, true);
if (document.querySelector("[data-live=yes]")) for (const box of document.querySelectorAll("[data-follow]")) box.scrollTop = box.scrollHeight;
if ("over" in main.dataset) say("done", "Complete");
else if (main.dataset.socket) {
  connect();
}
if (document.querySelector("[data-timer]")) {
  tick();
  setInterval(tick, 1000);
}
