// The tasks that this page knows of, and how it gets to know more.

import { isMoving, promptOf } from "./format.js";

const PAGE_SIZE = 100;
const ANSWER_WITHIN_MILLISECONDS = 30_000;
// As many as anybody looks through; older ones are loaded when somebody asks for them.
const LOADED_AT_FIRST = 1000;
// Tasks that move and are older than the newest page are asked for one by one. Those that have not moved for a while may
// wait for hours: they are asked for seldom, for the whole stack answers fifty questions a second.
const ASKED_SINGLY_AT_MOST = 24;
const SLOW_ONES_ASKED_AT_MOST = 4;
const SLOW_AFTER_MILLISECONDS = 300_000;
// Clocks of those who write differ: what came a little before the newest may have been seen after it.
const OVERLAP_MILLISECONDS = 60_000;
const PAGES_OF_NEWS_AT_MOST = 20;

/** What went wrong, in words for the page; the status that was answered, if the gallery understood the question. */
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

/** What makes a task itself, in this page's maps. */
export function keyOf(task) {
  return `${task.provider}#${task.taskId}`;
}

/** When the stack first heard of a task. */
export function bornAt(task) {
  return task.arrivedAt ?? task.registeredAt ?? task.reportedAt ?? task.updatedAt ?? "";
}

/** Whether news of a task may come any second. */
function movesSoon(task) {
  return isMoving(task) && Date.now() - Date.parse(task.reportedAt ?? bornAt(task)) < SLOW_AFTER_MILLISECONDS;
}

/** What the API's order goes by: the latest arrival first, of one status the latest change. */
function placeOf(task, status) {
  return status ? (task.updatedAt ?? bornAt(task)) : bornAt(task);
}

/** One query of the API and how far it has been read, back and forth. */
class Feed {
  #query;
  #cursor = null;
  #newest = null;
  #oldest = null;
  places = 0; // on the pages that were read; a filter by provider leaves some of them empty
  isRead = false; // to the end

  constructor(status, provider) {
    this.#query = { status, provider, limit: PAGE_SIZE };
  }

  /** The next page of older tasks. */
  async older() {
    const page = await get("api/tasks", { ...this.#query, cursor: this.#cursor });
    this.places += PAGE_SIZE;
    this.#cursor = page.cursor ?? null;
    this.isRead = !this.#cursor;
    this.#note(page.tasks);
    return page.tasks;
  }

  /** What has come since the newest task that was read. */
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

  /** Whether a task is on one of the pages that were read: an older one may have others missing before it. */
  covers(task) {
    return this.isRead || (this.#oldest !== null && placeOf(task, this.#query.status) >= this.#oldest);
  }

  /** More has come than is read at once: what was read before has others missing before it. */
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

/** All tasks that were loaded. Says `change` with the keys of those that are new, and whether they came by themselves. */
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

  /** Newest first: those that a filter lets through. */
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

  /** How many of the latest tasks were looked through for a filter, as long as there are older ones. */
  lookedThrough({ status, provider }) {
    return this.#feed(status, provider).places;
  }

  providers() {
    return [...new Set([...this.#known.values()].map((task) => task.provider))].sort();
  }

  hasOlder({ status, provider }) {
    return !this.#feed(status, provider).isRead;
  }

  /** Reads what of a filter's first thousand tasks has not been read; `change` is said after each page. */
  async begin({ status, provider }, signal) {
    const feed = this.#feed(status, provider);
    while (feed.places < LOADED_AT_FIRST && !feed.isRead && !signal.aborted) this.#take(await feed.older());
  }

  async older({ status, provider }) {
    this.#take(await this.#feed(status, provider).older());
  }

  /** News of what is shown: new tasks, and those that were moving. */
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

  /** One task by its id; null if there is none. */
  async look(provider, taskId) {
    const task = await this.#ask(provider, taskId);
    if (task) this.#take([task]);
    return task;
  }

  anythingMovesSoon() {
    return [...this.#known.values()].some(movesSoon);
  }

  /** Some of these, and each time others. */
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
