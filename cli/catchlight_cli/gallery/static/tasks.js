// Loads tasks from the tasks API and keeps the loaded ones up to date.

import { isUnfinished, promptOf, taskPath } from "./format.js";

const PAGE_SIZE = 100;
const REQUEST_TIMEOUT_MILLISECONDS = 30_000;
// The gallery's server waits up to 310 s for PublishEvents, which retries for almost five minutes (INVOKE_CONFIG).
const ACTION_TIMEOUT_MILLISECONDS = 330_000;
// This number of tasks is loaded while the user scrolls or searches; older tasks are loaded on request.
const INITIAL_TASKS = 1000;
// Unfinished tasks that a refresh of the newest tasks does not return are requested one by one. Tasks that have been
// unfinished for a while may remain so for hours: they are requested less often, because the tasks API accepts only fifty
// requests per second.
const MAX_SINGLE_REQUESTS = 24;
const MAX_SLOW_REQUESTS = 4;
const SLOW_AFTER_MILLISECONDS = 300_000;
// The clocks of functions differ: a task may be written after another one although its time is slightly earlier.
const OVERLAP_MILLISECONDS = 60_000;
const MAX_PAGES_PER_REFRESH = 20;

/** An error with a message for the page, and the HTTP status if the gallery's server answered with an error body. */
export class GalleryError extends Error {
  constructor(message, status = null) {
    super(message);
    this.status = status;
  }
}

export function get(path, parameters = {}) {
  const query = new URLSearchParams(Object.entries(parameters).filter(([, value]) => value));
  return request("GET", query.size ? `${path}?${query}` : path, REQUEST_TIMEOUT_MILLISECONDS);
}

/** Carries out the action on a task that the path names. */
export function post(path) {
  return request("POST", path, ACTION_TIMEOUT_MILLISECONDS);
}

async function request(method, path, timeout) {
  let response;
  try {
    response = await fetch(path, { method, signal: AbortSignal.timeout(timeout) });
  } catch {
    throw new GalleryError("The gallery's server does not respond. Is `catchlight gallery` still running?");
  }
  const body = await response.json().catch(() => null);
  if (response.ok && body) return body;
  if (response.ok) throw new GalleryError("The gallery's server sent an incomplete response.");
  if (response.status === 404 && !body) throw new GalleryError("The gallery was restarted at another URL. Open the URL that the command printed last.");
  throw new GalleryError(body?.detail ?? body?.title ?? `The gallery's server returned HTTP ${response.status}.`, response.status);
}

/** Returns the key that identifies a task in this page's maps. */
export function keyOf(task) {
  return `${task.provider}#${task.taskId}`;
}

/** Returns the path of a task in the API of the gallery's server. */
export function pathOf(task) {
  return `api/tasks/${taskPath(task)}`;
}

/** Returns the later one of two ISO times in UTC; `other` may be missing. */
function later(time, other) {
  return other && other > time ? other : time;
}

/** Returns the time at which the stack first recorded a task. */
export function arrivalOf(task) {
  return task.arrivedAt ?? task.registeredAt ?? task.reportedAt ?? task.updatedAt ?? "";
}

/** Whether the task is unfinished and so recent that an update is likely soon. */
function isRecent(task) {
  return isUnfinished(task) && Date.now() - Date.parse(task.reportedAt ?? arrivalOf(task)) < SLOW_AFTER_MILLISECONDS;
}

/** Returns the time that the API sorts by, newest first: arrival, or with a status filter the last change. */
function sortTime(task, status) {
  return status ? (task.updatedAt ?? arrivalOf(task)) : arrivalOf(task);
}

/** One query of the tasks API: reads its pages, and records the times of the newest and oldest task read so far. */
class TaskFeed {
  #query;
  #cursor = null;
  #newest = null;
  #oldest = null;
  #reading = null; // promise of the page that is being read
  unreadable = new Map(); // by key of a malformed item: its malformed attributes
  positions = 0; // pages read so far × PAGE_SIZE: filters leave pages partly empty
  isComplete = false; // whether the last page has been read

  constructor(status, provider, reason, since) {
    this.since = since;
    this.#query = { status, provider, reason, since, limit: PAGE_SIZE };
  }

  /** Reads the next page of older tasks. Concurrent calls share one request, because all would use the same cursor. */
  loadOlder() {
    this.#reading ??= this.#readOlder().finally(() => (this.#reading = null));
    return this.#reading;
  }

