/** Axes: where a value lies, and which values get a label. */

export interface Range {
  low: number;
  high: number;
}

export const forward = (value: number, log: boolean): number => (log ? Math.log10(value) : value);
export const backward = (value: number, log: boolean): number => (log ? 10 ** value : value);

/** The range of values with a margin; positive ones alone on a logarithmic axis, in logarithms. */
export function rangeOf(values: Iterable<number>, log: boolean): Range | null {
  let low = Infinity;
  let high = -Infinity;
  for (const value of values) {
    if (!Number.isFinite(value) || (log && value <= 0)) continue;
    if (value < low) low = value;
    if (value > high) high = value;
  }
  if (low > high) return null;
  low = forward(low, log);
  high = forward(high, log);
  const margin = 0.04 * (high - low) || Math.abs(low) * 0.05 || 0.5;
  return { low: low - margin, high: high + margin };
}

export function ticks(range: Range, log: boolean, wanted: number): number[] {
  const span = range.high - range.low;
  if (log && span > 1.2) {
    const step = Math.max(1, Math.ceil(span / wanted));
    const out: number[] = [];
    for (let power = Math.ceil(range.low / step) * step; power <= range.high; power += step) out.push(10 ** power);
    return out;
  }
  const low = backward(range.low, log);
  const high = backward(range.high, log);
  const rough = (high - low) / wanted;
  const magnitude = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((m) => m * magnitude).find((s) => s >= rough) ?? rough;
  const out: number[] = [];
  for (let i = Math.ceil(low / step); i <= Math.floor(high / step + 1e-9); i++) out.push(i * step);
  return log ? out.filter((value) => value > 0) : out;
}
