// Elements made without a parser: whatever a task is called, it stays text.

const SVG = "http://www.w3.org/2000/svg";

/**
 * An element with attributes and children. Children that are strings become text; null, undefined and false are left out,
 * as are attributes with those values.
 */
export function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [attribute, value] of Object.entries(attributes)) {
    if (value === true) made.setAttribute(attribute, "");
    else if (value !== null && value !== undefined && value !== false) made.setAttribute(attribute, value);
  }
  made.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return made;
}

/** A drawing of index.html by its id, for the eye only. */
export function mark(id, className = "mark") {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("class", className);
  svg.setAttribute("aria-hidden", "true");
  const use = document.createElementNS(SVG, "use");
  use.setAttribute("href", `#${id}`);
  svg.append(use);
  return svg;
}

/** Text of strangers: its direction is its own, and turns nothing around it. */
export function foreign(text, className = null) {
  return element("bdi", { class: className, dir: "auto" }, text);
}