  async #readOlder() {
    const page = await get("api/tasks", { ...this.#query, cursor: this.#cursor });
    this.positions += PAGE_SIZE;
    this.#cursor = page.cursor ?? null;
    this.isComplete = !this.#cursor;
    for (const key of page.unreadable ?? []) this.unreadable.set(key, page.malformedAttributes?.[key]);
    this.#recordTimes(page.tasks);
    return page.tasks;
  }

  /** Reads the tasks that arrived or changed since the newest one read so far. */
  async loadNewer() {
    const since = this.#newest && later(new Date(Date.parse(this.#newest) - OVERLAP_MILLISECONDS).toISOString(), this.since);
    const found = [];
    let cursor = null;
    let pages = 0;
    do {
      const page = await get("api/tasks", { ...this.#query, ...(since && { since }), cursor });
      found.push(...page.tasks);
      cursor = page.cursor;
      pages += 1;
    } while (since && cursor && pages < MAX_PAGES_PER_REFRESH);
    if (since && cursor) this.#restart();
    this.#recordTimes(found);
    return found;
  }

  /** Whether a task is within the pages read so far. Between these pages and an older task, other tasks may be missing. */
  covers(task) {
    return this.isComplete || (this.#oldest !== null && sortTime(task, this.#query.status) >= this.#oldest);
  }

  /** Restarts the feed after a refresh that could not read all new tasks: older tasks would follow a gap. */
  #restart() {
    this.#cursor = this.#oldest = null;
    this.positions = 0;
    this.isComplete = false;
  }

  #recordTimes(tasks) {
    for (const time of tasks.map((task) => sortTime(task, this.#query.status))) {
      if (this.#newest === null || time > this.#newest) this.#newest = time;
      if (this.#oldest === null || time < this.#oldest) this.#oldest = time;
    }
  }
}

/** All loaded tasks. Dispatches `change` with the keys of new tasks (`added`) and whether a refresh loaded them (`isRefresh`). */
export class Tasks extends EventTarget {
  #known = new Map();
  #feeds = new Map();
  #turns = new Map();

  get(key) {
    return this.#known.get(key);
  }

  /** Returns the tasks that match a filter, newest first. */
  select({ status, provider, hours, reason, text }) {
    const feed = this.#feed({ status, provider, hours, reason });
    const searched = text.toLowerCase();
    return [...this.#known.values()]
      .filter((task) => feed.covers(task) && (!status || task.status === status) && (!provider || task.provider === provider))
      .filter((task) => (!feed.since || sortTime(task, status) >= feed.since) && (!reason || task.failure?.reason === reason))
      .filter((task) => !searched || searchText(task).includes(searched))
      .map((task) => [sortTime(task, status), task])
      .sort(([one], [other]) => (one < other ? 1 : one > other ? -1 : 0))
      .map(([, task]) => task);
  }

  /** Returns the time from which on a filter selects tasks, or null. */
  since(filter) {
    return this.#feed(filter).since;
  }

  /** Returns how many of the latest tasks were searched for a filter. Meaningful only while older tasks are not loaded. */
  searchedCount(filter) {
    return this.#feed(filter).positions;
  }

  /** Returns the malformed items among the pages read so far: their malformed attributes by key. */
  unreadable(filter) {
    return this.#feed(filter).unreadable;
  }

  hasFailures() {
    return [...this.#known.values()].some((task) => task.failure);
  }

  providers() {
    return [...new Set([...this.#known.values()].map((task) => task.provider))].sort();
  }

  /** Whether there are older tasks that are loaded automatically while the user scrolls. */
  canLoadAutomatically(filter) {
    const feed = this.#feed(filter);
    return !feed.isComplete && feed.positions < INITIAL_TASKS;
  }

  hasOlder(filter) {
    return !this.#feed(filter).isComplete;
  }

  /**
   * Reads a filter's first page, then further ones up to a thousand tasks while `isWanted()` is true; dispatches `change`
   * after each page.
   */
  async load(filter, signal, isWanted) {
    const feed = this.#feed(filter);
    while (feed.positions < INITIAL_TASKS && !feed.isComplete && !signal.aborted && (!feed.positions || isWanted())) {
      this.#merge(await feed.loadOlder());
    }
  }

  async loadOlder(filter) {
    this.#merge(await this.#feed(filter).loadOlder());
  }

  /** Loads updates for a filter: new tasks, and the current state of unfinished ones. */
  async refresh(filter) {
    const found = await this.#feed(filter).loadNewer();
    const isFound = new Set(found.map(keyOf));
    const unfinished = [...this.#known.values()].filter((task) => isUnfinished(task) && !isFound.has(keyOf(task)));
    const requested = [
      ...this.#roundRobin("soon", unfinished.filter(isRecent), MAX_SINGLE_REQUESTS),
      ...this.#roundRobin("slow", unfinished.filter((task) => !isRecent(task)), MAX_SLOW_REQUESTS),
    ];
    const single = await Promise.all(requested.map((task) => this.#fetch(task.provider, task.taskId)));
    this.#merge([...found, ...single.filter(Boolean)], true);
  }

  /** Loads one task by its id; returns null if it does not exist. */
  async fetchTask(provider, taskId) {
    const task = await this.#fetch(provider, taskId);
    if (task) this.#merge([task]);
    return task;
  }

  hasRecentUnfinished() {
    return [...this.#known.values()].some(isRecent);
  }

  /** Returns up to `limit` of these tasks, continuing at each call where the previous one ended (round robin). */
  #roundRobin(group, tasks, limit) {
    const from = this.#turns.get(group) ?? 0;
    const start = from < tasks.length ? from : 0;
    this.#turns.set(group, start + limit);
    return tasks.slice(start, start + limit);
  }

  async #fetch(provider, taskId) {
    try {
      return await get(pathOf({ provider, taskId }));
    } catch (error) {
      if (error.status === 404) return null;
      throw error;
    }
  }

  #feed({ status, provider, hours, reason }) {
    const name = `${status}|${provider}|${hours}|${reason}`;
    if (!this.#feeds.has(name)) {
      const since = hours ? new Date(Date.now() - hours * 3_600_000).toISOString() : null;
      this.#feeds.set(name, new TaskFeed(status, provider, reason, since));
    }
    return this.#feeds.get(name);
  }

  #merge(tasks, isRefresh = false) {
    const added = [];
    let isChanged = false;
    for (const task of tasks) {
      const key = keyOf(task);
      const known = this.#known.get(key);
      if (!known) added.push(key);
      else if (JSON.stringify(known) === JSON.stringify(task)) continue;
      this.#known.set(key, task);
      isChanged = true;
    }
    if (isChanged) this.dispatchEvent(new CustomEvent("change", { detail: { added, isRefresh } }));
  }
}

const searchTexts = new WeakMap();

function searchText(task) {
  if (!searchTexts.has(task)) searchTexts.set(task, `${task.taskId}\n${promptOf(task)}`.toLowerCase());
  return searchTexts.get(task);
}
