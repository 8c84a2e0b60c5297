// Runs the gallery page: filters, search, the grid of tasks, the dialog with a task's details, and live updates.

import { SelectionActions } from "./actions.js";
import { TaskGrid } from "./grid.js";
import { button, element, hasModifier, isolated, mark } from "./elements.js";
import { TaskDialog } from "./task_dialog.js";
import { get, keyOf, Tasks, GalleryError } from "./tasks.js";
import * as format from "./format.js";

const REFRESH_MILLISECONDS = 10_000;
const FAST_REFRESH_MILLISECONDS = 2_000;
const MAX_REFRESH_MILLISECONDS = 60_000; // after repeated failures
const SEARCH_DELAY_MILLISECONDS = 120;
const SCREENS_AHEAD = 1.5; // older tasks are loaded when the end of the grid is this far below the screen

const $ = (id) => document.getElementById(id);

const tasks = new Tasks();
const NO_FILTER = { status: "", provider: "", hours: "", reason: "", text: "" };
const filter = { ...NO_FILTER };
/** The options of the filter by time: labels by number of hours. */
const PERIODS = new Map([["", "Any time"], ["1", "Last hour"], ["24", "Last 24 hours"], ["168", "Last 7 days"], ["720", "Last 30 days"]]);
/** Keys of new tasks that are hidden until the user requests them, because inserting them would move the grid. */
const heldKeys = new Set();
const errors = new Map();
let shownCount = 0;
let isLive = true;
let failures = 0;
let nextRefresh = null;
let loading = new AbortController();
/** Incremented whenever the dialog opens or closes, so that the response to an earlier request is ignored. */
let dialogVersion = 0;

const grid = new TaskGrid($("grid"), (keys) => selection.show(keys.map((key) => tasks.get(key)).filter(Boolean)));
const selection = new SelectionActions($("selection"), { onDone: reload, onClear: () => grid.clearSelection() });
const dialog = new TaskDialog($("task-dialog"), {
  neighbours: (key) => grid.neighbours(key),
  onMove: (key) => {
    const task = tasks.get(key);
    history.replaceState(history.state, "", format.fragment(task));
    openFromUrl();
    announce([format.status(task.status).label, task.provider, task.taskId, format.promptOf(task)].filter(Boolean).join(", "));
  },
  onAction: (task) => reload([task]),
  onClose: () => {
    dialogVersion += 1;
    const key = keyFromUrl();
    if (location.hash && history.state?.isDialogEntry) history.back();
    else if (location.hash) history.replaceState(null, "", location.pathname + location.search);
    grid.focus(key);
  },
});

/** Loads tasks again after an action on them. */
async function reload(changed) {
  await Promise.allSettled(changed.map((task) => tasks.fetchTask(task.provider, task.taskId)));
  schedule();
}

// ------------------------------------------------------------------------------------------------ rendering

function render() {
  const selected = tasks.select(filter);
  const shown = selected.filter((task) => !heldKeys.has(keyOf(task)));
  grid.show(shown);
  shownCount = shown.length;
  const hasOlder = tasks.hasOlder(filter);
  // Hidden while scrolling loads older tasks automatically: they would move the button out of view again.
  $("footer").hidden = !hasOlder || loading.isLoading || (!failures && tasks.canLoadAutomatically(filter));
  $("count").textContent = shown.length ? `${hasOlder ? "The latest " : ""}${format.count(shown.length, "task")}` : "";
  showUnreadable();
  showEmpty(shown.length === 0 && !loading.isLoading && !errors.has("tasks API"));
  showNewTasks(selected.length - shown.length);
  showProviders();
  showReasons();
  const open = dialog.isOpen && tasks.get(dialog.key);
  if (open) dialog.show(open);
  dialog.refreshNeighbours();
}

