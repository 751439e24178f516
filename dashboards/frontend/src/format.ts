/** Numbers, times and names for people. */

export function number(value: unknown): string {
  if (value === null || value === undefined) return "–";
  if (typeof value === "boolean") return value ? "yes" : "no";
  if (typeof value !== "number") return String(value);
  if (!Number.isFinite(value)) return value > 0 ? "∞" : "−∞";
  if (Number.isInteger(value) && Math.abs(value) < 1e15) return value.toLocaleString("en-US");
  const size = Math.abs(value);
  if (size >= 1e-3 && size < 1e6) return String(Number(value.toPrecision(5)));
  return value.toExponential(2).replace("e+", "e");
}

const UNITS: [number, string][] = [
  [1e12, "T"],
  [1e9, "G"],
  [1e6, "M"],
  [1e3, "k"],
];

export function compact(value: number): string {
  const size = Math.abs(value);
  for (const [unit, letter] of UNITS) if (size >= unit) return `${Number((value / unit).toPrecision(3))}${letter}`;
  if (size > 0 && size < 1e-3) return Number(value.toPrecision(3)).toExponential();
  return number(Number(value.toPrecision(4)));
}

export function percent(share: number, digits = 0): string {
  return `${(100 * share).toFixed(digits)} %`;
}

export function duration(seconds: number | null | undefined): string {
  if (seconds === null || seconds === undefined) return "–";
  if (seconds < 1) return `${Math.round(1000 * seconds)} ms`;
  if (seconds < 59.95) return `${Number(seconds.toPrecision(3))} s`;
  const [whole, minutes] = [Math.round(seconds), Math.round(seconds / 60)];
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  if (minutes < 48 * 60) return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
  if (seconds < 730 * 86400) return `${(seconds / 86400).toFixed(1)} days`;
  return `${Math.round(seconds / 86400 / 365.25)} years`;
}

export function moment(at: number | null | undefined): string {
  if (!at) return "–";
  return new Date(1000 * at).toLocaleString("en-GB", { dateStyle: "medium", timeStyle: "short" });
}

export function ago(at: number | null | undefined): string {
  if (!at) return "–";
  const seconds = Date.now() / 1000 - at;
  return seconds < 0 ? moment(at) : seconds < 5 ? "just now" : `${duration(Math.round(seconds))} ago`;
}

export function cell(name: string, value: unknown): string {
  if (typeof value === "number") {
    if (name.endsWith("_at")) return moment(value);
    if (name === "seconds" || name.endsWith("_seconds")) return duration(value);
  }
  return number(value);
}
