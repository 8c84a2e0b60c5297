// Actions on tasks: shows the effect of an action, asks the user for confirmation, and shows the outcome.

import { element } from "./elements.js";
import { get, keyOf, post } from "./tasks.js";
import * as format from "./format.js";

const LABELS = new Map([
  ["redrive", "Redrive"],
  ["poll", "Poll now"],
  ["resend-event", "Re-send event"],
]);
// The stack and the providers limit the rate of requests.
const MAX_PARALLEL = 4;

const pathOf = (task) => `api/tasks/${encodeURIComponent(task.provider)}/${encodeURIComponent(task.taskId)}/actions`;

/** Creates the elements that ask the user to confirm an action. Both buttons call `close`; the confirmation then calls `run`. */
function confirmation(label, effect, close, run) {
  const confirm = element("button", { type: "button", class: "confirm" }, label);
  const cancel = element("button", { type: "button" }, "Cancel");
  confirm.addEventListener("click", () => {
    close();
    run();
  });
  cancel.addEventListener("click", close);
  queueMicrotask(() => confirm.focus());
  return [element("p", {}, effect), element("p", { class: "buttons" }, confirm, cancel)];
}

/** The actions on one task, in its dialog. */
export class TaskActions {
  #task = null;
  #shownFor = "";
  #buttons = element("p", { class: "buttons" });
  #step = element("div", { class: "step" });
  #outcome = element("p", { class: "outcome", role: "status" });
  #onDone;

  /** `onDone(task)` is called after an action, to load the task again. */
  constructor(onDone) {
    this.#onDone = onDone;
    this.element = element("section", { class: "actions", "aria-label": "Actions", hidden: true }, this.#buttons, this.#step, this.#outcome);
  }

  /** Shows the actions on a task, and requests them again if the task has changed. */
  async show(task) {
    if (!this.#task || keyOf(this.#task) !== keyOf(task)) {
      this.element.hidden = true;
      this.#outcome.textContent = "";
    }
    this.#task = task;
    const version = `${keyOf(task)} ${task.status} ${task.updatedAt}`;
    if (version === this.#shownFor) return;
    this.#shownFor = version;
    const { actions } = await get(pathOf(task)).catch(() => ({ actions: [] }));
    if (version !== this.#shownFor) return;
    this.element.hidden = actions.length === 0;
    this.#step.replaceChildren();
    this.#buttons.replaceChildren(...actions.map((action) => this.#button(action)));
  }

  #button({ name, effect, isPossible }) {
    const button = element("button", { type: "button", title: effect, disabled: !isPossible }, LABELS.get(name) ?? name);
    button.addEventListener("click", () => {
      this.#outcome.textContent = "";
      const close = () => {
        this.#step.replaceChildren();
        button.focus();
      };
      this.#step.replaceChildren(...confirmation(LABELS.get(name), effect, close, () => this.#run(name)));
    });
    return button;
  }

  async #run(name) {
    const task = this.#task;
    const label = LABELS.get(name);
    this.#outcome.textContent = `${label} …`;
    const { isDone, detail } = await post(`${pathOf(task)}/${name}`).catch((error) => ({ isDone: false, detail: error.message }));
    if (keyOf(task) === keyOf(this.#task)) this.#outcome.textContent = `${label}: ${isDone ? "done" : "not done"}. ${detail}`;
    this.#shownFor = "";
    this.#onDone(task);
  }
}

/** The actions on the selected tasks, in a bar at the bottom of the page. */
export class SelectionActions {
  #tasks = [];
  #count = element("strong");
  #buttons = element("p", { class: "buttons" });
  #step = element("div", { class: "step" });
  #outcome = element("p", { class: "outcome", role: "status" });
  #save = element("a", { class: "save", download: "" }, "Download as zip");

  /** `onDone(tasks)` is called after an action, `onClear()` to end the selection. */
  constructor(bar, { onDone, onClear }) {
    this.bar = bar;
    this.onDone = onDone;
    const clear = element("button", { type: "button" }, "Clear the selection");
    clear.addEventListener("click", onClear);
    const actions = [...LABELS].map(([name, label]) => {
      const button = element("button", { type: "button" }, label);
      button.addEventListener("click", () => this.#plan(name, label, button));
      return button;
    });
    this.#buttons.append(this.#count, ...actions, this.#save, clear);
    bar.append(this.#buttons, this.#step, this.#outcome);
  }

  show(tasks) {
    this.#tasks = tasks;
    this.bar.hidden = tasks.length === 0;
    this.#count.textContent = `${format.count(tasks.length, "task")} selected`;
    this.#step.replaceChildren();
    this.#outcome.textContent = "";
    const query = new URLSearchParams({ tasks: tasks.map((task) => `${task.provider}/${task.taskId}`).join(",") });
    this.#save.setAttribute("href", `images.zip?${query}`);
  }

  async #plan(name, label, button) {
    const tasks = this.#tasks;
    this.#outcome.textContent = "Checking the effect …";
    const plans = await inParallel(tasks, async (task) => {
      const { actions } = await get(pathOf(task)).catch(() => ({ actions: [] }));
      return actions.find((action) => action.name === name);
    });
    if (tasks !== this.#tasks) return;
    const possible = tasks.filter((_, index) => plans[index]?.isPossible);
    this.#outcome.textContent = "";
    if (!possible.length) {
      this.#outcome.textContent = `${label} is possible for none of them: ${plans[0]?.effect ?? "this gallery is read-only."}`;
      return;
    }
    const effects = [...new Set(plans.filter((plan) => plan?.isPossible).map((plan) => plan.effect))].join(" ");
    const close = () => {
      this.#step.replaceChildren();
      button.focus();
    };
    const count = `${possible.length} of ${format.count(tasks.length, "task")}: ${effects}`;
    const question = `${label}: ${format.count(possible.length, "task")}`;
    this.#step.replaceChildren(...confirmation(question, count, close, () => this.#run(name, label, possible)));
  }

  async #run(name, label, tasks) {
    let done = 0;
    const problems = [];
    await inParallel(tasks, async (task) => {
      const outcome = await post(`${pathOf(task)}/${name}`).catch((error) => ({ isDone: false, detail: error.message }));
      if (outcome.isDone) done += 1;
      else problems.push(`${task.provider}/${task.taskId}: ${outcome.detail}`);
      const failed = problems.length ? `, ${problems.length} not done. ${problems.at(-1)}` : "";
      this.#outcome.textContent = `${label}: ${done} of ${tasks.length} done${failed}`;
    });
    this.onDone(tasks);
  }
}

/** Calls an asynchronous function for each item, a few at a time; returns the results in the items' order. */
async function inParallel(items, run) {
  const results = new Array(items.length);
  const indexes = items.keys();
  const worker = async () => {
    for (const index of indexes) results[index] = await run(items[index]);
  };
  await Promise.all(Array.from({ length: MAX_PARALLEL }, worker));
  return results;
}
