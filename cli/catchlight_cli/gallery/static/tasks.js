// Loads tasks from the tasks API and keeps the loaded ones up to date.

import { isMoving, promptOf } from "./format.js";

const PAGE_SIZE = 100;
const ANSWER_WITHIN_MILLISECONDS = 30_000;
// More than a user looks through; older tasks are loaded on request.
const LOADED_AT_FIRST = 1000;
// Unfinished tasks that are older than the newest page are requested one by one. Those unchanged for a while may stay so
// for hours: they are requested less often, because the whole stack answers only fifty requests a second.
const ASKED_SINGLY_AT_MOST = 24;
const SLOW_ONES_ASKED_AT_MOST = 4;
const SLOW_AFTER_MILLISECONDS = 300_000;
// Writers' clocks differ: a task may appear later than another one although its time is slightly earlier.
const OVERLAP_MILLISECONDS = 60_000;
const PAGES_OF_NEWS_AT_MOST = 20;

/** An error with a message for the page, and the HTTP status if the gallery's server answered with an error body. */
export class TroubleError extends Error {
  constructor(words, status = null) {
    super(words);
    this.status = status;
  }
}

async function get(path, parameters = {}) {
  const query = new URLSearchParams(Object.entries(parameters).filter(([, value]) => value));
  let response;
  try {
    response = await fetch(query.size ? `${path}?${query}` : path, { signal: AbortSignal.timeout(ANSWER_WITHIN_MILLISECONDS) });
  } catch {
    throw new TroubleError("The gallery's server does not answer. Is `catchlight gallery` still running?");
  }
  const body = await response.json().catch(() => null);
  if (response.ok && body) return body;
  if (response.ok) throw new TroubleError("The gallery's server broke off its answer.");
  if (response.status === 404 && !body) throw new TroubleError("The gallery was started again, at another address. Open the one that it printed last.");
  throw new TroubleError(body?.detail ?? body?.title ?? `The gallery's server answered ${response.status}.`, response.status);
}

/** Returns the key that identifies a task in this page's maps. */
export function keyOf(task) {
  return `${task.provider}#${task.taskId}`;
}

/** Returns the time at which the stack first recorded a task. */
export function bornAt(task) {
  return task.arrivedAt ?? task.registeredAt ?? task.reportedAt ?? task.updatedAt ?? "";
}

/** Whether the task is unfinished and so recent that an update is likely soon. */
function movesSoon(task) {
  return isMoving(task) && Date.now() - Date.parse(task.reportedAt ?? bornAt(task)) < SLOW_AFTER_MILLISECONDS;
}

/** Returns the time that the API sorts by, newest first: arrival, or with a status filter the last change. */
function placeOf(task, status) {
  return status ? (task.updatedAt ?? bornAt(task)) : bornAt(task);
}

/** One query of the API, with the newest and oldest task read so far. */
class Feed {
  #query;
  #cursor = null;
  #newest = null;
  #oldest = null;
  places = 0; // tasks on the pages read so far, before the provider filter, which leaves some places empty
  isRead = false; // whether the last page has been read

  constructor(status, provider) {
    this.#query = { status, provider, limit: PAGE_SIZE };
  }

