// Shows one task in a dialog: its images, their metadata, its request and its history.

import { TaskActions } from "./actions.js";
import { button, element, fill, hasModifier, iconButton, isolated, mark } from "./elements.js";
import { get, keyOf, pathOf } from "./tasks.js";
import { ImageViewer } from "./viewer.js";
import * as format from "./format.js";

export class TaskDialog {
  #dialog;
  #task = null;
  #viewer = new ImageViewer();
  #error = element("p", { class: "error", hidden: true });
  #title = element("h2", { id: "dialog-title", class: "dialog-title" });
  #metadata = element("div", { class: "metadata" });
  #actions;
  #deliveries;
  #details;
  #previous;
  #next;

  /** `neighbours(key)` returns the previous and the next key; `onMove(key)` shows that task; `onAction(task)` loads a task again; `onClose()` is called after closing. */
  constructor(dialog, { neighbours, onMove, onAction, onClose }) {
    this.#dialog = dialog;
    this.#actions = new TaskActions(onAction);
    this.neighbours = neighbours;
    this.onMove = onMove;
    this.onClose = onClose;
    this.#previous = iconButton("icon-previous", "Newer task", () => this.#go(0));
    this.#next = iconButton("icon-next", "Older task", () => this.#go(1));
    const buttons = [this.#previous, this.#next, iconButton("icon-close", "Close", () => dialog.close())];
    const bar = element("header", { class: "dialog-bar" }, this.#title, element("div", { class: "dialog-buttons" }, buttons), this.#error);
    this.#details = element("div", { class: "details", tabindex: "0", role: "group", "aria-labelledby": "dialog-title" }, this.#actions.element, this.#metadata);
    dialog.append(bar, this.#viewer.element, this.#details);
    // The close event is dispatched asynchronously: another task may have been opened meanwhile.
    dialog.addEventListener("close", () => this.#task && !this.isOpen && this.#leave());
    dialog.addEventListener("keydown", (event) => {
      if (hasModifier(event)) return;
      if (event.key.startsWith("Arrow") && event.target.matches("input")) return; // the browser moves the slider
      if (event.key === "ArrowLeft" && !this.#viewer.isZoomed) this.#go(0);
      else if (event.key === "ArrowRight" && !this.#viewer.isZoomed) this.#go(1);
      else if (event.key === "z") this.#viewer.toggleZoom();
      else if (event.key === "f") this.#viewer.toggleFullScreen();
      else if (event.key === "c") this.#viewer.toggleComparison();
      else if (event.key === "Escape" && this.#viewer.isZoomed) this.#viewer.toggleZoom();
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
    const isOther = this.key !== keyOf(task);
    this.#task = task;
    const { label, mark: markId, meaning } = format.status(task.status);
    this.#dialog.dataset.status = task.status;
    this.#title.replaceChildren(
      element("span", { class: "status" }, mark(markId), label),
      element("span", { class: "title-id" }, isolated(task.taskId)),
    );
    // The deliveries are loaded on request: an update of the same task keeps their section.
    if (isOther) this.#deliveries = deliveriesSection(task);
    const hadFocus = this.#metadata.contains(document.activeElement);
    fill(
      this.#metadata,
      element("p", { class: "meaning" }, meaning),
      failureSection(task),
      requestSection(task),
      section("History", history(task)),
      format.namedImages(task).map((image) => section(`Image ${image.name}`, imageMetadata(image))),
      skippedSection(task),
      conflictSection(task),
      this.#deliveries,
    );
    if (hadFocus) this.#keepFocus();
    this.#viewer.show(task, isOther);
    this.#actions.show(task);
    this.refreshNeighbours();
    if (!this.isOpen) {
      this.#dialog.showModal();
      this.#dialog.scrollTop = this.#details.scrollTop = 0;
      this.#keepFocus();
    }
  }

  /** Shows an error below the dialog's title, or none if the text is empty. */
  showError(text) {
    this.#error.hidden = !text;
    this.#error.replaceChildren(isolated(text));
  }

  refreshNeighbours() {
    if (!this.#task) return;
    const [previous, next] = this.neighbours(this.key);
    for (const [arrow, key] of [[this.#previous, previous], [this.#next, next]]) {
      if (!key && document.activeElement === arrow) this.#keepFocus();
      arrow.disabled = !key;
    }
  }

  /** Moves the focus into the dialog, which handles the keys, after the focused element was removed or disabled. */
  #keepFocus() {
    this.#details.focus({ preventScroll: true });
  }

  #go(direction) {
    const key = this.#task && this.neighbours(this.key)[direction];
    if (key) this.onMove(key);
  }
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

function requestSection(task) {
  const prompt = format.promptOf(task);
  const record = task.providerRecord ?? {};
  const others = Object.entries(task.request ?? {}).filter(([name, value]) => (name !== "prompt" || !prompt) && value !== null);
  return [
    prompt && element("blockquote", { class: "request-prompt", dir: "auto" }, prompt),
    prompt && element("p", { class: "copy-prompt" }, copyButton(prompt, "prompt", "Copy the prompt")),
    pairs([
      ["Provider", isolated(task.provider)],
      ["Task", copyable(task.taskId, "task id")],
      ["Reference", task.ref && copyable(task.ref, "reference")],
      ...Object.entries(task.metadata ?? {}).map(([name, value]) => [name, isolated(value)]),
      ["Trace id", record.traceId && copyable(record.traceId, "trace id")],
      ["Timings", record.timings && isolated(record.timings)],
      ["Parameters", record.parameters && copyable(record.parameters, "parameters")],
      ["Idempotency key", task.idempotencyKey && copyable(task.idempotencyKey, "idempotency key")],
      ...others.map(([name, value]) => [format.sentence(name), isolated(typeof value === "object" ? JSON.stringify(value) : String(value))]),
    ]),
  ];
}

/** Shows why images of the task are missing. */
function failureSection(task) {
  if (!task.failure) {
    const reason = format.reason(task);
    return reason && element("p", { class: "failure" }, isolated(reason));
  }
  const { code, message } = task.failure;
  return element("p", { class: "failure" }, element("strong", {}, format.failureReason(task.failure)), code && ` (${code})`, message && [": ", isolated(message)]);
}

/** Lists the task's events in order of time, each with the time since the first event. */
function history(task) {
  const events = [
    [task.registeredAt, task.idempotencyKey ? "Submitted and registered" : "Registered"],
    [task.providerRecord?.createdAt, "Created by the provider"],
    [task.providerRecord?.completedAt, "Completed by the provider"],
    [task.hintedAt, "A success without a result was reported, or an unconfirmed one again: polling started"],
    [task.reportedAt, reportText(task)],
    [task.confirmedAt, "Confirmed by the provider"],
    [task.acceptedAt, "Accepted by an operator, without confirmation by the provider"],
    ...(task.conflicts ?? []).map((conflict) => [conflict.reportedAt, `A ${conflict.reportedBy} reported ${conflict.status}: not applied`, "conflict"]),
    [task.archivedAt, task.status === "INCOMPLETE" ? "Archiving finished; some images are missing" : "All images archived"],
  ]
    .filter(([at]) => !Number.isNaN(Date.parse(at)))
    .sort(([one], [other]) => Date.parse(one) - Date.parse(other));
  if (!task.registeredAt) events.unshift([null, "Not registered: its callback created the task"]);
  const first = events.find(([at]) => at)?.[0];
  return element(
    "ol",
    { class: "history" },
    events.map(([at, description, kind]) => {
      const since = at && at !== first ? format.secondsBetween(first, at) : null;
      return element(
        "li",
        { class: kind },
        element("span", { class: "event" }, description),
        at ? element("time", { datetime: at }, format.moment(at), since === null ? "" : element("b", {}, ` +${format.duration(since)}`)) : null,
      );
    }),
  );
}

function reportText(task) {
  const result = task.failure ? "Failure" : "Result";
  if (task.reportedBy === "poll") return task.status === "TIMED_OUT" ? "Polling ended without a result" : `${result} found by polling: no callback arrived`;
  return task.deliveries > 1 ? `${result} by callback, delivered ${task.deliveries} times` : `${result} by callback`;
}

function imageMetadata(image) {
  const isArchived = image.state === "ARCHIVED";
  return pairs([
    ["State", isArchived ? null : format.sentence(image.state)],
    ["Reason", image.reason && isolated(image.reason)],
    ["Size", image.width && image.height ? Object.values(format.shownSize(image)).join(" × ") : null],
    ["File", [image.contentType, Number.isFinite(image.bytes) ? format.bytes(image.bytes) : null].filter(Boolean).join(", ")],
    ["Key", image.key && copyable(image.key, "key")],
    ["SHA-256", image.sha256 && copyable(image.sha256, "SHA-256")],
    ["URL", isArchived ? null : element("code", {}, isolated(image.url))],
    ["Quarantined", image.quarantine && format.bytes(image.quarantine.bytes)],
    ["Quarantine SHA-256", image.quarantine && copyable(image.quarantine.sha256, "SHA-256 of the quarantined bytes")],
    ["Quarantine key", image.quarantine && copyable(image.quarantine.key, "quarantine key")],
    ["Expires", isArchived ? null : format.moment(image.expiresAt)],
    ["Archived", image.archivedAt && format.moment(image.archivedAt)],
  ]);
}

/** Lists the outputs that are not images. */
function skippedSection(task) {
  if (!task.skipped?.length) return null;
  const entries = task.skipped.map(({ media, url }) => element("li", {}, `${format.sentence(media)} `, url ? element("code", {}, isolated(url)) : ""));
  return section("Other outputs, not archived", element("ul", {}, entries));
}

function conflictSection(task) {
  if (!task.conflicts?.length) return null;
  const entries = task.conflicts.map((conflict) => {
    const detail = conflict.failure ? [format.failureReason(conflict.failure), conflict.failure.message].filter(Boolean).join(": ") : (conflict.urls ?? []).join("\n");
    return element("li", {}, `${format.moment(conflict.reportedAt)}, ${conflict.reportedBy}: ${conflict.status} `, detail ? element("code", { dir: "ltr" }, isolated(detail)) : "");
  });
  return section("Conflicting reports, not applied", element("ul", { class: "conflicts" }, entries));
}

/** Creates a section with a button that loads and shows the kept deliveries of a task. */
function deliveriesSection(task) {
  const shown = element("div", { role: "status" });
  const load = async ({ currentTarget }) => {
    currentTarget.disabled = true;
    shown.textContent = "Reading …";
    try {
      const { deliveries } = await get(`${pathOf(task)}/deliveries`);
      shown.replaceChildren(...(deliveries.length ? deliveries.flatMap(deliveryParts) : [element("p", {}, NO_DELIVERIES)]));
    } catch (error) {
      shown.textContent = error.message;
    }
    currentTarget.disabled = false;
  };
  const loading = button({}, load, "Show what the provider sent");
  return element("section", { class: "deliveries" }, element("h3", {}, "Deliveries"), element("p", { class: "buttons" }, loading), shown);
}

const NO_DELIVERIES =
  "No delivery of this task is kept. The stack keeps accepted callbacks for the number of days in its parameter KeepDeliveries, and unreadable ones until they are processed.";

function deliveryParts({ receivedAt, outcome, headers, body, key }) {
  return [
    pairs([
      ["Received", format.moment(receivedAt)],
      ["Outcome", isolated(outcome)],
      ...Object.entries(headers).map(([name, value]) => [format.sentence(name), isolated(value)]),
      ["Key", copyable(key, "key")],
    ]),
    element("pre", { tabindex: "0", dir: "ltr", "aria-label": "Body" }, body),
  ];
}

function copyable(text, name) {
  return element("span", { class: "copyable" }, element("code", {}, isolated(text)), copyButton(text, name));
}

function copyButton(text, name, label = "Copy") {
  const copy = async ({ currentTarget }) => {
    currentTarget.textContent = await navigator.clipboard.writeText(text).then(() => "Copied", () => "Not permitted");
    setTimeout(() => (currentTarget.textContent = label), 5000);
  };
  return button({ class: "copy", "aria-label": `Copy the ${name}` }, copy, label);
}
