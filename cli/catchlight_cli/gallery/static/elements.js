// Builds DOM elements without parsing HTML: text of tasks is never interpreted as markup.

const SVG = "http://www.w3.org/2000/svg";

/**
 * Creates an element with attributes and children. Strings become text nodes; children and attributes that are null,
 * undefined or false are left out.
 */
export function element(name, attributes = {}, ...children) {
  const created = document.createElement(name);
  for (const [attribute, value] of Object.entries(attributes)) {
    if (value === true) created.setAttribute(attribute, "");
    else if (value !== null && value !== undefined && value !== false) created.setAttribute(attribute, value);
  }
  created.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return created;
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
