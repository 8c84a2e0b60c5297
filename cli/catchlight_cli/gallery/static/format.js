// Formats the data of a task: status, times, sizes, durations and reasons.

const MEANINGS = new Map([
  ["PENDING", "The provider has not reported a result yet; the stack polls for it."],
  ["SUCCEEDED", "The provider reported images, which are being archived."],
  ["ARCHIVED", "Every image is in the bucket and validated."],
  ["INCOMPLETE", "At least one image could not be archived."],
  ["UNCONFIRMED", "A callback reported its images, and the provider has not confirmed them. They are in quarantine; `catchlight accept` archives them."],
  ["FAILED", "The provider reported a failure."],
  ["TIMED_OUT", "Polling ended without a result; the failure names the provider's last response. Later reports are still applied."],
]);

/** All statuses, in the order of the filter. */
export const STATUS_NAMES = [...MEANINGS.keys()];

/**
 * Returns label, symbol id and meaning of a status; general ones if this page does not know the status. Label and symbol id
 * (`mark-pending`) follow from the name, which the tasks API, the command line and the page's URL have, too.
 */
export function status(name) {
  const meaning = MEANINGS.get(name);
  const mark = meaning ? `mark-${name.toLowerCase()}` : "mark-unknown";
  return { label: sentence(name), mark, meaning: meaning ?? "This page does not know this status." };
}

/** Whether the task is still pending or being archived. */
export function isUnfinished(task) {
  return task.status === "PENDING" || task.status === "SUCCEEDED";
}

/** Formats a constant for reading: `CONTENT_POLICY` becomes `Content policy`. */
export function sentence(constant) {
  const words = String(constant).replaceAll("_", " ").toLowerCase();
  return words.charAt(0).toUpperCase() + words.slice(1);
}

const NUMBER = new Intl.NumberFormat("en");

export function number(value) {
  return NUMBER.format(value);
}

export function count(number, noun) {
  return `${NUMBER.format(number)} ${number === 1 ? noun : `${noun}s`}`;
}

/** Formats a size in bytes in decimal units, as file managers do. */
export function bytes(size) {
  if (size < 1000) return `${size} bytes`;
  if (size < 999_500) return `${Math.round(size / 1000)} kB`;
  return `${(size / 1_000_000).toFixed(1)} MB`;
}

