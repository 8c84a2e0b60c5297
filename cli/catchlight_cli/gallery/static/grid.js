// Shows the grid of tasks, one frame per task, and handles its keyboard navigation.

import { element, foreign, mark } from "./elements.js";
import { bornAt, keyOf } from "./tasks.js";
import * as words from "./format.js";

// Images that failed to load are retried with growing pauses: storage recovers, credentials are renewed.
const TRY_AGAIN_MILLISECONDS = 5_000;
const TRY_AGAIN_AT_LEAST_MILLISECONDS = 300_000; // upper limit of the pause

export class ContactSheet {
  #list;
  #frames = new Map();
  #shown = [];
  #current = null;

  constructor(list) {
    this.#list = list;
    list.addEventListener("keydown", (event) => this.#move(event));
    list.addEventListener("focusin", (event) => {
      const frame = event.target.closest(".frame");
      if (frame) this.#makeCurrent(frame);
    });
  }

  /** Shows these tasks in this order. Frames of tasks shown before are reused, so that no image is loaded twice. */
  show(tasks) {
    const hadFocus = this.#list.contains(document.activeElement);
    const frames = tasks.map((task) => this.#frame(task));
    if (frames.length !== this.#shown.length || frames.some((frame, place) => frame !== this.#shown[place])) {
      this.#list.replaceChildren(...frames.map((frame) => frame.element));
      this.#shown = frames;
    }
    if (!this.#shown.includes(this.#current)) this.#makeCurrent(frames[0]?.element);
    if (hadFocus && !this.#list.contains(document.activeElement)) this.focus();
  }

  /** Updates the texts that depend on the time, in visible frames only; other frames are updated once visible. */
  tick(now) {
    for (const frame of this.#shown) frame.tick(now);
  }

  /** Moves the focus to a task's frame, else to the last focused one; returns whether there is a frame to focus. */
  focus(key = null) {
    const frame = (key && this.#shown.find((shown) => shown.key === key)) || this.#current;
    frame?.link.focus();
    return Boolean(frame);
  }

  /** Returns the keys of the tasks shown before and after a task; null where there is none. */
  neighbours(key) {
    const place = this.#shown.findIndex((frame) => frame.key === key);
    return place < 0 ? [null, null] : [this.#shown[place - 1]?.key ?? null, this.#shown[place + 1]?.key ?? null];
  }

  #frame(task) {
    const key = keyOf(task);
    let frame = this.#frames.get(key);
    if (!frame) {
      frame = new Frame(key);
      this.#frames.set(key, frame);
    }
    frame.show(task);
    return frame;
  }

  // Roving tabindex: one frame is in the tab order, the others are reached with the arrow keys.
  #makeCurrent(target) {
    const frame = this.#shown.find((shown) => shown.element === target) ?? null;
    if (frame === this.#current) return;
    if (this.#current) this.#current.link.tabIndex = -1;
    this.#current = frame;
    if (frame) frame.link.tabIndex = 0;
  }

  #move(event) {
    if (event.altKey || event.ctrlKey || event.metaKey || event.shiftKey) return;
    const place = this.#shown.indexOf(this.#current);
    const columns = getComputedStyle(this.#list).gridTemplateColumns.split(" ").length;
    const rows = Math.max(1, Math.floor(innerHeight / (this.#current?.element.offsetHeight || innerHeight)) - 1);
    const last = this.#shown.length - 1;
    const target = {
      ArrowLeft: place - 1,
      ArrowRight: place + 1,
      ArrowUp: place - columns,
      ArrowDown: Math.floor(place / columns) < Math.floor(last / columns) ? Math.min(place + columns, last) : place,
      PageUp: Math.max(place - rows * columns, place % columns),
      PageDown: Math.min(place + rows * columns, last),
      Home: 0,
      End: last,
    }[event.key];
    if (target === undefined) return;
    event.preventDefault();
    this.#shown[target]?.link.focus();
  }
}

class Frame {
  #task = null;
  #picture = element("span", { class: "picture" });
  #image = null;
  #tries = 0;
  #nextTry = Infinity;
  #provider = element("span", { class: "provider" });
  #id = element("bdi", { class: "id" });
  #status = element("span", { class: "status" });
  #how = element("span", { class: "how" });
  #prompt = element("bdi", { class: "prompt", dir: "auto" });
  #age = element("span", { class: "age" });

  constructor(key) {
    this.key = key;
    this.link = element(
      "a",
      { tabindex: "-1" },
      element(
        "span",
        { class: "film" },
        element("span", { class: "rebate" }, this.#provider, this.#id),
        this.#picture,
        element("span", { class: "rebate" }, this.#status, this.#how),
      ),
      element("span", { class: "caption" }, this.#prompt, this.#age),
    );
    this.element = element("li", { class: "frame" }, this.link);
  }

  show(task) {
    if (task === this.#task) return;
    this.#task = task;
    const { word, mark: markId } = words.status(task.status);
    this.element.dataset.status = task.status;
    this.link.setAttribute("href", words.fragment(task));
    this.#provider.textContent = task.provider;
    this.#id.textContent = task.taskId;
    this.#status.replaceChildren(mark(markId), word);
    this.#prompt.textContent = words.promptOf(task);
    this.#expose(task);
    this.tick(Date.now(), true);
  }

  tick(now, isCertain = false) {
    const isOnScreen = this.#age.checkVisibility?.({ contentVisibilityAuto: true }) ?? true;
    if (!isCertain && !isOnScreen) return;
    const born = Date.parse(bornAt(this.#task));
    this.#say(this.#age, Number.isNaN(born) ? "" : words.ago(now - born));
    this.#say(this.#how, this.#howAndHowLong(now));
    const name = this.#name();
    if (this.link.getAttribute("aria-label") !== name) this.link.setAttribute("aria-label", name);
    if (now >= this.#nextTry) {
      this.#nextTry = Number.MAX_VALUE; // no retry until the next failure
      this.#image.setAttribute("src", this.#image.getAttribute("src"));
    }
  }

  #say(place, text) {
    if (place.textContent !== text) place.textContent = text;
  }

  #howAndHowLong(now) {
    const task = this.#task;
    if (task.status === "PENDING") {
      const waiting = (now - Date.parse(task.registeredAt)) / 1000;
      return waiting >= 0 ? words.duration(Math.floor(waiting)).replace(".0 s", " s") : "";
    }
    const seconds = words.secondsTaken(task);
    return [words.resolution(task), seconds === null ? null : words.duration(seconds)].filter(Boolean).join(" · ");
  }

  #expose(task) {
    const images = words.namedImages(task);
    const image = words.cover(images);
    const url = image && words.imageUrl(task, image.name);
    if (this.#image?.getAttribute("src") !== url) {
      this.#tries = 0;
      this.#nextTry = Infinity;
      this.#image = image && this.#load(url, image);
    }
    if (image) {
      const archived = images.filter((each) => each.state === "ARCHIVED");
      const results = archived.filter((each) => each.kind === "result").length;
      this.#picture.replaceChildren(this.#image);
      if (this.#nextTry !== Infinity) this.#picture.prepend(note("cannot be shown"));
      if (results > 1) this.#picture.append(element("span", { class: "several" }, String(results)));
      if (task.status === "INCOMPLETE") this.#picture.append(mark("ringed", "ringed"), note(`${archived.length} of ${images.length}`));
    } else if (task.status === "FAILED") {
      this.#picture.replaceChildren(mark("crossed-out", "crossed-out"), note(words.reason(task)));
    } else if (task.status === "INCOMPLETE") {
      this.#picture.replaceChildren(mark("ringed", "ringed"), note(words.reason(task)));
    } else {
      this.#picture.replaceChildren(mark(words.status(task.status).mark, "sign"));
    }
  }

  /** Creates an image whose size is set before it loads, so that the layout does not shift. */
  #load(url, { width, height }) {
    const image = element("img", { src: url, alt: "", loading: "lazy", decoding: "async", width, height });
    image.addEventListener("load", () => {
      image.classList.add("is-developed");
      image.previousElementSibling?.remove();
      if (image === this.#image) this.#nextTry = Infinity;
    });
    image.addEventListener("error", () => {
      if (image !== this.#image) return;
      if (!image.previousElementSibling) image.before(note("cannot be shown"));
      this.#nextTry = Date.now() + Math.min(TRY_AGAIN_MILLISECONDS * 2 ** this.#tries, TRY_AGAIN_AT_LEAST_MILLISECONDS);
      this.#tries += 1;
    });
    return image;
  }

  #name() {
    const task = this.#task;
    const { word } = words.status(task.status);
    const how = task.status === "PENDING" ? "" : this.#how.textContent; // not read out: it changes every second
    const images = task.images?.length ? words.count(task.images.length, "image") : "";
    const why = task.status === "FAILED" || task.status === "INCOMPLETE" ? words.reason(task) : "";
    const parts = [word, why, task.provider, task.taskId, words.promptOf(task), images, how, this.#age.textContent];
    return parts.filter(Boolean).join(", ");
  }
}

function note(text) {
  return element("span", { class: "note" }, foreign(text));
}
