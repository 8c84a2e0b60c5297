// Runs the gallery page: filters, search, the grid of tasks, the dialog with a task's details, and live updates.

import { ContactSheet } from "./grid.js";
import { element, foreign, mark } from "./elements.js";
import { Loupe } from "./task_dialog.js";
import { keyOf, Tasks, TroubleError } from "./tasks.js";
import * as words from "./format.js";

const REFRESH_MILLISECONDS = 10_000;
const REFRESH_WHILE_NEWS_IS_NEAR_MILLISECONDS = 2_000;
const REFRESH_AT_LEAST_MILLISECONDS = 60_000; // upper limit of the pause after repeated failures
const SEARCH_PAUSE_MILLISECONDS = 120;

const $ = (id) => document.getElementById(id);

const tasks = new Tasks();
const filter = { status: "", provider: "", words: "" };
/** Keys of new tasks that are not shown until the user requests them: inserting them would move the grid. */
const held = new Set();
const troubles = new Map();
let shownCount = 0;
let isLive = true;
let failures = 0;
let nextRefresh = null;
let loading = new AbortController();
/** Counts openings and closings of the dialog, so that an answer to an earlier request is ignored. */
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

// ------------------------------------------------------------------------------------------------ rendering

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

/** Announces a text to screen readers. While the modal dialog is open they reach only its own live region. */
function announce(text) {
  $(loupe.isOpen ? "loupe-announcements" : "announcements").textContent = text;
}

/** Shows an error of the tasks API or of the URL, or removes it if `error` is null. */
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

/** Requests a task by its id from each known provider and opens it: for ids that are not among the loaded tasks. */
async function lookUp(taskId) {
  for (const provider of filter.provider ? [filter.provider] : tasks.providers()) {
    const task = await tasks.look(provider, taskId).catch(() => null);
    if (task) {
      lookAt(words.fragment(task));
      return;
    }
  }
}

// ------------------------------------------------------------------------------------------------ live updates

function isAnybodyAiming() {
  return scrollY > 40 || $("sheet").matches(":hover") || $("sheet").querySelector(":focus-visible") !== null;
}

/** Shows whether the last request to the tasks API succeeded (`error` is null) or failed. */
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
    if (!loading.isLoading) await tasks.begin(filter, loading.signal); // continues an interrupted load
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
  $("sheet").focus({ preventScroll: true }); // the button that had the focus is hidden
}

// ------------------------------------------------------------------------------------------------ the URL

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

/** Opens a task's details as one history entry, which closing removes: Back leaves the page instead of revisiting tasks. */
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
    if (task) loupe.show(tasks.get(key)); // an unchanged task is the same object, and is not rendered again
    else showTrouble("address", new TroubleError(`There is no task ${taskId} of ${provider}.`));
  } catch (error) {
    if (mine === looks) showTrouble("address", error);
  }
}

// ------------------------------------------------------------------------------------------------ start

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
