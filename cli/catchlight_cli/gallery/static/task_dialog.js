// Shows one task in a dialog: its images, their metadata, its request and its history.

import { element, foreign, mark } from "./elements.js";
import { keyOf } from "./tasks.js";
import * as words from "./format.js";

export class Loupe {
  #dialog;
  #task = null;
  #chosen = null; // name of the image that the user selected, if any
  #stage = element("div", { class: "stage" });
  #strip = element("div", { class: "strip", role: "group", "aria-label": "Images of this task" });
  #title = element("h2", { id: "loupe-title", class: "loupe-title" });
  #facts = element("div", { class: "facts" });
  #paper;
  #previous;
  #next;

  /** `neighbours(key)` returns the previous and the next key; `onMove(key)` shows one of them, `onClose()` is called on closing. */
  constructor(dialog, { neighbours, onMove, onClose }) {
    this.#dialog = dialog;
    this.neighbours = neighbours;
    this.onMove = onMove;
    this.onClose = onClose;
    this.#previous = this.#button("icon-previous", "Newer task", () => this.#go(0));
    this.#next = this.#button("icon-next", "Older task", () => this.#go(1));
    this.#paper = element(
      "div",
      { class: "paper", tabindex: "0", role: "group", "aria-labelledby": "loupe-title" },
      element(
        "div",
        { class: "loupe-bar" },
        this.#title,
        element("div", { class: "loupe-buttons" }, this.#previous, this.#next, this.#button("icon-close", "Close", () => dialog.close())),
      ),
      this.#facts,
    );
    dialog.append(element("div", { class: "light" }, this.#stage, this.#strip), this.#paper);
    // The close event is dispatched asynchronously: another task may have been opened meanwhile.
    dialog.addEventListener("close", () => this.#task && !this.isOpen && this.#leave());
    dialog.addEventListener("keydown", (event) => {
      if (event.altKey || event.ctrlKey || event.metaKey || event.shiftKey) return;
      if (event.key === "ArrowLeft") this.#go(0);
      else if (event.key === "ArrowRight") this.#go(1);
      else return;
      event.preventDefault();
    });
    dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
  }

  get isOpen() {
    return this.#dialog.open;
  }

  /** Key of the shown task, or null. */
  get key() {
    return this.#task && keyOf(this.#task);
  }

  close() {
    this.#dialog.close();
    this.#leave();
  }

  #leave() {
    this.#task = null;
    this.onClose();
  }

  /** Opens a task, or updates the task that is already shown. */
  show(task) {
    if (task === this.#task && this.isOpen) return;
    if (this.key !== keyOf(task)) this.#chosen = null;
    this.#task = task;
    const { word, mark: markId, meaning } = words.status(task.status);
    this.#dialog.dataset.status = task.status;
    this.#title.replaceChildren(
      element("span", { class: "status" }, mark(markId), word),
      element("span", { class: "title-id" }, foreign(task.taskId)),
    );
    const images = words.namedImages(task);
    const hadFocus = this.#facts.contains(document.activeElement);
    this.#facts.replaceChildren(
      element("p", { class: "meaning" }, meaning),
      ...asked(task),
      ...failed(task),
      section("How it went", history(task)),
      ...images.map((image) => section(`Image ${image.name}`, imageFacts(task, image))),
      ...contradictions(task),
    );
    if (hadFocus) this.#keepFocus();
    this.#expose(images);
    this.refreshNeighbours();
    if (!this.isOpen) {
      this.#dialog.showModal();
      this.#paper.scrollTop = 0;
      this.#keepFocus();
    }
  }

  refreshNeighbours() {
    if (!this.#task) return;
    const [previous, next] = this.neighbours(this.key);
    for (const [button, key] of [[this.#previous, previous], [this.#next, next]]) {
      if (!key && document.activeElement === button) this.#keepFocus();
      button.disabled = !key;
    }
  }

  /** Moves the focus into the dialog, which handles the keys, after the focused element was removed or disabled. */
  #keepFocus() {
    this.#paper.focus({ preventScroll: true });
  }

  #go(direction) {
    const key = this.#task && this.neighbours(this.key)[direction];
    if (key) this.onMove(key);
  }

  #button(icon, label, action) {
    const button = element("button", { type: "button", class: "icon", "aria-label": label, title: label }, mark(icon));
    button.addEventListener("click", action);
    return button;
  }

  #expose(images) {
    const archived = images.filter((image) => image.state === "ARCHIVED");
    const shown = archived.find((image) => image.name === this.#chosen) ?? words.cover(images);
    if (shown) this.#put(shown);
    else this.#stage.replaceChildren(...emptyStage(this.#task));
    this.#strip.hidden = archived.length < 2;
    const hadFocus = this.#strip.contains(document.activeElement) ? shown?.name : null;
    this.#strip.replaceChildren(
      ...archived.map((image) => {
        const { width, height } = image;
        const button = element(
          "button",
          { type: "button", "aria-pressed": String(image === shown), "aria-label": image.name },
          element("img", { src: words.imageUrl(this.#task, image.name), alt: "", decoding: "async", width, height }),
          archived.filter((other) => other.kind === image.kind).length > 1 ? image.name : image.kind,
        );
        button.addEventListener("click", () => {
          this.#chosen = image.name;
          this.#expose(images);
        });
        if (image.name === hadFocus) queueMicrotask(() => button.focus());
        return button;
      }),
    );
  }

  #put(image) {
    const url = words.imageUrl(this.#task, image.name);
    const old = this.#stage.querySelector("img");
    if (old?.getAttribute("src") === url) return;
    const { width, height } = image;
    const prompt = words.promptOf(this.#task);
    const alt = `${image.name} of ${this.#task.taskId}${prompt ? `: ${prompt}` : ""}`;
    const shown = element("img", { src: url, alt, decoding: "async", width, height });
    shown.addEventListener("error", () => shown.replaceWith(element("p", { class: "note" }, "This image cannot be shown.")), { once: true });
    this.#stage.replaceChildren(shown);
  }
}

function emptyStage(task) {
  const { mark: markId, word } = words.status(task.status);
  const drawn = { FAILED: "crossed-out", INCOMPLETE: "ringed" }[task.status];
  if (drawn) return [mark(drawn, drawn), element("p", { class: "note" }, foreign(words.reason(task) || word))];
  return [mark(markId, words.isMoving(task) ? "sign latent" : "sign")];
}

function section(title, ...content) {
  return element("section", {}, element("h3", {}, title), ...content);
}

function pairs(entries) {
  return element(
    "dl",
    {},
    entries.filter(([, value]) => value !== null && value !== undefined && value !== "").flatMap(([name, value]) => [element("dt", {}, name), element("dd", {}, value)]),
  );
}

function asked(task) {
  const prompt = words.promptOf(task);
  const others = Object.entries(task.request ?? {}).filter(([name, value]) => (name !== "prompt" || !prompt) && value !== null);
  return [
    prompt ? element("blockquote", { class: "asked", dir: "auto" }, prompt) : null,
    prompt ? element("p", { class: "copy-prompt" }, copyButton(prompt, "prompt", "Copy the prompt")) : null,
    pairs([
      ["Provider", foreign(task.provider)],
      ["Task", copyable(task.taskId, "task id")],
      ["Idempotency key", task.idempotencyKey && copyable(task.idempotencyKey, "idempotency key")],
      ...others.map(([name, value]) => [words.sentence(name), foreign(typeof value === "object" ? JSON.stringify(value) : String(value))]),
    ]),
  ].filter(Boolean);
}

function failed(task) {
  if (!task.failure) return [];
  const { code, message } = task.failure;
  return [element("p", { class: "failure" }, element("strong", {}, words.failureReason(task.failure)), code ? ` (${code})` : "", message ? ": " : "", message ? foreign(message) : "")];
}

/** Lists the task's events in order of time, each with the time since the first event. */
function history(task) {
  const events = [
    [task.registeredAt, task.idempotencyKey ? "Submitted and registered" : "Registered"],
    [task.reportedAt, news(task)],
    [task.confirmedAt, "Confirmed by the service itself"],
    ...(task.conflicts ?? []).map((conflict) => [conflict.reportedAt, `A ${conflict.reportedBy} claimed ${conflict.status}: not applied`, "conflict"]),
    [task.archivedAt, task.status === "INCOMPLETE" ? "What could be had is archived" : "All images archived"],
  ]
    .filter(([at]) => at)
    .sort(([one], [other]) => Date.parse(one) - Date.parse(other));
  if (!task.registeredAt) events.unshift([null, "Nobody registered it: its callback came all the same"]);
  const first = events.find(([at]) => at)?.[0];
  return element(
    "ol",
    { class: "history" },
    events.map(([at, what, kind]) => {
      const since = at && at !== first ? words.secondsBetween(first, at) : null;
      return element(
        "li",
        { class: kind },
        element("span", { class: "what" }, what),
        at ? element("time", { datetime: at }, words.moment(at), since === null ? "" : element("b", {}, ` +${words.duration(since)}`)) : null,
      );
    }),
  );
}

function news(task) {
  const said = task.failure ? "Failure" : "Result";
  if (task.reportedBy === "poll") return task.status === "TIMED_OUT" ? "Polling gave up" : `${said} found by polling: no callback came`;
  return task.deliveries > 1 ? `${said} by callback, which came ${task.deliveries} times` : `${said} by callback`;
}

function imageFacts(task, image) {
  const isThere = image.state === "ARCHIVED";
  const url = words.imageUrl(task, image.name);
  const open = element("a", { href: url, target: "_blank", rel: "noopener" }, "Open the original");
  const save = element("a", { href: url, download: words.fileName(task, image), "aria-label": `Save ${image.name}` }, "Save it");
  return [
    pairs([
      ["State", isThere ? null : words.sentence(image.state)],
      ["Why", image.reason && foreign(image.reason)],
      ["Size", image.width && image.height ? `${image.width} × ${image.height}` : null],
      ["File", [image.contentType, Number.isFinite(image.bytes) ? words.bytes(image.bytes) : null].filter(Boolean).join(", ")],
      ["Key", image.key && copyable(image.key, "key")],
      ["SHA-256", image.sha256 && copyable(image.sha256, "SHA-256")],
      ["URL", isThere ? null : element("code", {}, foreign(image.url))],
      ["It dies", isThere ? null : words.moment(image.expiresAt)],
      ["Archived", image.archivedAt && words.moment(image.archivedAt)],
    ]),
    isThere ? element("p", { class: "ways" }, open, save) : null,
  ];
}

function contradictions(task) {
  if (!task.conflicts?.length) return [];
  const entries = task.conflicts.map((conflict) => {
    const said = conflict.failure ? [words.failureReason(conflict.failure), conflict.failure.message].filter(Boolean).join(": ") : (conflict.urls ?? []).join("\n");
    return element("li", {}, `${words.moment(conflict.reportedAt)}, ${conflict.reportedBy}: ${conflict.status} `, said ? element("code", { dir: "ltr" }, foreign(said)) : "");
  });
  return [section("Claims that were not applied", element("ul", { class: "claims" }, entries))];
}

function copyable(text, what) {
  return element("span", { class: "copyable" }, element("code", {}, foreign(text)), copyButton(text, what));
}

function copyButton(text, what, words = "Copy") {
  const button = element("button", { type: "button", class: "copy", "aria-label": `Copy the ${what}` }, words);
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(text).then(
      () => (button.textContent = "Copied"),
      () => (button.textContent = "Not allowed"),
    );
    setTimeout(() => (button.textContent = words), 1500);
  });
  return button;
}
