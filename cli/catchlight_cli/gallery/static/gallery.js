// The page: filters, search, the contact sheet, the loupe, and the news that keeps coming.

import { ContactSheet } from "./grid.js";
import { element, foreign, mark } from "./elements.js";
import { Loupe } from "./task_dialog.js";
import { keyOf, Tasks, TroubleError } from "./tasks.js";
import * as words from "./format.js";

const REFRESH_MILLISECONDS = 10_000;
const REFRESH_WHILE_NEWS_IS_NEAR_MILLISECONDS = 2_000;
const REFRESH_AT_LEAST_MILLISECONDS = 60_000; // however often it failed
const SEARCH_PAUSE_MILLISECONDS = 120;

const $ = (id) => document.getElementById(id);

const tasks = new Tasks();
const filter = { status: "", provider: "", words: "" };
/** Keys of new tasks that wait for somebody to want them: they would move what is being looked at. */
const held = new Set();
const troubles = new Map();
let shownCount = 0;
let isLive = true;
let failures = 0;
let nextRefresh = null;
let loading = new AbortController();
/** Counts what was looked at and closed: an answer that comes after that is about what was before. */
let looks = 0;

const sheet = new ContactSheet($("sheet"));
const loupe = new Loupe($("loupe"), {
  neighbours: (key) => sheet.neighbours(key),
  onMove: (key) => {
    const task = tasks.get(key);
    history.replaceState(history.state, "", words.fragment(task));
    openFromAddress();
    announce([words.status(task.status).word, task.provider, task.taskId, words.promptOf(task)].filter(Boolean).join(", "));
  },
  onClose: () => {
    looks += 1;
    const key = keyFromAddress();
    if (location.hash && history.state?.isAboveTheSheet) history.back();
    else if (location.hash) history.replaceState(null, "", location.pathname + location.search);
    sheet.focus(key);
  },
});

// ------------------------------------------------------------------------------------------------ what is shown

function render() {
  const selected = tasks.select(filter);
  const shown = selected.filter((task) => !held.has(keyOf(task)));
  sheet.show(shown);
  shownCount = shown.length;
  const hasOlder = tasks.hasOlder(filter);
  $("foot").hidden = !hasOlder || loading.isLoading;
  $("count").textContent = shown.length ? `${hasOlder ? "The latest " : ""}${words.count(shown.length, "task")}` : "";
  showEmpty(shown.length === 0 && !loading.isLoading && !troubles.has("tasks API"));
  showNews(selected.length - shown.length);
  showProviders();
  const open = loupe.isOpen && tasks.get(loupe.key);
  if (open) loupe.show(open);
  loupe.refreshNeighbours();
}

function showEmpty(isEmpty) {
  $("empty").hidden = !isEmpty;
  if (!isEmpty) return;
  const isFiltered = filter.status || filter.provider || filter.words;
  $("empty").replaceChildren(
    mark("mark-brand", "large mark"),
    element("p", {}, emptyWords()),
    isFiltered ? clearButton() : element("p", { class: "hint" }, "Submit one: ", element("code", {}, "catchlight submit --help")),
  );
}

function emptyWords() {
  if (!filter.status && !filter.provider && !filter.words) return "No tasks yet.";
  return tasks.hasOlder(filter) ? `None of the latest ${words.count(tasks.lookedThrough(filter), "task")} is like that.` : "No task is like that.";
}

function clearButton() {
  const button = element("button", { type: "button" }, "Show all tasks");
  button.addEventListener("click", () => setFilter({ status: "", provider: "", words: "" }));
  return button;
}

function showNews(waiting) {
  const button = $("news");
  const text = words.count(waiting, "new task");
  if (button.textContent !== text) button.textContent = text;
  button.hidden = waiting === 0;
}

function showProviders() {
  const select = $("provider");
  const known = new Set([...select.options].map((option) => option.value));
  for (const provider of new Set([...tasks.providers(), filter.provider])) {
    if (!known.has(provider)) select.append(element("option", { value: provider }, provider));
  }
  select.value = filter.provider;
}

