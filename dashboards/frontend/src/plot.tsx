/** A plot: many points by WebGL below, axes, lines and bands on a second canvas above; it moves, zooms and is asked. */
import type { JSX } from "preact";
import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";
import { compact, number } from "./format";
import { forward, type Range, rangeOf, ticks } from "./scale";
import { PointRenderer } from "./webgl";

export interface Cloud {
  x: Float32Array;
  y: Float32Array;
  c: Float32Array;
  id: Uint32Array;
  colored: boolean;
}

export interface Line {
  label: string;
  color: string;
  points: [number, number][];
  /** Stairs: "after" holds a value until the next point, as a best so far does; "before" takes the next one at once. */
  step?: "after" | "before";
  dots?: boolean;
  ids?: number[];
  dashed?: boolean;
}

export interface Band {
  color: string;
  points: [number, number, number][];
}

interface PlotProps {
  label: string;
  x: string;
  y: string;
  cloud?: Cloud | null;
  lines?: Line[];
  bands?: Band[];
  xLog?: boolean;
  yLog?: boolean;
  /** Cuts off the tail of hopeless points, which would flatten what matters. */
  focus?: "high" | "low" | null;
  height?: number;
  onPick?: (id: number) => void;
  describe?: (id: number) => string;
}

const EDGE = { left: 72, right: 14, top: 10, bottom: 40 };
const REACH = 14;

interface Hit {
  left: number;
  top: number;
  x: number;
  y: number;
  id: number | null;
}

/** What is drawn, outside of Preact: it is drawn sixty times a second while it moves. */
class Drawing {
  view: { x: Range; y: Range } | null = null;
  home: { x: Range; y: Range } | null = null;
  width = 0;
  hit: Hit | null = null;
  frames = 0;
  private due = 0;
  private settled = 0;
  private moving = false;
  private drawnAt = 0;
  /** Points of a frame while the view moves: as many as the machine draws in time. */
  private most = 20_000;
  private renderer: PointRenderer | null = null;
  props!: PlotProps;

  constructor(
    private readonly below: HTMLCanvasElement,
    private readonly above: HTMLCanvasElement,
  ) {}

  get height(): number {
    return this.props.height ?? 340;
  }

  load(): void {
    const { cloud } = this.props;
    if (!cloud) return;
    // Starting WebGL can take longer than all the rest of a page, so not before there is something to draw with it.
    this.renderer ??= PointRenderer.on(this.below);
    this.renderer?.load(cloud);
  }

  fit(): void {
    const { cloud, lines = [], bands = [], xLog = false, yLog = false, focus } = this.props;
    const xs: number[] = [];
    const ys: number[] = [];
    for (const line of lines) for (const [x, y] of line.points) xs.push(x), ys.push(y);
    for (const band of bands) for (const [x, low, high] of band.points) xs.push(x), ys.push(low, high);
    const inX = [rangeOf(xs, xLog), cloud ? rangeOf(cloud.x, xLog) : null];
    const inY = [rangeOf(ys, yLog), cloud ? this.yRange(cloud.y, yLog, focus ?? null) : null];
    const home = { x: union(inX), y: union(inY) };
    const moved = this.view && this.home && JSON.stringify(this.view) !== JSON.stringify(this.home);
    this.home = home;
    if (!moved) this.view = home;
  }

  private yRange(values: Float32Array, log: boolean, focus: "high" | "low" | null): Range | null {
    if (!focus || values.length < 20) return rangeOf(values, log);
    const every = Math.max(1, Math.floor(values.length / 5000));
    const sorted = values.filter((v, i) => i % every === 0 && Number.isFinite(v)).sort();
    const at = (share: number) => sorted[Math.floor(share * (sorted.length - 1))] ?? 0;
    const all = rangeOf(values, log);
    const most = rangeOf([at(focus === "high" ? 0.1 : 0), at(focus === "high" ? 1 : 0.9)], log);
    if (!all || !most) return all;
    return focus === "high" ? { low: most.low, high: all.high } : { low: all.low, high: most.high };
  }

  schedule(): void {
    if (this.due) return;
    this.due = requestAnimationFrame((now) => {
      this.due = 0;
      if (this.moving) this.adapt(now - this.drawnAt);
      this.drawnAt = now;
      this.draw();
    });
  }

  /** Fewer points where frames come late, more where there is time left. */
  private adapt(milliseconds: number): void {
    if (milliseconds > 1000) return; // the first frame of a movement
    const change = milliseconds > 25 ? Math.max(0.1, 20 / milliseconds) : 1.1;
    this.most = Math.min(Math.max(2_000, this.most * change), 1_000_000);
  }

  private toX(value: number, log: boolean): number {
    const { x } = this.view!;
    return EDGE.left + ((forward(value, log) - x.low) / (x.high - x.low)) * (this.width - EDGE.left - EDGE.right);
  }

