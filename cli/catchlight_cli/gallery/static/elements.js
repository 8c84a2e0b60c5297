// Builds DOM elements without parsing HTML: text of tasks is never interpreted as markup.

import * as format from "./format.js";

const SVG = "http://www.w3.org/2000/svg";

/**
 * Creates an element with attributes and children. Strings become text nodes; children and attributes that are null,
 * undefined or false are left out, and empty texts, too.
 */
export function element(name, attributes = {}, ...children) {
  const created = document.createElement(name);
  for (const [attribute, value] of Object.entries(attributes)) {
    if (value === true) created.setAttribute(attribute, "");
    else if (value !== null && value !== undefined && value !== false) created.setAttribute(attribute, value);
  }
  fill(created, ...children);
  return created;
}

/** Replaces the children of an element, in the same way as `element` adds them. */
export function fill(parent, ...children) {
  parent.replaceChildren(...children.flat().filter((child) => child || child === 0));
}

/** Creates a button that calls `onClick` with the event. */
export function button(attributes, onClick, ...children) {
  const created = element("button", { type: "button", ...attributes }, ...children);
  created.addEventListener("click", onClick);
  return created;
}

/** Creates a button with an icon; `key` is the key that does the same, if there is one. */
export function iconButton(icon, label, onClick, key = null) {
  const title = key ? `${label} (${key})` : label;
  return button({ class: "icon", "aria-label": label, "aria-keyshortcuts": key, title }, onClick, mark(icon));
}

/** Whether the user holds a key that gives another key or a click a different meaning. */
export function hasModifier(event) {
  return event.altKey || event.ctrlKey || event.metaKey || event.shiftKey;
}

/** Creates a reference to an SVG symbol of index.html by its id, hidden from screen readers. */
export function mark(id, className = "mark") {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("class", className);
  svg.setAttribute("aria-hidden", "true");
  const use = document.createElementNS(SVG, "use");
  use.setAttribute("href", `#${id}`);
  svg.append(use);
  return svg;
}

/** Creates a bdi element for text of a task: its writing direction does not affect the text around it. */
export function isolated(text, className = null) {
  return element("bdi", { class: className, dir: "auto" }, text);
}

/** Creates a short text of a task that is shown over an image or instead of one. */
export function note(text) {
  return element("span", { class: "note" }, isolated(text));
}

/** Creates what is shown instead of an image of a task: a symbol of its status, with the reason why images are missing. */
export function placeholder(task) {
  const { mark: markId, label } = format.status(task.status);
  const drawn = { FAILED: "crossed-out", INCOMPLETE: "ringed", UNCONFIRMED: "ringed" }[task.status];
  if (drawn) return [mark(drawn, drawn), note(format.reason(task) || label)];
  return [mark(markId, format.isUnfinished(task) ? "status-sign is-pending" : "status-sign")];
}