/** While a task is looked at, all but its dialog is out of reach, for voices as well. */
function announce(text) {
  $(loupe.isOpen ? "loupe-announcements" : "announcements").textContent = text;
}

/** What is wrong with the tasks API, or with the address, until it is right again. */
function showTrouble(what, error) {
  if (error && !(error instanceof TroubleError)) console.error(error);
  const words = error instanceof TroubleError ? error.message : "Something went wrong in this page; the browser's console says what.";
  if (error) troubles.set(what, words);
  else troubles.delete(what);
  const [first = ""] = troubles.values();
  if ($("trouble").textContent === first) return;
  for (const place of [$("trouble"), $("loupe-trouble")]) {
    place.hidden = !first;
    place.replaceChildren(foreign(first));
  }
  if (first) announce(first);
}

// ------------------------------------------------------------------------------------------------ filters

function setFilter(changes) {
  Object.assign(filter, changes);
  held.clear();
  const query = new URLSearchParams(Object.entries({ status: filter.status, provider: filter.provider, q: filter.words }).filter(([, value]) => value));
  history.replaceState(history.state, "", `${location.pathname}${query.size ? `?${query}` : ""}${location.hash}`);
  for (const input of document.querySelectorAll("[name=status]")) input.checked = input.value === filter.status;
  if ($("search").value !== filter.words) $("search").value = filter.words;
  load();
}

async function load() {
  loading.abort();
  const mine = (loading = new AbortController());
  mine.isLoading = true;
  $("sheet").setAttribute("aria-busy", "true");
  render();
  try {
    await tasks.begin(filter, mine.signal);
    if (!mine.signal.aborted) showState(null);
  } catch (error) {
    if (!mine.signal.aborted) showState(error);
  }
  if (mine.signal.aborted) return;
  mine.isLoading = false;
  $("sheet").setAttribute("aria-busy", "false");
  render();
  if (!troubles.has("tasks API")) announce(`${words.count(shownCount, "task")} shown`);
}

function makeStatusFilter() {
  const choices = [["", "All", null], ...words.STATUS_NAMES.map((name) => [name, words.status(name).word, words.status(name).mark])];
  $("statuses").append(
    ...choices.map(([value, word, markId]) =>
      element(
        "label",
        { "data-status": value },
        element("input", { type: "radio", name: "status", value, checked: value === filter.status }),
        element("span", {}, markId && mark(markId), word),
      ),
    ),
  );
  $("statuses").addEventListener("change", (event) => setFilter({ status: event.target.value }));
}

/** Searches in what is loaded; an id that is not, is asked for. */
async function lookUp(taskId) {
  for (const provider of filter.provider ? [filter.provider] : tasks.providers()) {
    const task = await tasks.look(provider, taskId).catch(() => null);
    if (task) {
      lookAt(words.fragment(task));
      return;
    }
  }
}

// ------------------------------------------------------------------------------------------------ news

function isAnybodyAiming() {
  return scrollY > 40 || $("sheet").matches(":hover") || $("sheet").querySelector(":focus-visible") !== null;
}

/** Whether the tasks API answers, as it did just now; null is no error. */
function showState(error) {
  failures = error ? failures + 1 : 0;
  showTrouble("tasks API", error);
  showLive();
}

function showLive() {
  const state = !isLive ? "paused" : failures ? "trouble" : "live";
  $("live").dataset.state = state;
  $("live").setAttribute("aria-pressed", String(isLive));
  $("live-words").textContent = { live: "Live", paused: "Paused", trouble: "Trying" }[state];
}

function schedule() {
  clearTimeout(nextRefresh);
  if (!isLive || document.hidden) return;
  const pause = tasks.anythingMovesSoon() || failures ? REFRESH_WHILE_NEWS_IS_NEAR_MILLISECONDS : REFRESH_MILLISECONDS;
  nextRefresh = setTimeout(refresh, Math.min(pause * 2 ** failures, REFRESH_AT_LEAST_MILLISECONDS));
}