function showEmpty(isEmpty) {
  $("empty").hidden = !isEmpty;
  if (!isEmpty) return;
  const isFiltered = Object.values(filter).some(Boolean);
  $("empty").replaceChildren(
    mark("mark-brand", "large mark"),
    element("p", {}, isFiltered ? noMatchText() : "No tasks yet."),
    isFiltered ? button({}, () => setFilter(NO_FILTER), "Show all tasks") : element("p", { class: "hint" }, "Submit one: ", element("code", {}, "catchlight submit --help")),
  );
}

function noMatchText() {
  return tasks.hasOlder(filter) ? `None of the latest ${format.count(tasks.searchedCount(filter), "task")} matches.` : "No task matches.";
}

/** Lists the malformed items of the table. The stack cannot read them, so the grid does not contain them. */
function showUnreadable() {
  const items = [...tasks.unreadable(filter)];
  $("unreadable").hidden = items.length === 0;
  if ($("unreadable").dataset.count === String(items.length)) return;
  $("unreadable").dataset.count = items.length;
  $("unreadable").replaceChildren(
    element("strong", {}, `${format.count(items.length, "item")} of the table cannot be read: `),
    ...items.flatMap(([key, attributes], index) => [
      index ? ", " : "",
      element("code", {}, isolated(key.replace("#", "/"))),
      attributes ? isolated(` (${attributes})`) : "",
    ]),
    ". Correct them in the table.",
  );
}

function showNewTasks(heldCount) {
  const text = format.count(heldCount, "new task");
  if ($("new-tasks").textContent !== text) $("new-tasks").textContent = text;
  $("new-tasks").hidden = heldCount === 0;
}

function showProviders() {
  addOptions($("provider"), [...tasks.providers(), filter.provider], (provider) => provider);
  $("provider").value = filter.provider;
}

function showReasons() {
  if (filter.reason || tasks.hasFailures()) $("reason").hidden = false;
  $("reason").value = filter.reason;
}

/** Adds an option to a select element for each value that has none. */
function addOptions(select, values, label) {
  const known = new Set([...select.options].map((option) => option.value));
  for (const value of new Set(values)) {
    if (!known.has(value)) select.append(element("option", { value }, label(value)));
  }
}

/** Announces a text to screen readers. While the modal dialog is open, they read only the dialog's own live region. */
function announce(text) {
  $(dialog.isOpen ? "dialog-announcements" : "announcements").textContent = text;
}

/** Shows an error of the tasks API or of the URL, or removes it if `error` is null. */
function showError(source, error) {
  if (error && !(error instanceof GalleryError)) console.error(error);
  const message = error instanceof GalleryError ? error.message : "An error occurred in this page; see the browser's console.";
  if (error) errors.set(source, message);
  else errors.delete(source);
  const [first = ""] = errors.values();
  if ($("error").textContent === first) return;
  $("error").hidden = !first;
  $("error").replaceChildren(isolated(first));
  dialog.showError(first);
  if (first) announce(first);
}

// ------------------------------------------------------------------------------------------------ filters

function setFilter(changes) {
  Object.assign(filter, changes);
  heldKeys.clear();
  const query = new URLSearchParams(Object.entries({ ...filter, text: "", q: filter.text }).filter(([, value]) => value));
  history.replaceState(history.state, "", `${location.pathname}${query.size ? `?${query}` : ""}${location.hash}`);
  for (const input of document.querySelectorAll("[name=status]")) input.checked = input.value === filter.status;
  if ($("search").value !== filter.text) $("search").value = filter.text;
  $("hours").value = filter.hours;
  if ("hours" in changes) showCounts();
  load();
}

/** Whether the user has scrolled near the end of the loaded tasks. */
function isEndNear() {
  return $("grid").getBoundingClientRect().bottom < (1 + SCREENS_AHEAD) * innerHeight;
}

/** Loads older tasks when the user has scrolled near the end of the loaded ones. After a failure, `refresh` continues, with pauses. */
function loadNearEnd() {
  if (!failures && !loading.isLoading && isEndNear() && tasks.canLoadAutomatically(filter)) load();
}

