// Shows one image of a task: fitted, zoomed or in full screen; with thumbnails to select another image.

import { button, element, iconButton, note, placeholder } from "./elements.js";
import { get, pathOf } from "./tasks.js";
import * as format from "./format.js";

// A zoomed image has its natural size in pixels, but at least twice its fitted size.
const MIN_ZOOM = 2;

export class ImageViewer {
  #task = null;
  #selected = null; // name of the image that the user selected, if any
  #shown = null;
  #frame = element("div", { class: "main-image" });
  #caption = element("span", { class: "image-name" });
  #zoom = iconButton("icon-zoom", "Zoom", () => this.toggleZoom(), "z");
  #open = element("a", { target: "_blank", rel: "noopener" }, "Open");
  #save = element("a", {}, "Save");
  #compare = button({ class: "copy-link", "aria-pressed": "false", "aria-keyshortcuts": "c", title: "Original and result (c)" }, () => this.toggleComparison(), "Compare");
  #copy = button({ class: "copy-link" }, () => this.#copyLink(), "Copy link");
  #bar;
  #thumbnails = element("div", { class: "thumbnails", role: "group", "aria-label": "Images of this task" });

  constructor() {
    this.#zoom.setAttribute("aria-pressed", "false");
    const fullScreen = iconButton("icon-full-screen", "Full screen", () => this.toggleFullScreen(), "f");
    this.#bar = element("div", { class: "viewer-bar" }, this.#caption, this.#compare, this.#zoom, fullScreen, this.#copy, this.#open, this.#save);
    this.element = element("div", { class: "viewer" }, this.#frame, this.#bar, this.#thumbnails);
    this.#frame.addEventListener("click", (event) => event.target.closest("img") && this.toggleZoom(event));
  }

  get isZoomed() {
    return this.#frame.classList.contains("is-zoomed");
  }

  get isCompared() {
    return this.#compare.getAttribute("aria-pressed") === "true";
  }

  /** Shows a task's images; `isOther`: another task was shown before. */
  show(task, isOther) {
    this.#task = task;
    if (isOther) this.#selected = null;
    if (isOther || !this.isCompared) this.#render();
  }

  /** Zooms the image, at the clicked point if there is one, or fits it into its frame again. */
  toggleZoom(event = null) {
    const image = this.#image();
    if (!image || this.isCompared) return;
    const isZoomed = this.#frame.classList.toggle("is-zoomed");
    this.#zoom.setAttribute("aria-pressed", String(isZoomed));
    this.#frame.tabIndex = isZoomed ? 0 : -1; // a scrollable region must be reachable by keyboard
    if (!isZoomed) {
      image.style.width = image.style.height = "";
      if (document.activeElement === this.#frame) this.#zoom.focus();
      return;
    }
    const { width, height } = image.getBoundingClientRect();
    const fitted = Math.min(width / image.naturalWidth, height / image.naturalHeight);
    const scale = Math.max(1, MIN_ZOOM * fitted);
    image.style.width = `${image.naturalWidth * scale}px`;
    image.style.height = `${image.naturalHeight * scale}px`;
    // Relative position of the clicked point in the frame, which stays visible.
    const frame = this.#frame.getBoundingClientRect();
    const [x, y] = event ? [(event.clientX - frame.x) / frame.width, (event.clientY - frame.y) / frame.height] : [0.5, 0.5];
    this.#frame.scrollTo(x * (this.#frame.scrollWidth - frame.width), y * (this.#frame.scrollHeight - frame.height));
    this.#frame.focus({ preventScroll: true });
  }

  /** Starts or ends the comparison: original and result in the same place, with a slider between them. */
  toggleComparison() {
    const [result, origin] = this.#pair();
    if (!result || !origin) return;
    const isCompared = !this.isCompared;
    this.#fit();
    this.#compare.setAttribute("aria-pressed", String(isCompared));
    this.#frame.replaceChildren();
    if (!isCompared) {
      this.#showImage(this.#shown);
      return;
    }
    const [below, above] = [origin, result].map((image) => {
      return element("img", { src: format.imageUrl(this.#task, image.name), alt: image.name, decoding: "async", ...format.shownSize(image) });
    });
    const slider = element("input", { type: "range", class: "compare-slider", min: 0, max: 100, value: 50, "aria-label": "Part of the original that is shown" });
    const cut = () => (above.style.clipPath = `inset(0 0 0 ${slider.value}%)`);
    slider.addEventListener("input", cut);
    cut();
    this.#frame.replaceChildren(below, above, slider);
    slider.focus();
  }

  /** Returns the first archived result and original. */
  #pair() {
    const archived = format.archivedImages(this.#task);
    return ["result", "origin"].map((kind) => archived.find((image) => image.kind === kind));
  }

  async toggleFullScreen() {
    if (document.fullscreenElement) await document.exitFullscreen();
    else if (this.#shown) await this.element.requestFullscreen();
  }

  /** Copies a presigned link to the image, which anyone can open for some minutes. */
  async #copyLink() {
    this.#copy.textContent = await get(`${pathOf(this.#task)}/links/${this.#shown.name}`)
      .then(({ link }) => navigator.clipboard.writeText(link))
      .then(() => "Copied", () => "Not copied");
    setTimeout(() => (this.#copy.textContent = "Copy link"), 5000);
  }

  #render() {
    const archived = format.archivedImages(this.#task);
    const shown = archived.find((image) => image.name === this.#selected) ?? archived[0];
    if (shown) this.#showImage(shown);
    else this.#showPlaceholder();
    this.#renderThumbnails(archived);
  }

  #renderThumbnails(archived) {
    this.#thumbnails.hidden = archived.length < 2;
    const hadFocus = this.#thumbnails.contains(document.activeElement) ? this.#shown?.name : null;
    this.#thumbnails.replaceChildren(
      ...archived.map((image) => {
        const { width, height } = format.shownSize(image);
        const select = () => {
          this.#selected = image.name;
          if (this.isCompared) this.#frame.replaceChildren(); // ends the comparison
          this.#render();
        };
        const thumbnail = button(
          { "aria-pressed": String(image.name === this.#shown.name), "aria-label": image.name },
          select,
          element("img", { src: format.thumbnailUrl(this.#task, image), alt: "", decoding: "async", width, height }),
          archived.filter((other) => other.kind === image.kind).length > 1 ? image.name : image.kind,
        );
        if (image.name === hadFocus) queueMicrotask(() => thumbnail.focus());
        return thumbnail;
      }),
    );
  }

  #showImage(image) {
    const url = format.imageUrl(this.#task, image.name);
    this.#shown = image;
    this.#bar.hidden = false;
    const size = image.width && image.height ? `  ${Object.values(format.shownSize(image)).join(" × ")}` : "";
    this.#caption.textContent = `${image.name}${size}`;
    this.#open.setAttribute("href", url);
    this.#open.setAttribute("aria-label", `Open ${image.name} in a new tab`);
    this.#save.setAttribute("href", url);
    this.#save.setAttribute("download", format.fileName(this.#task, image));
    this.#save.setAttribute("aria-label", `Save ${image.name}`);
    this.#compare.hidden = !this.#pair().every(Boolean);
    if (this.#image()?.getAttribute("src") === url) return;
    this.#compare.setAttribute("aria-pressed", "false");
    this.#fit();
    const { width, height } = format.shownSize(image);
    const prompt = format.promptOf(this.#task);
    const alt = `${image.name} of ${this.#task.taskId}${prompt ? `: ${prompt}` : ""}`;
    const shown = element("img", { src: url, alt, decoding: "async", width, height });
    shown.addEventListener("error", () => shown.replaceWith(note("This image cannot be shown.")), { once: true });
    this.#frame.replaceChildren(shown);
  }

  #showPlaceholder() {
    this.#shown = null;
    this.#bar.hidden = true;
    this.#compare.setAttribute("aria-pressed", "false");
    this.#fit();
    this.#frame.replaceChildren(...placeholder(this.#task));
  }

  #fit() {
    if (this.isZoomed) this.toggleZoom();
  }

  #image() {
    return this.#frame.querySelector("img");
  }
}
