// Actions on tasks: shows the effect of an action, asks the user for confirmation, and shows the outcome.

import { button, element } from "./elements.js";
import { get, keyOf, pathOf, post } from "./tasks.js";
import * as format from "./format.js";

const LABELS = new Map([
  ["redrive", "Redrive"],
  ["poll", "Poll now"],
  ["resend-event", "Re-send event"],
]);
// The stack and the providers limit the rate of requests.
const MAX_PARALLEL = 4;

/** Requests the actions on a task and their effects; none if they cannot be determined. */
async function requestActions(task) {
  const { actions } = await get(`${pathOf(task)}/actions`).catch(() => ({ actions: [] }));
  return actions;
}

/** Carries out an action; an error is an outcome, too. */
function carryOut(name, task) {
  return post(`${pathOf(task)}/actions/${name}`).catch((error) => ({ isDone: false, detail: error.message }));
}

/** Asks the user in `step` to confirm an action, then calls `onConfirm`. At the end `opener` has the focus again. */
function askToConfirm(step, opener, label, effect, onConfirm) {
  const close = () => {
    step.replaceChildren();
    opener.focus();
  };
  const confirmed = () => {
    close();
    onConfirm();
  };
  const confirmButton = button({ class: "confirm" }, confirmed, label);
  step.replaceChildren(element("p", {}, effect), element("p", { class: "buttons" }, confirmButton, button({}, close, "Cancel")));
  confirmButton.focus();
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
    const actions = await requestActions(task);
    if (version !== this.#shownFor) return;
    this.element.hidden = actions.length === 0;
    this.#step.replaceChildren();
    this.#buttons.replaceChildren(...actions.map((action) => this.#button(action)));
  }

  #button({ name, effect, isPossible }) {
    const label = LABELS.get(name) ?? name;
    const opened = ({ currentTarget }) => {
      this.#outcome.textContent = "";
      askToConfirm(this.#step, currentTarget, label, effect, () => this.#run(name, label));
    };
    return button({ title: effect, disabled: !isPossible }, opened, label);
  }

  async #run(name, label) {
    const task = this.#task;
    this.#outcome.textContent = `${label} …`;
    const { isDone, detail } = await carryOut(name, task);
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
    const actions = [...LABELS].map(([name, label]) => button({}, (event) => this.#plan(name, label, event.currentTarget), label));
    this.#buttons.append(this.#count, ...actions, this.#save, button({}, onClear, "Clear the selection"));
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

  async #plan(name, label, opener) {
    const tasks = this.#tasks;
    this.#outcome.textContent = "Checking the effect …";
    const plans = await inParallel(tasks, async (task) => {
      const actions = await requestActions(task);
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
    const count = `${possible.length} of ${format.count(tasks.length, "task")}: ${effects}`;
    const question = `${label}: ${format.count(possible.length, "task")}`;
    askToConfirm(this.#step, opener, question, count, () => this.#run(name, label, possible));
  }

  async #run(name, label, tasks) {
    let done = 0;
    const problems = [];
    await inParallel(tasks, async (task) => {
      const outcome = await carryOut(name, task);
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