async function load() {
  loading.abort();
  const current = (loading = new AbortController());
  current.isLoading = true;
  $("grid").setAttribute("aria-busy", "true");
  render();
  try {
    await tasks.load(filter, current.signal, isEndNear);
    if (!current.signal.aborted) showState(null);
  } catch (error) {
    if (!current.signal.aborted) showState(error);
  }
  if (current.signal.aborted) return;
  current.isLoading = false;
  $("grid").setAttribute("aria-busy", "false");
  render();
  loadNearEnd(); // the user may have scrolled meanwhile
  if (!errors.has("tasks API")) announce(`${format.count(shownCount, "task")} shown`);
}

function makeStatusFilter() {
  const choices = [["", "All", null], ...format.STATUS_NAMES.map((name) => [name, format.status(name).label, format.status(name).mark])];
  $("statuses").append(
    ...choices.map(([value, label, markId]) =>
      element(
        "label",
        { "data-status": value },
        element("input", { type: "radio", name: "status", value, checked: value === filter.status }),
        element("span", {}, markId && mark(markId), label),
        element("small", { class: "status-count" }),
      ),
    ),
  );
  const hours = element("select", { id: "hours", "aria-label": "Time" }, [...PERIODS].map(([value, label]) => element("option", { value }, label)));
  const reason = element("select", { id: "reason", "aria-label": "Reason", hidden: true }, element("option", { value: "" }, "Any reason"));
  addOptions(reason, format.FAILURE_REASONS, (name) => format.failureReason({ reason: name }));
  $("statuses").append(hours, reason);
  hours.value = filter.hours;
  $("statuses").addEventListener("change", ({ target }) => setFilter({ [target.name || target.id]: target.value }));
}

/** Shows the number of tasks of each status, if the gallery's server counts them. */
async function showCounts() {
  const { hours } = filter;
  const { counts } = await get("api/counts", { since: tasks.since(filter) }).catch(() => ({}));
  if (hours !== filter.hours) return;
  for (const label of document.querySelectorAll(".statuses [data-status]")) {
    const { status } = label.dataset;
    const total = counts && Object.values(counts).reduce((one, other) => one + other, 0);
    const count = status ? counts?.[status] : total;
    label.querySelector(".status-count").textContent = Number.isFinite(count) ? format.number(count) : "";
    label.title = hours && status && counts ? "Changed in this period" : "";
  }
}

/** Requests a task that is not loaded by its id, with each known provider, and opens it. */
async function searchById(taskId) {
  for (const provider of filter.provider ? [filter.provider] : tasks.providers()) {
    const task = await tasks.fetchTask(provider, taskId).catch(() => null);
    if (task) {
      openTask(format.fragment(task));
      return;
    }
  }
}

// ------------------------------------------------------------------------------------------------ live updates

function isGridInUse() {
  return scrollY > 40 || $("grid").matches(":hover") || $("grid").querySelector(":focus-visible") !== null;
}

/** Shows whether the last request to the tasks API succeeded (`error` is null) or failed. */
function showState(error) {
  failures = error ? failures + 1 : 0;
  showError("tasks API", error);
  showLive();
}

function showLive() {
  const state = !isLive ? "paused" : failures ? "error" : "live";
  $("live").dataset.state = state;
  $("live").setAttribute("aria-pressed", String(isLive));
  $("live-label").textContent = { live: "Live", paused: "Paused", error: "Retrying" }[state];
}

function schedule() {
  clearTimeout(nextRefresh);
  if (!isLive || document.hidden) return;
  const pause = tasks.hasRecentUnfinished() || failures ? FAST_REFRESH_MILLISECONDS : REFRESH_MILLISECONDS;
  nextRefresh = setTimeout(refresh, Math.min(pause * 2 ** failures, MAX_REFRESH_MILLISECONDS));
}

