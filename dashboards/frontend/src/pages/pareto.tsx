import type { JSX } from "preact";
import { useMemo } from "preact/hooks";
import { address, askPoints, isReport, useAnswer, useAsked, useLive, useThrottled } from "../api";
import { number } from "../format";
import { type Cloud, type Line, Plot } from "../plot";
import { go, type Route, setQuery } from "../router";
import type { Front, Row, StudyDetail, StudyRow } from "../types";
import { Answer, Card, Choice, Empty, Problem, Segments, StudyHead, Table, TextField, Toggle, TrialLink } from "../ui";

const SMALLER = /(loss|params|flops|error|seconds|_ms|_bytes)$/;
const EXTRA = ["seconds", "epochs", "order", "cost", "elapsed", "gpu_seconds"];

const maximized = (metric: string, given: string | null) => (given ? given === "max" : !SMALLER.test(metric));

export function Pareto({ route }: { route: Route }): JSX.Element {
  const study = route.query.get("study") ?? "";
  const detail = useAnswer<StudyDetail>("/api/study", { study });
  return (
    <>
      <StudyHead study={study} page="/pareto" />
      <Answer of={detail}>{(data) => <ParetoPlot detail={data} query={route.query} />}</Answer>
    </>
  );
}

export function ParetoPlot({ detail, query }: { detail: StudyDetail; query: URLSearchParams }): JSX.Element {
  const study = detail.study;
  const live = useLive<{ study?: StudyRow }>(study);
  const version = useThrottled(live?.study?.summary?.version ?? 0, 700);
  const first = detail.goals[0]?.metric ?? "";
  const second = detail.goals[1]?.metric ?? ["params", "flops", "seconds"].find((m) => m === "seconds" || detail.metrics.includes(m)) ?? "seconds";
  const names = [...new Set([...detail.metrics, ...EXTRA])];
  const x = query.get("x") ?? second;
  const y = query.get("y") ?? first;
  const color = query.get("color") ?? "";
  const where = query.get("where") ?? `state == 'completed' and epochs == ${detail.epochs ?? 0}`;
  const xMax = maximized(x, query.get("xdir") ?? (x === first && detail.goals[0] ? (detail.goals[0].maximize ? "max" : "min") : null));
  const yMax = maximized(y, query.get("ydir") ?? (y === first && detail.goals[0] ? (detail.goals[0].maximize ? "max" : "min") : null));
  const xLog = query.get("xlog") === "1";
  const yLog = query.get("ylog") === "1";
  const question = { study, x, y, color, where };
  const points = useAsked(`${address("/api/points", question)}#${version}`, (signal) => askPoints(question, signal));
  const front = useAnswer<Front>("/api/front", { study, x: `${xMax ? "max" : "min"} ${x}`, y: `${yMax ? "max" : "min"} ${y}`, where }, version);
  const cloud = useMemo<Cloud | null>(() => points.data && { ...points.data, colored: !!color }, [points.data, color]);
  const lines = useMemo<Line[]>(() => {
    const found = [...(front.data?.points ?? [])].sort((a, b) => a[1] - b[1]);
    return [{ label: "Pareto front", color: "front", points: found.map(([, a, b]) => [a, b]), ids: found.map((p) => p[0]), dots: true, step: xMax ? "before" : "after" }];
  }, [front.data, xMax]);
  const open = (trial: number) => !isReport && go(address("/architecture", { study, number: trial }));
  return (
    <>
      {!isReport && (
        <div class="controls">
          <Choice label="Across" value={x} options={names} onChange={(v) => setQuery({ x: v, xdir: null })} />
          <Segments label="Better across" value={xMax ? "max" : "min"} options={[["min", "less"], ["max", "more"]]} onChange={(v) => setQuery({ xdir: v })} />
          <Choice label="Up" value={y} options={names} onChange={(v) => setQuery({ y: v, ydir: null })} />
          <Segments label="Better up" value={yMax ? "max" : "min"} options={[["min", "less"], ["max", "more"]]} onChange={(v) => setQuery({ ydir: v })} />
          <Choice label="Colour" value={color} options={[["", "none"], ...names.map((n): [string, string] => [n, n])]} onChange={(v) => setQuery({ color: v })} />
          <Toggle label="log across" on={xLog} onChange={(on) => setQuery({ xlog: on ? "1" : null })} />
          <Toggle label="log up" on={yLog} onChange={(on) => setQuery({ ylog: on ? "1" : null })} />
          <TextField label="Only trials where" wide value={where} onChange={(v) => setQuery({ where: v })} />
        </div>
      )}
      <Card title="Pareto front">
        {points.error && <Problem error={points.error} />}
        {points.data?.count === 0 && <Empty>No trial has both metrics and satisfies the condition. Choose others, or relax it.</Empty>}
        <Plot label={`${y} against ${x}`} x={x} y={y} xLog={xLog} yLog={yLog} cloud={cloud} lines={lines} height={440} onPick={open} />
        {points.data && front.data && (
          <p class="note" data-points={points.data.count}>
            {number(points.data.count)} of {number(points.data.matched)} trials are drawn
            {color && <>, coloured by {color} from <i class="scale" /> low to high</>}. The front has {front.data.points.length} of {number(front.data.trials)}{" "}
            distinct ones; its hypervolume is {number(front.data.hypervolume)} to the worst values, {x} {number(front.data.reference[0])} and {y}{" "}
            {number(front.data.reference[1])}.
          </p>
        )}
      </Card>
      {front.data && front.data.points.length > 0 && (
        <Card title="On the front">
          <Table
            caption="Trials on the front"
            rows={front.data.points.map(([trial, a, b]): Row => ({ number: trial, [x]: a, [y]: b }))}
            columns={[{ name: "number", title: "trial", render: (r) => <TrialLink study={study} number={Number(r.number)} /> }, { name: x }, { name: y }]}
          />
        </Card>
      )}
    </>
  );
}