async function refresh() {
  clearTimeout(nextRefresh);
  const hadFailed = failures > 0;
  try {
    if (!loading.isLoading) await tasks.begin(filter, loading.signal); // what was broken off goes on
    await tasks.refresh(filter);
    showState(null);
  } catch (error) {
    showState(error);
  }
  if (hadFailed) render();
  schedule();
}

tasks.addEventListener("change", ({ detail: { added, isNews } }) => {
  if (isNews && added.length && shownCount && isAnybodyAiming()) {
    added.filter((key) => key !== keyFromAddress()).forEach((key) => held.add(key));
    announce(words.count(held.size, "new task"));
  }
  render();
});

function release() {
  held.clear();
  render();
  scrollTo({ top: 0 });
  $("sheet").focus({ preventScroll: true }); // the button that had it is gone
}

// ------------------------------------------------------------------------------------------------ the address

function keyFromAddress() {
  const [provider, taskId] = location.hash.slice(1).split("/").map(decode);
  return provider && taskId ? `${provider}#${taskId}` : null;
}

function decode(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return "";
  }
}

/** Opens a task's detail as one step, which closing it takes back: the way back leads out of the page, not through all that was seen. */
function lookAt(fragment) {
  history.pushState({ isAboveTheSheet: true }, "", fragment);
  openFromAddress();
}

async function openFromAddress() {
  const key = keyFromAddress();
  const mine = (looks += 1);
  showTrouble("address", null);
  if (!key) {
    if (loupe.isOpen) loupe.close();
    return;
  }
  const known = tasks.get(key);
  if (known) loupe.show(known);
  const [provider, taskId] = location.hash.slice(1).split("/").map(decode);
  try {
    const task = await tasks.look(provider, taskId);
    if (mine !== looks) return;
    if (task) loupe.show(tasks.get(key)); // the one that it shows already, if nothing has changed
    else showTrouble("address", new TroubleError(`There is no task ${taskId} of ${provider}.`));
  } catch (error) {
    if (mine === looks) showTrouble("address", error);
  }
}

// ------------------------------------------------------------------------------------------------ beginning

function listen() {
  let pause = null;
  $("search").addEventListener("input", () => {
    clearTimeout(pause);
    pause = setTimeout(() => setFilter({ words: $("search").value.trim() }), SEARCH_PAUSE_MILLISECONDS);
  });
  document.querySelector(".search").addEventListener("submit", (event) => {
    event.preventDefault();
    clearTimeout(pause);
    setFilter({ words: $("search").value.trim() });
    if (!sheet.focus() && filter.words) lookUp(filter.words);
  });
  $("provider").addEventListener("change", (event) => setFilter({ provider: event.target.value }));
  $("news").addEventListener("click", release);
  $("older").addEventListener("click", async () => {
    await tasks.older(filter).catch((error) => showTrouble("tasks API", error));
    render();
  });
  $("live").addEventListener("click", () => {
    isLive = !isLive;
    showLive();
    if (isLive) refresh();
    else clearTimeout(nextRefresh);
  });
  document.addEventListener("keydown", (event) => {
    const isTyping = event.target.closest("input:not([type=radio]), select, textarea");
    if (event.key !== "/" || isTyping || loupe.isOpen || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    $("search").select();
  });
  document.addEventListener("visibilitychange", () => (document.hidden ? clearTimeout(nextRefresh) : isLive && refresh()));
  addEventListener("hashchange", openFromAddress);
  $("sheet").addEventListener("click", (event) => {
    const link = event.target.closest("a");
    if (!link || event.altKey || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    lookAt(link.getAttribute("href"));
  });
  setInterval(() => !document.hidden && sheet.tick(Date.now()), 1000);
}

const given = new URLSearchParams(location.search);
Object.assign(filter, { status: given.get("status") ?? "", provider: given.get("provider") ?? "", words: given.get("q") ?? "" });
$("search").value = filter.words;
makeStatusFilter();
listen();
showLive();
openFromAddress();
await load();
schedule();
