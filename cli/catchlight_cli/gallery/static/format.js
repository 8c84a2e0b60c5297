// What the gallery says about a task, and how it says times, sizes and lengths.

const STATUSES = new Map([
  ["PENDING", { word: "Waiting", mark: "mark-pending", meaning: "No news yet; it is polled for." }],
  ["SUCCEEDED", { word: "Archiving", mark: "mark-succeeded", meaning: "Its images are on their way into the bucket." }],
  ["ARCHIVED", { word: "Archived", mark: "mark-archived", meaning: "Every image is in the bucket, checked." }],
  ["INCOMPLETE", { word: "Incomplete", mark: "mark-incomplete", meaning: "Some image could not be had." }],
  ["FAILED", { word: "Failed", mark: "mark-failed", meaning: "The service says that it failed." }],
  ["TIMED_OUT", { word: "Timed out", mark: "mark-timed_out", meaning: "No callback came, and polling gave up. Later news is still taken." }],
]);

/** In the order in which the filter shows them. */
export const STATUS_NAMES = [...STATUSES.keys()];

/** Word, mark and meaning of a status; of one that nobody knows, too. */
export function status(name) {
  return STATUSES.get(name) ?? { word: sentence(name), mark: "mark-unknown", meaning: "A status that this page does not know." };
}

/** Whether more is to come soon. */
export function isMoving(task) {
  return task.status === "PENDING" || task.status === "SUCCEEDED";
}

/** `CONTENT_POLICY` as a person says it. */
export function sentence(constant) {
  const words = String(constant).replaceAll("_", " ").toLowerCase();
  return words.charAt(0).toUpperCase() + words.slice(1);
}

const NUMBER = new Intl.NumberFormat("en");

export function count(number, one, many = `${one}s`) {
  return `${NUMBER.format(number)} ${number === 1 ? one : many}`;
}

/** Bytes in decimal units, as file managers count. */
export function bytes(size) {
  if (size < 1000) return `${size} bytes`;
  if (size < 999_500) return `${Math.round(size / 1000)} kB`;
  return `${(size / 1_000_000).toFixed(1)} MB`;
}

/** Seconds as `8.1 s`, `2 min 5 s`, `1 h 4 min`. */
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

/** When something was, as `21 Nov 2026, 07:44:12` of this machine's zone; the words themselves if it is no time. */
export function moment(iso) {
  const at = new Date(iso);
  return Number.isNaN(at.getTime()) ? String(iso) : `${DAY.format(at)}, ${TIME.format(at)}`;
}

/** How long ago, roughly. */
export function ago(milliseconds) {
  const seconds = milliseconds / 1000;
  if (seconds < 45) return "just now";
  if (seconds < 3570) return `${Math.max(1, Math.round(seconds / 60))} min ago`;
  if (seconds < 84_600) return `${Math.round(seconds / 3600)} h ago`;
  return `${Math.round(seconds / 86_400)} d ago`;
}

/** Seconds from one ISO time to another; null where one is missing or they make no sense. */
export function secondsBetween(from, to) {
  const seconds = (Date.parse(to) - Date.parse(from)) / 1000;
  return seconds >= 0 ? seconds : null;
}

/** Seconds from the registration to the end, or to what is known so far; null if nobody registered the task. */
export function secondsTaken(task) {
  return secondsBetween(task.registeredAt, task.archivedAt ?? task.reportedAt);
}

/** How the news of a task came. */
export function resolution(task) {
  if (task.reportedBy === "poll") return "poll";
  if (task.reportedBy !== "callback") return task.reportedBy ?? "";
  return task.deliveries > 1 ? `callback ×${task.deliveries}` : "callback";
}

/** What was asked for, where that is known and is text. */
export function promptOf(task) {
  const prompt = task.request?.prompt;
  return typeof prompt === "string" ? prompt : "";
}

/** Images with the names that their addresses have, `result-0` and so on. */
export function namedImages(task) {
  return (task.images ?? []).map((image) => ({ ...image, name: `${image.kind}-${image.index}` }));
}

/** The image that stands for the task: its first archived result, or else whatever there is. */
export function cover(images) {
  const archived = images.filter((image) => image.state === "ARCHIVED");
  return archived.find((image) => image.kind === "result") ?? archived[0] ?? null;
}

/** Where the server of this page has an image. */
export function imageUrl(task, name) {
  return `images/${encodeURIComponent(task.provider)}/${encodeURIComponent(task.taskId)}/${encodeURIComponent(name)}`;
}

/** What a saved image is called: as `catchlight download` does, but for ids that are no file names. */
export function fileName(task, image) {
  const extension = /\.(jpg|png|webp|gif|avif)$/.exec(image.key ?? "")?.[1] ?? "image";
  const stem = `${task.provider}_${task.taskId}_${image.name}`.replace(/[^A-Za-z0-9_-]/g, "_");
  return `${stem.slice(0, 180)}.${extension}`;
}

/** The address of a task's detail on this page. */
export function fragment(task) {
  return `#${encodeURIComponent(task.provider)}/${encodeURIComponent(task.taskId)}`;
}

const REASONS = new Map([
  ["INTERNAL", "Internal error"],
  ["CREATE_FAILED", "Could not be begun"],
  ["OTHER", "Unknown reason"],
]);

/** A failure's reason as a person says it. */
export function failureReason(failure) {
  return REASONS.get(failure.reason) ?? sentence(failure.reason);
}

/** Why a task ended without its images, in one line. */
export function reason(task) {
  if (task.failure) return failureReason(task.failure);
  const lost = (task.images ?? []).find((image) => image.reason);
  return lost ? lost.reason : "";
}