async function refresh() {
  clearTimeout(nextRefresh);
  const hadFailed = failures > 0;
  try {
    if (!loading.isLoading) await tasks.load(filter, loading.signal, isEndNear); // continues an interrupted load
    await tasks.refresh(filter);
    showState(null);
  } catch (error) {
    showState(error);
  }
  if (hadFailed) render();
  schedule();
}

tasks.addEventListener("change", ({ detail: { added, isRefresh } }) => {
  if (isRefresh && added.length && shownCount && isGridInUse()) {
    added.filter((key) => key !== keyFromUrl()).forEach((key) => heldKeys.add(key));
    announce(format.count(heldKeys.size, "new task"));
  }
  render();
});

function showHeldTasks() {
  heldKeys.clear();
  render();
  scrollTo({ top: 0 });
  $("grid").focus({ preventScroll: true }); // the button that had the focus is hidden
}

// ------------------------------------------------------------------------------------------------ the URL

function keyFromUrl() {
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

/** Opens a task's details as one history entry. Closing removes the entry, so that Back does not show closed tasks again. */
function openTask(fragment) {
  history.pushState({ isDialogEntry: true }, "", fragment);
  openFromUrl();
}

async function openFromUrl() {
  const key = keyFromUrl();
  const current = (dialogVersion += 1);
  showError("url", null);
  if (!key) {
    if (dialog.isOpen) dialog.close();
    return;
  }
  const known = tasks.get(key);
  if (known) dialog.show(known);
  const [provider, taskId] = location.hash.slice(1).split("/").map(decode);
  try {
    const task = await tasks.fetchTask(provider, taskId);
    if (current !== dialogVersion) return;
    if (task) dialog.show(tasks.get(key)); // an unchanged task is the same object, and is not rendered again
    else showError("url", new GalleryError(`There is no task ${taskId} of ${provider}.`));
  } catch (error) {
    if (current === dialogVersion) showError("url", error);
  }
}

// ------------------------------------------------------------------------------------------------ start

function listen() {
  let pause = null;
  $("search").addEventListener("input", () => {
    clearTimeout(pause);
    pause = setTimeout(() => setFilter({ text: $("search").value.trim() }), SEARCH_DELAY_MILLISECONDS);
  });
  document.querySelector(".search").addEventListener("submit", (event) => {
    event.preventDefault();
    clearTimeout(pause);
    setFilter({ text: $("search").value.trim() });
    if (!grid.focus() && filter.text) searchById(filter.text);
  });
  $("provider").addEventListener("change", (event) => setFilter({ provider: event.target.value }));
  $("new-tasks").addEventListener("click", showHeldTasks);
  addEventListener("scroll", loadNearEnd, { passive: true });
  addEventListener("resize", loadNearEnd);
  $("older").addEventListener("click", async () => {
    await tasks.loadOlder(filter).catch((error) => showError("tasks API", error));
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
    if (event.key !== "/" || isTyping || dialog.isOpen || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    $("search").select();
  });
  document.addEventListener("visibilitychange", () => (document.hidden ? clearTimeout(nextRefresh) : isLive && refresh()));
  addEventListener("hashchange", openFromUrl);
  $("grid").addEventListener("click", (event) => {
    const link = event.target.closest("a");
    if (!link || hasModifier(event)) return;
    event.preventDefault();
    openTask(link.getAttribute("href"));
  });
  setInterval(() => !document.hidden && grid.tick(Date.now()), 1000);
}

const given = new URLSearchParams(location.search);
for (const name of ["status", "provider", "hours", "reason"]) filter[name] = given.get(name) ?? "";
filter.text = given.get("q") ?? "";
if (!PERIODS.has(filter.hours)) filter.hours = "";
$("search").value = filter.text;
makeStatusFilter();
listen();
showLive();
openFromUrl();
showCounts();
await load();
schedule();
