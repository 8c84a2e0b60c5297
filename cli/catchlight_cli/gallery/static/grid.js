// Shows the grid of tasks, one card for each, and handles its keyboard navigation.

import { element, fill, hasModifier, mark, note, placeholder } from "./elements.js";
import { arrivalOf, keyOf } from "./tasks.js";
import * as format from "./format.js";

// Failed images are loaded again with growing pauses: S3 may recover, and credentials may be renewed.
const RETRY_PAUSE_MILLISECONDS = 5_000;
const MAX_RETRY_PAUSE_MILLISECONDS = 300_000;

export class TaskGrid {
  #list;
  #cards = new Map();
  #shown = [];
  #current = null;
  #selected = new Set();
  #onSelect;

  /** `onSelect(keys)` is called when the selection changes. */
  constructor(list, onSelect) {
    this.#list = list;
    this.#onSelect = onSelect;
    list.addEventListener("keydown", (event) => this.#move(event));
    list.addEventListener("click", (event) => {
      const box = event.target.closest(".select");
      if (!box) return;
      event.preventDefault();
      event.stopImmediatePropagation();
      this.#toggle(this.#shown.find((card) => card.element === box.closest(".card")));
    });
    list.addEventListener("focusin", (event) => {
      const card = event.target.closest(".card");
      if (card) this.#makeCurrent(card);
    });
  }

  /** Shows these tasks in this order. Cards of tasks that were shown before are reused, so that no image is loaded twice. */
  show(tasks) {
    const hadFocus = this.#list.contains(document.activeElement);
    const cards = tasks.map((task) => this.#card(task));
    const kept = new Set(cards);
    for (const card of this.#shown) if (!kept.has(card)) card.element.remove();
    // Cards that stay where they are are not touched: the browser would lay out and paint a thousand for each new page.
    let next = this.#list.firstElementChild;
    for (const card of cards) {
      if (card.element === next) next = next.nextElementSibling;
      else this.#list.insertBefore(card.element, next);
    }
    this.#shown = cards;
    if (!this.#shown.includes(this.#current)) this.#makeCurrent(cards[0]?.element);
    if (hadFocus && !this.#list.contains(document.activeElement)) this.focus();
  }

  /** Ends the selection. */
  clearSelection() {
    for (const card of this.#cards.values()) card.isSelected = false;
    this.#selected.clear();
    this.#onSelect([]);
  }

  #toggle(card) {
    card.isSelected = !card.isSelected;
    if (card.isSelected) this.#selected.add(card.key);
    else this.#selected.delete(card.key);
    this.#onSelect([...this.#selected]);
  }

  /** Updates the texts that depend on the time, in visible cards only; other cards are updated once visible. */
  tick(now) {
    for (const card of this.#shown) card.tick(now);
  }

  /** Moves the focus to a task's card, else to the last focused one; returns whether there is a card to focus. */
  focus(key = null) {
    const card = (key && this.#shown.find((shown) => shown.key === key)) || this.#current;
    card?.link.focus();
    return Boolean(card);
  }

  /** Returns the keys of the tasks shown before and after a task; null where there is none. */
  neighbours(key) {
    const index = this.#shown.findIndex((card) => card.key === key);
    return index < 0 ? [null, null] : [this.#shown[index - 1]?.key ?? null, this.#shown[index + 1]?.key ?? null];
  }

  #card(task) {
    const key = keyOf(task);
    let card = this.#cards.get(key);
    if (!card) {
      card = new TaskCard(key);
      this.#cards.set(key, card);
    }
    card.show(task);
    return card;
  }

  // Roving tabindex: one card is in the tab order, the others are reached with the arrow keys.
  #makeCurrent(target) {
    const card = this.#shown.find((shown) => shown.element === target) ?? null;
    if (card === this.#current) return;
    if (this.#current) this.#current.link.tabIndex = -1;
    this.#current = card;
    if (card) card.link.tabIndex = 0;
  }

  #move(event) {
    if (hasModifier(event)) return;
    if (event.key === " " && this.#current) {
      event.preventDefault();
      this.#toggle(this.#current);
      return;
    }
    const index = this.#shown.indexOf(this.#current);
    const columns = getComputedStyle(this.#list).gridTemplateColumns.split(" ").length;
    const rows = Math.max(1, Math.floor(innerHeight / (this.#current?.element.offsetHeight || innerHeight)) - 1);
    const last = this.#shown.length - 1;
    const target = {
      ArrowLeft: index - 1,
      ArrowRight: index + 1,
      ArrowUp: index - columns,
      ArrowDown: Math.floor(index / columns) < Math.floor(last / columns) ? Math.min(index + columns, last) : index,
      PageUp: Math.max(index - rows * columns, index % columns),
      PageDown: Math.min(index + rows * columns, last),
      Home: 0,
      End: last,
    }[event.key];
    if (target === undefined) return;
    event.preventDefault();
    this.#shown[target]?.link.focus();
  }
}

class TaskCard {
  #task = null;
  #picture = element("span", { class: "picture" });
  #image = null;
  #attempts = 0;
  #retryAt = Infinity;
  #provider = element("span", { class: "provider" });
  #id = element("bdi", { class: "id" });
  #status = element("span", { class: "status" });
  #source = element("span", { class: "source" });
  #prompt = element("bdi", { class: "prompt", dir: "auto" });
  #age = element("span", { class: "age" });

  constructor(key) {
    this.key = key;
    this.link = element(
      "a",
      { tabindex: "-1" },
      element(
        "span",
        { class: "tile" },
        element("span", { class: "tile-bar" }, this.#provider, this.#id),
        this.#picture,
        element("span", { class: "tile-bar" }, this.#status, this.#source),
      ),
      element("span", { class: "select", title: "Select (space)" }),
      element("span", { class: "caption" }, this.#prompt, this.#age),
    );
    this.element = element("li", { class: "card" }, this.link);
  }

  get isSelected() {
    return this.element.classList.contains("is-selected");
  }

  set isSelected(isSelected) {
    this.element.classList.toggle("is-selected", isSelected);
    this.tick(Date.now(), true);
  }

  show(task) {
    if (task === this.#task) return;
    this.#task = task;
    const { label, mark: markId } = format.status(task.status);
    this.element.dataset.status = task.status;
    this.link.setAttribute("href", format.fragment(task));
    this.#provider.textContent = task.provider;
    this.#id.textContent = task.taskId;
    this.#status.replaceChildren(mark(markId), label);
    this.#prompt.textContent = format.promptOf(task);
    this.#renderImages(task);
    this.tick(Date.now(), true);
  }

  tick(now, isForced = false) {
    const isOnScreen = this.#age.checkVisibility?.({ contentVisibilityAuto: true }) ?? true;
    if (!isForced && !isOnScreen) return;
    const arrivedAt = Date.parse(arrivalOf(this.#task));
    this.#setText(this.#age, Number.isNaN(arrivedAt) ? "" : format.ago(now - arrivedAt));
    this.#setText(this.#source, this.#sourceAndDuration(now));
    const name = this.#name();
    if (this.link.getAttribute("aria-label") !== name) this.link.setAttribute("aria-label", name);
    if (now >= this.#retryAt) {
      this.#retryAt = Number.MAX_VALUE; // no retry until the next failure
      this.#image.setAttribute("src", this.#image.getAttribute("src"));
    }
  }

  #setText(target, text) {
    if (target.textContent !== text) target.textContent = text;
  }

  #sourceAndDuration(now) {
    const task = this.#task;
    if (task.status === "PENDING") {
      const seconds = (now - Date.parse(task.registeredAt)) / 1000;
      return seconds >= 0 ? format.duration(Math.floor(seconds)).replace(".0 s", " s") : "";
    }
    const seconds = format.secondsTaken(task);
    return [format.resolution(task), seconds === null ? null : format.duration(seconds)].filter(Boolean).join(" · ");
  }

  #renderImages(task) {
    const archived = format.archivedImages(task);
    const image = archived[0] ?? null;
    const url = image && format.thumbnailUrl(task, image);
    if (this.#image?.getAttribute("src") !== url) {
      this.#attempts = 0;
      this.#retryAt = Infinity;
      this.#image = image && this.#load(url, image);
    }
    if (!image) {
      this.#picture.replaceChildren(...placeholder(task));
      return;
    }
    const results = archived.filter((each) => each.kind === "result").length;
    fill(
      this.#picture,
      this.#retryAt !== Infinity && note("cannot be shown"),
      this.#image,
      results > 1 && element("span", { class: "count-badge" }, String(results)),
      task.status === "INCOMPLETE" && [mark("ringed", "ringed"), note(`${archived.length} of ${task.images.length}`)],
    );
  }

  /** Creates an image whose size is set before it loads, so that the layout does not shift. */
  #load(url, archived) {
    const image = element("img", { src: url, alt: "", loading: "lazy", decoding: "async", ...format.shownSize(archived) });
    image.addEventListener("load", () => {
      image.classList.add("is-loaded");
      image.previousElementSibling?.remove();
      if (image === this.#image) this.#retryAt = Infinity;
    });
    image.addEventListener("error", () => {
      if (image !== this.#image) return;
      if (!image.previousElementSibling) image.before(note("cannot be shown"));
      this.#retryAt = Date.now() + Math.min(RETRY_PAUSE_MILLISECONDS * 2 ** this.#attempts, MAX_RETRY_PAUSE_MILLISECONDS);
      this.#attempts += 1;
    });
    return image;
  }

  #name() {
    const task = this.#task;
    const { label } = format.status(task.status);
    const source = task.status === "PENDING" ? "" : this.#source.textContent; // a duration that changes every second is left out
    const images = task.images?.length ? format.count(task.images.length, "image") : "";
    const reason = ["FAILED", "INCOMPLETE", "UNCONFIRMED"].includes(task.status) ? format.reason(task) : "";
    const parts = [this.isSelected ? "Selected" : "", label, reason, task.provider, task.taskId, format.promptOf(task), images, source, this.#age.textContent];
    return parts.filter(Boolean).join(", ");
  }
}
