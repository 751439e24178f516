import type { JSX } from "preact";
import { useMemo } from "preact/hooks";
import { useAnswer } from "../api";
import { number } from "../format";
import { type Band, type Line, Plot } from "../plot";
import { Link, type Route, setQuery } from "../router";
import type { Comparison, Group, Row } from "../types";
import { Answer, Card, Empty, Segments, Table } from "../ui";

const AXES: [string, string][] = [
  ["order", "trials"],
  ["cost", "paid seconds"],
  ["elapsed", "seconds since the start"],
];

export function Compare({ route }: { route: Route }): JSX.Element {
  const studies = route.query.getAll("study");
  const x = route.query.get("x") ?? "order";
  const found = useAnswer<Comparison>("/api/compare", { study: studies, x });
  return (
    <>
      <div class="head">
        <h1>Compare studies</h1>
        <div class="controls">
          <Segments label="Axis" value={x} options={AXES} onChange={(v) => setQuery({ x: v === "order" ? null : v })} />
        </div>
      </div>
      {studies.length ? (
        <Answer of={found}>{(data) => <Curves data={data} axis={AXES.find(([v]) => v === x)?.[1] ?? x} />}</Answer>
      ) : (
        <Empty>
          Choose studies on the <Link to="/">page of all studies</Link> by the boxes before their names.
        </Empty>
      )}
    </>
  );
}

const label = (group: Group, i: number) => `${String.fromCharCode(65 + i)}: ${group.label}${group.studies.length > 1 ? `, ${group.studies.length} seeds` : ` (${group.studies[0]})`}`;
const COLORS = ["series-1", "series-2", "series-3", "series-4", "series-5", "series-6"];

function Curves({ data, axis }: { data: Comparison; axis: string }): JSX.Element {
  const lines = useMemo<Line[]>(
    () =>
      data.groups.map((group, i) => ({
        label: label(group, i),
        color: COLORS[i % COLORS.length]!,
        dashed: i >= COLORS.length,
        step: "after",
        points: group.grid.flatMap((x, j): [number, number][] => (group.median[j] == null ? [] : [[x, group.median[j]!]])),
      })),
    [data],
  );
  const bands = useMemo<Band[]>(
    () =>
      data.groups
        .map((group, i) => ({
          color: COLORS[i % COLORS.length]!,
          points: group.grid.flatMap((x, j): [number, number, number][] => (group.low[j] == null || group.high[j] == null ? [] : [[x, group.low[j]!, group.high[j]!]])),
        }))
        .filter((_, i) => data.groups[i]!.studies.length > 1),
    [data],
  );
  const tested = data.tests.map((test): Row => ({
    pair: `${String.fromCharCode(65 + test.first)} against ${String.fromCharCode(65 + test.second)}`,
    runs: `${test.n[0]} and ${test.n[1]}`,
    superiority: test.superiority,
    p: test.p,
    adjusted: test.adjusted ?? null,
  }));
  const finals = data.groups.map((group, i): Row => {
    const values = group.finals.filter((v): v is number => v !== null).sort((a, b) => a - b);
    return {
      group: label(group, i),
      runs: values.length,
      median: values.length ? (values[Math.floor((values.length - 1) / 2)]! + values[Math.ceil((values.length - 1) / 2)]!) / 2 : null,
      lowest: values[0] ?? null,
      highest: values[values.length - 1] ?? null,
    };
  });
  return (
    <>
      <Card title={`Best ${data.goal.metric} so far`}>
        <Plot label={`Best ${data.goal.metric} over ${axis}`} x={axis} y={data.goal.metric} lines={lines} bands={bands} height={420} />
        <p class="note">
          Lines are medians, bands reach from the worst to the best seed. Studies that differ in nothing but seed and name are one group.
        </p>
      </Card>
      <div class="columns">
        <Card title={`At ${number(data.common_end)} ${axis}`}>
          <Table caption="Best values of the groups" rows={finals} columns={[{ name: "group" }, { name: "runs" }, { name: "median" }, { name: "lowest" }, { name: "highest" }]} />
        </Card>
        <Card title="Is the difference chance?">
          {tested.length ? (
            <>
              <Table
                caption="Tests of pairs"
                rows={tested}
                columns={[
                  { name: "pair" },
                  { name: "runs" },
                  { name: "superiority", title: "first one better", numeric: true, render: (r) => (r.superiority === null ? "–" : Number(r.superiority).toFixed(2)) },
                  { name: "p", title: "p", numeric: true, render: (r) => (r.p === null ? "needs 2 seeds each" : Number(r.p).toPrecision(2)) },
                  { name: "adjusted", title: "adjusted p", numeric: true, render: (r) => (r.adjusted === null ? "–" : Number(r.adjusted).toPrecision(2)) },
                ]}
              />
              <p class="note">
                Mann-Whitney's test on the best value of each run where all of them have come to, adjusted by Holm for the number of pairs. "First one better"
                is the chance that a run of the first group beats one of the second.
              </p>
            </>
          ) : (
            <Empty>There is one group. Add studies with another strategy or other settings.</Empty>
          )}
        </Card>
      </div>
      {data.differences.length > 0 && (
        <Card title="Settings that differ">
          <Table
            caption="Settings that differ"
            rows={data.differences.map((d): Row => ({ setting: d.setting, values: [...new Set(d.values)].join("  ·  ") }))}
            columns={[{ name: "setting" }, { name: "values" }]}
          />
        </Card>
      )}
    </>
  );
}
