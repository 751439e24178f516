/** Parallel coordinates: a line a trial over the options of every choice, coloured by what it reached. */
import type { JSX } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import type { Parallel } from "./types";
import { number } from "./format";

const EDGE = { left: 58, right: 58, top: 34, bottom: 16 };
const HEIGHT = 420;

export function ParallelPlot({ data }: { data: Parallel }): JSX.Element {
  const canvas = useRef<HTMLCanvasElement>(null);
  const [kept, setKept] = useState<Record<number, number>>({});
  const [top, setTop] = useState(100);
  useEffect(() => {
    const draw = () => canvas.current && paint(canvas.current, data, kept, top / 100);
    const resized = new ResizeObserver(draw);
    resized.observe(canvas.current!);
    window.addEventListener("nasplat-theme", draw);
    draw();
    return () => {
      resized.disconnect();
      window.removeEventListener("nasplat-theme", draw);
    };
  }, [data, kept, top]);
  const press = (event: MouseEvent) => {
    const hit = optionAt(canvas.current!, data, event.offsetX, event.offsetY);
    if (!hit) return;
    const [choice, option] = hit;
    setKept((old) => {
      const { [choice]: before, ...rest } = old;
      return before === option ? rest : { ...rest, [choice]: option };
    });
  };
  return (
    <>
      <div class="controls">
        <label class="field">
          <span>Only the best {top} %</span>
          <input type="range" min="1" max="100" value={top} onInput={(e) => setTop(Number(e.currentTarget.value))} />
        </label>
        {Object.keys(kept).length > 0 && (
          <button type="button" onClick={() => setKept({})}>
            Show all options
          </button>
        )}
      </div>
      <div class="scroll" tabIndex={0} role="region" aria-label="Parallel coordinates">
        <canvas
          ref={canvas}
          class="parallel"
          style={{ height: `${HEIGHT}px`, minWidth: `${Math.max(320, 96 * data.choices.length)}px` }}
          role="img"
          aria-label={`Choices of ${data.trials} trials, coloured by ${data.goal.metric}`}
          onClick={press}
        />
      </div>
      <p class="note">
        {number(data.trials)} of {number(data.of)} trials; colour from worse <i class="scale" /> to better {data.goal.metric}. Press an option to keep only the
        trials that have it.
      </p>
    </>
  );
}

function place(canvas: HTMLCanvasElement, data: Parallel, choice: number, option: number): [number, number] {
  const wide = canvas.clientWidth - EDGE.left - EDGE.right;
  const tall = HEIGHT - EDGE.top - EDGE.bottom;
  const count = data.choices[choice]!.options.length;
  return [EDGE.left + (data.choices.length > 1 ? (choice * wide) / (data.choices.length - 1) : wide / 2), EDGE.top + ((option + 0.5) * tall) / count];
}

function optionAt(canvas: HTMLCanvasElement, data: Parallel, left: number, top: number): [number, number] | null {
  for (let choice = 0; choice < data.choices.length; choice++)
    for (let option = 0; option < data.choices[choice]!.options.length; option++) {
      const [x, y] = place(canvas, data, choice, option);
      if (Math.abs(x - left) < 40 && Math.abs(y - top) < 12) return [choice, option];
    }
  return null;
}

function paint(canvas: HTMLCanvasElement, data: Parallel, kept: Record<number, number>, share: number): void {
  const ratio = window.devicePixelRatio || 1;
  canvas.width = Math.round(canvas.clientWidth * ratio);
  canvas.height = Math.round(HEIGHT * ratio);
  const context = canvas.getContext("2d");
  if (!context) return;
  context.scale(ratio, ratio);
  const style = getComputedStyle(canvas);
  const color = (name: string) => style.getPropertyValue(`--${name}`).trim();
  const sign = data.goal.maximize ? 1 : -1;
  const order = data.values.map((_, i) => i).sort((a, b) => sign * (data.values[a]! - data.values[b]!));
  const rank = new Array<number>(order.length);
  order.forEach((row, i) => (rank[row] = order.length > 1 ? i / (order.length - 1) : 1));
  context.lineWidth = 1.3;
  for (const row of order) {
    const chosen = data.rows[row]!;
    if (rank[row]! < 1 - share || Object.entries(kept).some(([choice, option]) => chosen[Number(choice)] !== option)) continue;
    context.strokeStyle = shade(rank[row]!);
    context.globalAlpha = (data.rows.length < 400 ? 0.35 : 0.12) + 0.55 * rank[row]! ** 2;
    // Lines of one option are spread a little, so that many do not look like one.
    const spread = ((row * 2654435761) % 1000) / 1000 - 0.5;
    context.beginPath();
    chosen.forEach((option, choice) => {
      const [x, y] = place(canvas, data, choice, option);
      if (choice) context.lineTo(x, y + 14 * spread);
      else context.moveTo(x, y + 14 * spread);
    });
    context.stroke();
  }
  context.globalAlpha = 1;
  context.font = `12px ${style.fontFamily}`;
  context.textAlign = "center";
  context.textBaseline = "middle";
  data.choices.forEach(({ choice, options }, i) => {
    const [x] = place(canvas, data, i, 0);
    context.fillStyle = color("text");
    context.font = `600 12px ${style.fontFamily}`;
    context.fillText(choice.length > 16 ? `${choice.slice(0, 15)}…` : choice, x, 14);
    context.font = `11px ${style.fontFamily}`;
    options.forEach((option, j) => {
      const [, y] = place(canvas, data, i, j);
      const text = option.length > 14 ? `${option.slice(0, 13)}…` : option;
      const wide = context.measureText(text).width + 10;
      context.fillStyle = color(kept[i] === j ? "accent" : "card");
      context.globalAlpha = 0.9;
      context.fillRect(x - wide / 2, y - 9, wide, 18);
      context.globalAlpha = 1;
      context.fillStyle = kept[i] === j ? "#fff" : color("text");
      context.fillText(text, x, y);
    });
  });
}

function shade(t: number): string {
  const stops: [number, number, number][] = [
    [59, 51, 158],
    [26, 158, 153],
    [250, 204, 46],
  ];
  const [a, b] = t < 0.5 ? [stops[0]!, stops[1]!] : [stops[1]!, stops[2]!];
  const u = t < 0.5 ? 2 * t : 2 * t - 1;
  return `rgb(${a.map((v, i) => Math.round(v + (b[i]! - v) * u)).join(",")})`;
}