  /** Reads the next page of older tasks. */
  async older() {
    const page = await get("api/tasks", { ...this.#query, cursor: this.#cursor });
    this.places += PAGE_SIZE;
    this.#cursor = page.cursor ?? null;
    this.isRead = !this.#cursor;
    this.#note(page.tasks);
    return page.tasks;
  }

  /** Reads the tasks that arrived or changed since the newest one read so far. */
  async newest() {
    const since = this.#newest && new Date(Date.parse(this.#newest) - OVERLAP_MILLISECONDS).toISOString();
    const found = [];
    let cursor = null;
    let pages = 0;
    do {
      const page = await get("api/tasks", { ...this.#query, since, cursor });
      found.push(...page.tasks);
      cursor = page.cursor;
      pages += 1;
    } while (since && cursor && pages < PAGES_OF_NEWS_AT_MOST);
    if (since && cursor) this.#beginAnew();
    this.#note(found);
    return found;
  }

  /** Whether a task lies on the pages read so far: before an older task, others may be missing. */
  covers(task) {
    return this.isRead || (this.#oldest !== null && placeOf(task, this.#query.status) >= this.#oldest);
  }

  /** Restarts the feed after more arrivals than are read at once: tasks are missing between them and those read before. */
  #beginAnew() {
    this.#cursor = this.#oldest = null;
    this.places = 0;
    this.isRead = false;
  }

  #note(tasks) {
    for (const place of tasks.map((task) => placeOf(task, this.#query.status))) {
      if (this.#newest === null || place > this.#newest) this.#newest = place;
      if (this.#oldest === null || place < this.#oldest) this.#oldest = place;
    }
  }
}

/** All loaded tasks. Dispatches `change` with the keys of new tasks (`added`) and whether a refresh loaded them (`isNews`). */
export class Tasks extends EventTarget {
  #known = new Map();
  #feeds = new Map();
  #turns = new Map();

  get(key) {
    return this.#known.get(key);
  }

  get size() {
    return this.#known.size;
  }

  /** Returns the tasks that match a filter, newest first. */
  select({ status, provider, words }) {
    const feed = this.#feed(status, provider);
    const wanted = words.toLowerCase();
    return [...this.#known.values()]
      .filter((task) => feed.covers(task) && (!status || task.status === status) && (!provider || task.provider === provider))
      .filter((task) => !wanted || text(task).includes(wanted))
      .map((task) => [placeOf(task, status), task])
      .sort(([one], [other]) => (one < other ? 1 : one > other ? -1 : 0))
      .map(([, task]) => task);
  }

  /** Returns how many of the latest tasks were searched for a filter; meaningful while older ones are unread. */
  lookedThrough({ status, provider }) {
    return this.#feed(status, provider).places;
  }

  providers() {
    return [...new Set([...this.#known.values()].map((task) => task.provider))].sort();
  }

  hasOlder({ status, provider }) {
    return !this.#feed(status, provider).isRead;
  }

  /** Reads the unread pages among a filter's first thousand tasks; dispatches `change` after each page. */
  async begin({ status, provider }, signal) {
    const feed = this.#feed(status, provider);
    while (feed.places < LOADED_AT_FIRST && !feed.isRead && !signal.aborted) this.#take(await feed.older());
  }

  async older({ status, provider }) {
    this.#take(await this.#feed(status, provider).older());
  }

  /** Loads updates for a filter: new tasks, and the current state of unfinished ones. */
  async refresh({ status, provider }) {
    const found = await this.#feed(status, provider).newest();
    const isFound = new Set(found.map(keyOf));
    const moving = [...this.#known.values()].filter((task) => isMoving(task) && !isFound.has(keyOf(task)));
    const asked = [
      ...this.#inTurn("soon", moving.filter(movesSoon), ASKED_SINGLY_AT_MOST),
      ...this.#inTurn("slow", moving.filter((task) => !movesSoon(task)), SLOW_ONES_ASKED_AT_MOST),
    ];
    const single = await Promise.all(asked.map((task) => this.#ask(task.provider, task.taskId)));
    this.#take([...found, ...single.filter(Boolean)], true);
  }

  /** Loads one task by its id; returns null if it does not exist. */
  async look(provider, taskId) {
    const task = await this.#ask(provider, taskId);
    if (task) this.#take([task]);
    return task;
  }

  anythingMovesSoon() {
    return [...this.#known.values()].some(movesSoon);
  }

  /** Returns up to `atMost` of these tasks, continuing at each call where the previous one ended (round robin). */
  #inTurn(whose, tasks, atMost) {
    const from = this.#turns.get(whose) ?? 0;
    const start = from < tasks.length ? from : 0;
    this.#turns.set(whose, start + atMost);
    return tasks.slice(start, start + atMost);
  }

  async #ask(provider, taskId) {
    try {
      return await get(`api/tasks/${encodeURIComponent(provider)}/${encodeURIComponent(taskId)}`);
    } catch (error) {
      if (error.status === 404) return null;
      throw error;
    }
  }

  #feed(status, provider) {
    const name = `${status}|${provider}`;
    if (!this.#feeds.has(name)) this.#feeds.set(name, new Feed(status, provider));
    return this.#feeds.get(name);
  }

  #take(tasks, isNews = false) {
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
    if (isChanged) this.dispatchEvent(new CustomEvent("change", { detail: { added, isNews } }));
  }
}

const texts = new WeakMap();

function text(task) {
  if (!texts.has(task)) texts.set(task, `${task.taskId}\n${promptOf(task)}`.toLowerCase());
  return texts.get(task);
}