  private toY(value: number, log: boolean): number {
    const { y } = this.view!;
    const tall = this.height - EDGE.top - EDGE.bottom;
    return this.height - EDGE.bottom - ((forward(value, log) - y.low) / (y.high - y.low)) * tall;
  }

  draw(): void {
    if (!this.view || !this.width) return;
    const ratio = window.devicePixelRatio || 1;
    for (const canvas of [this.below, this.above]) {
      const [w, h] = [Math.round(this.width * ratio), Math.round(this.height * ratio)];
      if (canvas.width !== w) canvas.width = w;
      if (canvas.height !== h) canvas.height = h;
    }
    const style = getComputedStyle(this.above);
    const color = (name: string) => style.getPropertyValue(`--${name}`).trim() || "#888";
    this.drawPoints(ratio, color("point"));
    const context = this.above.getContext("2d");
    if (!context) return;
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, this.width, this.height);
    context.font = `12px ${style.fontFamily}`;
    this.drawAxes(context, color);
    context.save();
    context.beginPath();
    context.rect(EDGE.left, EDGE.top, this.width - EDGE.left - EDGE.right, this.height - EDGE.top - EDGE.bottom);
    context.clip();
    for (const band of this.props.bands ?? []) this.drawBand(context, band, color(band.color));
    for (const line of this.props.lines ?? []) this.drawLine(context, line, color(line.color));
    if (this.hit) {
      context.strokeStyle = color("text");
      context.lineWidth = 1.5;
      context.beginPath();
      context.arc(this.hit.left, this.hit.top, 6, 0, 7);
      context.stroke();
    }
    context.restore();
    this.frames++;
    this.above.dataset.frames = String(this.frames);
  }

  private drawPoints(ratio: number, plain: string): void {
    const { cloud, xLog = false, yLog = false } = this.props;
    if (!cloud || !this.renderer || !this.view) return;
    const n = cloud.x.length;
    const alpha = n > 50_000 ? 0.35 : n > 5_000 ? 0.5 : 0.75;
    const size = (n > 50_000 ? 3.5 : n > 5_000 ? 4.5 : 6.5) * ratio;
    const colors = cloud.colored ? rangeOf(cloud.c, false) : null;
    this.renderer.draw({
      ...this.view,
      xLog,
      yLog,
      size,
      colors: colors ? [colors.low, colors.high] : [0, 0],
      plain: [...rgb(plain), alpha],
      area: [
        Math.round(EDGE.left * ratio),
        Math.round(EDGE.bottom * ratio),
        Math.round((this.width - EDGE.left - EDGE.right) * ratio),
        Math.round((this.height - EDGE.top - EDGE.bottom) * ratio),
      ],
    }, this.moving ? this.most : n);
  }

  private drawAxes(context: CanvasRenderingContext2D, color: (name: string) => string): void {
    const { x, y, xLog = false, yLog = false } = this.props;
    const view = this.view!;
    const bottom = this.height - EDGE.bottom;
    context.lineWidth = 1;
    context.fillStyle = color("muted");
    context.strokeStyle = color("grid");
    context.textAlign = "center";
    context.textBaseline = "top";
    for (const tick of ticks(view.x, xLog, Math.max(2, Math.floor(this.width / 110)))) {
      const at = Math.round(this.toX(tick, xLog)) + 0.5;
      stroke(context, [at, EDGE.top], [at, bottom]);
      context.fillText(compact(tick), at, bottom + 6);
    }
    context.textAlign = "right";
    context.textBaseline = "middle";
    for (const tick of ticks(view.y, yLog, Math.max(2, Math.floor(this.height / 60)))) {
      const at = Math.round(this.toY(tick, yLog)) + 0.5;
      stroke(context, [EDGE.left, at], [this.width - EDGE.right, at]);
      context.fillText(compact(tick), EDGE.left - 8, at);
    }
    context.fillStyle = color("text");
    context.textAlign = "right";
    context.textBaseline = "bottom";
    context.fillText(x, this.width - EDGE.right, this.height - 2);
    context.save();
    context.translate(9, EDGE.top);
    context.rotate(-Math.PI / 2);
    context.textAlign = "right";
    context.textBaseline = "middle";
    context.fillText(y, 0, 0);
    context.restore();
  }

  private drawLine(context: CanvasRenderingContext2D, line: Line, color: string): void {
    const { xLog = false, yLog = false } = this.props;
    const places = line.points
      .filter(([x, y]) => (!xLog || x > 0) && (!yLog || y > 0))
      .map(([x, y]): [number, number] => [this.toX(x, xLog), this.toY(y, yLog)]);
    context.strokeStyle = color;
    context.fillStyle = color;
    context.lineWidth = 2;
    context.setLineDash(line.dashed ? [5, 4] : []);
    context.beginPath();
    places.forEach(([x, y], i) => {
      const before = places[i - 1];
      if (!before) context.moveTo(x, y);
      else {
        if (line.step === "after") context.lineTo(x, before[1]);
        if (line.step === "before") context.lineTo(before[0], y);
        context.lineTo(x, y);
      }
    });
    context.stroke();
    context.setLineDash([]);
    if (line.dots) {
      for (const [x, y] of places) {
        context.beginPath();
        context.arc(x, y, 3.5, 0, 7);
        context.fill();
      }
    }
  }

  private drawBand(context: CanvasRenderingContext2D, band: Band, color: string): void {
    const { xLog = false, yLog = false } = this.props;
    context.fillStyle = color;
    context.globalAlpha = 0.16;
    context.beginPath();
    // Stairs, as the lines in them: there along the lower edge, and back along the upper one.
    const at = (i: number, edge: 1 | 2): [number, number] => [this.toX(band.points[i]![0], xLog), this.toY(band.points[i]![edge], yLog)];
    band.points.forEach((_, i) => {
      if (!i) context.moveTo(...at(0, 1));
      else {
        context.lineTo(at(i, 1)[0], at(i - 1, 1)[1]);
        context.lineTo(...at(i, 1));
      }
    });
    for (let i = band.points.length - 1; i >= 0; i--) {
      context.lineTo(...at(i, 2));
      if (i) context.lineTo(at(i, 2)[0], at(i - 1, 2)[1]);
    }
    context.fill();
    context.globalAlpha = 1;
  }

  /** What lies under the pointer. */
  find(left: number, top: number): Hit | null {
    if (!this.view) return null;
    const { cloud, lines = [], xLog = false, yLog = false } = this.props;
    let best: Hit | null = null;
    let nearest = REACH * REACH;
    const look = (x: number, y: number, id: number | null) => {
      const [l, t] = [this.toX(x, xLog), this.toY(y, yLog)];
      const away = (l - left) ** 2 + (t - top) ** 2;
      if (away < nearest) {
        nearest = away;
        best = { left: l, top: t, x, y, id };
      }
    };
    for (const line of lines) line.points.forEach(([x, y], i) => look(x, y, line.ids?.[i] ?? null));
    if (!best && cloud) for (let i = 0; i < cloud.x.length; i++) look(cloud.x[i]!, cloud.y[i]!, cloud.id[i]!);
    return best;
  }

  /** Moves the view by shares of its width and height, and scales it about a point given in such shares. */
  move(dx: number, dy: number, zoom = 1, aboutX = 0.5, aboutY = 0.5): void {
    if (!this.view) return;
    const changed = ({ low, high }: Range, shift: number, about: number): Range => {
      const span = high - low;
      const centre = low + about * span;
      return { low: centre - about * span * zoom + shift * span, high: centre + (1 - about) * span * zoom + shift * span };
    };
    this.view = { x: changed(this.view.x, dx, aboutX), y: changed(this.view.y, dy, aboutY) };
    this.hit = null;
    this.moving = true;
    clearTimeout(this.settled);
    this.settled = window.setTimeout(() => {
      this.moving = false;
      this.schedule();
    }, 120);
    this.schedule();
  }

  reset(): void {
    this.view = this.home;
    this.schedule();
  }

  release(): void {
    cancelAnimationFrame(this.due);
    clearTimeout(this.settled);
    this.renderer?.release();
    this.renderer = null;
  }

  shares(left: number, top: number): [number, number] {
    return [
      (left - EDGE.left) / (this.width - EDGE.left - EDGE.right),
      1 - (top - EDGE.top) / (this.height - EDGE.top - EDGE.bottom),
    ];
  }

  get area(): [number, number] {
    return [this.width - EDGE.left - EDGE.right, this.height - EDGE.top - EDGE.bottom];
  }

  shown(hit: Hit): string {
    const { x, y, describe } = this.props;
    const values = `${x} ${number(hit.x)}, ${y} ${number(hit.y)}`;
    return hit.id === null ? values : `${describe ? describe(hit.id) : `trial ${hit.id}`}: ${values}`;
  }
}