/** Formats seconds as `8.1 s`, `2 min 5 s`, `1 h 4 min`. */
export function duration(seconds) {
  if (seconds < 9.95) return `${seconds.toFixed(1)} s`;
  const whole = Math.round(seconds);
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  if (whole < 86_400) return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`;
  return `${Math.floor(whole / 86_400)} d ${Math.floor((whole % 86_400) / 3600)} h`;
}

const TIME = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const DAY = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short", year: "numeric" });

/** Formats an ISO time as `21 Nov 2026, 07:44:12` in local time; returns the text unchanged if it is not a time. */
export function moment(iso) {
  const at = new Date(iso);
  return Number.isNaN(at.getTime()) ? String(iso) : `${DAY.format(at)}, ${TIME.format(at)}`;
}

/** Formats an age in milliseconds, rounded, as `5 min ago`. */
export function ago(milliseconds) {
  const seconds = milliseconds / 1000;
  if (seconds < 45) return "just now";
  if (seconds < 3570) return `${Math.max(1, Math.round(seconds / 60))} min ago`;
  if (seconds < 84_600) return `${Math.round(seconds / 3600)} h ago`;
  return `${Math.round(seconds / 86_400)} d ago`;
}

/** Returns the seconds from one ISO time to another; null if one is missing or invalid, or if the result is negative. */
export function secondsBetween(from, to) {
  const seconds = (Date.parse(to) - Date.parse(from)) / 1000;
  return seconds >= 0 ? seconds : null;
}

/** Returns the seconds from registration to archiving, or to the report if the task is not archived; null if it was not registered. */
export function secondsTaken(task) {
  return secondsBetween(task.registeredAt, task.archivedAt ?? task.reportedAt);
}

/** Returns the source of the task's result: `poll`, `callback`, or `callback ×2` with the number of deliveries. */
export function resolution(task) {
  if (task.reportedBy === "poll") return "poll";
  if (task.reportedBy !== "callback") return task.reportedBy ?? "";
  return task.deliveries > 1 ? `callback ×${task.deliveries}` : "callback";
}

/** Returns the prompt of the task's request, or an empty string if it is unknown or not text. */
export function promptOf(task) {
  const prompt = task.request?.prompt;
  return typeof prompt === "string" ? prompt : "";
}

/** Returns the task's images, results first, each with the name that its URL contains, such as `result-0`. */
export function namedImages(task) {
  const images = (task.images ?? []).map((image) => ({ ...image, name: `${image.kind}-${image.index}` }));
  return images.sort((one, other) => (other.kind === "result") - (one.kind === "result"));
}

/** Returns the task's archived images, named and in the same order. The first one is shown for the task. */
export function archivedImages(task) {
  return namedImages(task).filter((image) => image.state === "ARCHIVED");
}

/** Returns the name of a task in URLs. */
export function taskPath({ provider, taskId }) {
  return `${encodeURIComponent(provider)}/${encodeURIComponent(taskId)}`;
}

/** Returns the URL of an image on the gallery's server. */
export function imageUrl(task, name) {
  return `images/${taskPath(task)}/${encodeURIComponent(name)}`;
}

/** Returns the URL of an image's thumbnail. The server caches thumbnails by the checksum of the image. */
export function thumbnailUrl(task, image) {
  return `${imageUrl(task, image.name).replace("images/", "thumbnails/")}?sha256=${image.sha256 ?? ""}`;
}

/** Returns the file name for a saved image: as `catchlight download` names it, with unsafe characters replaced. */
export function fileName(task, image) {
  const extension = /\.(jpg|png|webp|gif|avif)$/.exec(image.key ?? "")?.[1] ?? "image";
  const stem = `${task.provider}_${task.taskId}_${image.name}`.replace(/[^A-Za-z0-9_-]/g, "_");
  return `${stem.slice(0, 180)}.${extension}`;
}

/** Returns the URL fragment that opens a task's details on this page. */
export function fragment(task) {
  return `#${taskPath(task)}`;
}

/** The reasons for failures that the tasks API can filter by. */
export const FAILURE_REASONS = ["CONTENT_POLICY", "CREATE_FAILED", "GENERATION_FAILED", "INTERNAL", "NO_RESULT", "UNCONFIRMED", "OTHER"];

const REASONS = new Map([
  ["INTERNAL", "Internal error"],
  ["CREATE_FAILED", "Could not be started"],
  ["NO_RESULT", "No result"],
  ["UNCONFIRMED", "Not confirmed"],
  ["OTHER", "Unknown reason"],
]);

/** Formats the reason of a failure for reading, with the provider's last answer if polling ended without a result. */
export function failureReason(failure) {
  const reason = REASONS.get(failure.reason) ?? sentence(failure.reason);
  return failure.lastAnswer ? `${reason}: ${sentence(failure.lastAnswer).toLowerCase()}` : reason;
}

/** Returns in one line why images of a task are missing; an empty string if no reason is known. */
export function reason(task) {
  if (task.failure) return failureReason(task.failure);
  const missing = (task.images ?? []).find((image) => image.reason);
  if (missing) return missing.reason;
  return task.skipped?.length && !task.images?.length ? `No image: ${task.skipped.map(({ media }) => media).join(", ")}` : "";
}

/** Returns width and height of the displayed image: EXIF's orientations from 5 on exchange them. */
export function shownSize({ width, height, orientation }) {
  return orientation >= 5 ? { width: height, height: width } : { width, height };
}
