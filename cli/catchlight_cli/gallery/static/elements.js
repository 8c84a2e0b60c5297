// Builds DOM elements without parsing HTML: text from tasks is never interpreted as markup.

const SVG = "http://www.w3.org/2000/svg";

/**
 * * Creates an element with attributes and children. Strings become text nodes; children and attributes that are null,
 * undefined or false are left out.
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

/** Creates an element for text from outside (bdi): its writing direction does not affect the text around it. */
export function foreign(text, className = null) {
  return element("bdi", { class: className, dir: "auto" }, text);
}