function union(ranges: (Range | null)[]): Range {
  const there = ranges.filter((r) => r !== null);
  if (!there.length) return { low: 0, high: 1 };
  return { low: Math.min(...there.map((r) => r.low)), high: Math.max(...there.map((r) => r.high)) };
}

function stroke(context: CanvasRenderingContext2D, from: [number, number], to: [number, number]): void {
  context.beginPath();
  context.moveTo(...from);
  context.lineTo(...to);
  context.stroke();
}

function rgb(hex: string): [number, number, number] {
  const value = Number.parseInt(hex.replace("#", ""), 16);
  return [(value >> 16) / 255, ((value >> 8) & 255) / 255, (value & 255) / 255];
}

export function Plot(props: PlotProps): JSX.Element {
  const box = useRef<HTMLDivElement>(null);
  const below = useRef<HTMLCanvasElement>(null);
  const above = useRef<HTMLCanvasElement>(null);
  const drawing = useRef<Drawing | null>(null);
  const grip = useRef<{ left: number; top: number; moved: boolean } | null>(null);
  const [hit, setHit] = useState<Hit | null>(null);
  const { cloud, lines, bands, xLog, yLog, height = 340 } = props;

  useLayoutEffect(() => {
    const made = new Drawing(below.current!, above.current!);
    made.props = props;
    drawing.current = made;
    const resized = new ResizeObserver(() => {
      made.width = box.current!.clientWidth;
      made.schedule();
    });
    resized.observe(box.current!);
    const redraw = () => made.schedule();
    window.addEventListener("nasplat-theme", redraw);
    const wheel = (event: WheelEvent) => {
      if (!event.ctrlKey && !event.metaKey && document.activeElement !== above.current) return;
      event.preventDefault();
      made.move(0, 0, event.deltaY > 0 ? 1.15 : 1 / 1.15, ...made.shares(event.offsetX, event.offsetY));
    };
    above.current!.addEventListener("wheel", wheel, { passive: false });
    return () => {
      resized.disconnect();
      window.removeEventListener("nasplat-theme", redraw);
      made.release();
    };
  }, []);

  useEffect(() => {
    const made = drawing.current!;
    made.props = props;
    made.load();
  }, [cloud]);

  useEffect(() => {
    const made = drawing.current!;
    made.props = props;
    made.fit();
    made.schedule();
  }, [cloud, lines, bands, xLog, yLog, props.x, props.y, props.focus]);

  const pointer = (event: PointerEvent) => {
    const made = drawing.current!;
    if (grip.current) {
      const [wide, tall] = made.area;
      const [dx, dy] = [event.offsetX - grip.current.left, event.offsetY - grip.current.top];
      if (grip.current.moved || Math.abs(dx) + Math.abs(dy) > 3) {
        made.move(-dx / wide, dy / tall);
        grip.current = { left: event.offsetX, top: event.offsetY, moved: true };
        setHit(null);
      }
      return;
    }
    made.hit = made.find(event.offsetX, event.offsetY);
    made.schedule();
    setHit(made.hit);
  };
  const press = (event: PointerEvent) => {
    above.current!.setPointerCapture(event.pointerId);
    grip.current = { left: event.offsetX, top: event.offsetY, moved: false };
  };
  const release = (event: PointerEvent) => {
    const moved = grip.current?.moved;
    grip.current = null;
    const found = moved ? null : drawing.current!.find(event.offsetX, event.offsetY);
    if (found && found.id !== null) props.onPick?.(found.id);
  };
  const leave = () => {
    drawing.current!.hit = null;
    drawing.current!.schedule();
    setHit(null);
  };
  const KEYS: Record<string, () => void> = {
    ArrowLeft: () => drawing.current!.move(-0.1, 0),
    ArrowRight: () => drawing.current!.move(0.1, 0),
    ArrowUp: () => drawing.current!.move(0, 0.1),
    ArrowDown: () => drawing.current!.move(0, -0.1),
    "+": () => drawing.current!.move(0, 0, 0.8),
    "-": () => drawing.current!.move(0, 0, 1.25),
    "0": () => drawing.current!.reset(),
  };
  const key = (event: KeyboardEvent) => {
    const action = KEYS[event.key];
    if (!action) return;
    event.preventDefault();
    action();
  };
  return (
    <figure class="plot">
      <div ref={box} style={{ height: `${height}px` }}>
        <canvas ref={below} />
        <canvas
          ref={above}
          tabIndex={0}
          role="img"
          aria-label={`${props.label}. Arrow keys move, plus and minus zoom, 0 shows all.`}
          onPointerMove={pointer}
          onPointerDown={press}
          onPointerUp={release}
          onPointerLeave={leave}
          onDblClick={() => drawing.current!.reset()}
          onKeyDown={key}
        />
        {hit && (
          <div class="tip" style={{ left: `${Math.min(hit.left, drawing.current!.width - 180)}px`, top: `${hit.top + 12}px` }}>
            {drawing.current!.shown(hit)}
          </div>
        )}
      </div>
      {!!lines?.length && (
        <figcaption>
          {lines.map((line) => (
            <span key={line.label} class="key">
              <i class={line.dashed ? "dashed" : ""} style={{ borderColor: `var(--${line.color})` }} />
              {line.label}
            </span>
          ))}
        </figcaption>
      )}
    </figure>
  );
}

