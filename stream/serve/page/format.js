// Numbers, times and sizes as people read them, each with its unit.

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const short = new Intl.NumberFormat("en", { notation: "compact", maximumSignificantDigits: 3 });
const one = new Intl.NumberFormat("en", { maximumFractionDigits: 1 });
const moment = new Intl.DateTimeFormat("en-GB", { dateStyle: "medium", timeStyle: "medium" });
const clockTime = new Intl.DateTimeFormat("en-GB", { timeStyle: "medium" });

/** 1234 -> "1,234" */
export const number = (value) => whole.format(value);

/** 12340 -> "12.3K": where there is little room */
export const compact = (value) => short.format(value);

/** 0.8345 -> "83 %" */
export const percent = (share) => `${Math.round(share * 100)}\u202f%`;

/** A dot product of two embeddings: 0.8345 -> "0.83" */
export const score = (value) => value.toFixed(2).replace("-", "\u2212");

/** How long: 340 -> "340 ms", 2345 -> "2.3 s", 134000 -> "2 min 14 s", 7400000 -> "2 h 3 min" */
export function duration(ms) {
  if (ms < 1000) return `${Math.max(0, Math.round(ms))}\u202fms`;
  const seconds = ms / 1000;
  if (seconds < 60) return `${one.format(seconds)}\u202fs`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `${minutes}\u202fmin ${Math.round(seconds % 60)}\u202fs`;
  const hours = Math.floor(minutes / 60);
  if (hours < 48) return `${hours}\u202fh ${minutes % 60}\u202fmin`;
  return `${Math.floor(hours / 24)}\u202fdays`;
}

/** A place in a track: 74000 -> "1:14" */
export function position(ms) {
  const seconds = Math.floor(ms / 1000);
  return `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, "0")}`;
}

/** Since a moment: "now", "12 s ago", "3 min ago", "5 h ago", "2 days ago" */
export function ago(ms, now = Date.now()) {
  const seconds = Math.max(0, Math.round((now - ms) / 1000));
  if (seconds < 2) return "now";
  if (seconds < 60) return `${seconds}\u202fs ago`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)}\u202fmin ago`;
  if (seconds < 172_800) return `${Math.floor(seconds / 3600)}\u202fh ago`;
  return `${Math.floor(seconds / 86_400)}\u202fdays ago`;
}

/** A moment: "26 Nov 2026, 18:08:34" */
export const time = (ms) => moment.format(ms);

/** A moment of today: "18:08:34" */
export const clock = (ms) => clockTime.format(ms);

/** A size: 1536 -> "1.5 KB" */
export function bytes(count) {
  const units = ["B", "KB", "MB", "GB"];
  const power = count < 1 ? 0 : Math.min(units.length - 1, Math.floor(Math.log10(count) / 3));
  return `${one.format(count / 1000 ** power)}\u202f${units[power]}`;
}

/** Things that were counted: plural(1, "track") -> "1 track", plural(2, "track") -> "2 tracks" */
export const plural = (count, word) => `${whole.format(count)} ${word}${count === 1 ? "" : "s"}`;
