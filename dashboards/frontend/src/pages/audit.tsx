import type { JSX } from "preact";
import { useMemo, useState } from "preact/hooks";
import { address, isReport, useAnswer } from "../api";
import { number } from "../format";
import { type Cloud, Plot } from "../plot";
import { go, type Route } from "../router";
import type { Audit, Interval, Row, ScoreAudit } from "../types";
import { Answer, Card, Choice, IntervalBar, StudyHead, Table } from "../ui";

export function AuditPage({ route }: { route: Route }): JSX.Element {
  const study = route.query.get("study") ?? "";
  return (
    <>
      <StudyHead study={study} page="/audit" />
      <AuditCards study={study} />
    </>
  );
}

export function AuditCards({ study }: { study: string }): JSX.Element {
  const found = useAnswer<Audit>("/api/audit", { study });
  return (
    <Answer of={found}>
      {(data) => (
        <>
          <AuditTable data={data} />
          <AuditPlot study={study} data={data} />
        </>
      )}
    </Answer>
  );
}

const VERDICTS: Record<string, string> = { "beats counting": "good", "adds to counting": "good", "adds nothing": "bad", "is counting": "" };
const spelled = (i: Interval | undefined) => (i ? `${i.value.toFixed(3)} [${i.low.toFixed(3)}, ${i.high.toFixed(3)}]` : "–");

function AuditTable({ data }: { data: Audit }): JSX.Element {
  const scores = [...data.scores].sort((a, b) => b.tau.value - a.tau.value);
  const counts = [...new Set(scores.flatMap((s) => Object.keys(s.partial_rho)))].sort();
  const of = (row: Row) => row as unknown as ScoreAudit;
  return (
    <Card title="Do zero-cost scores tell more than counting?">
      <Table
        caption="Scores against the trained metric"
        rows={scores as unknown as Row[]}
        columns={[
          { name: "score" },
          { name: "verdict", render: (r) => <span class={`verdict ${VERDICTS[of(r).verdict] ?? ""}`}>{of(r).verdict}</span> },
          { name: "tau", title: "Kendall τ", numeric: true, render: (r) => spelled(of(r).tau) },
          { name: "bar", title: "95 % interval of τ", render: (r) => <IntervalBar {...of(r).tau} from={-1} to={1} /> },
          { name: "rho", title: "Spearman ρ", numeric: true, render: (r) => spelled(of(r).rho) },
          ...counts.map((count) => ({ name: count, title: `ρ given ${count}`, numeric: true, render: (r: Row) => spelled(of(r).partial_rho[count]) })),
          { name: "top_overlap", title: "top 10 %", numeric: true, render: (r) => of(r).top_overlap.toFixed(2) },
        ]}
      />
      <p class="note">
        Against {data.goal.metric} of {number(data.architectures)} of {number(data.of)} distinct trained architectures; intervals of 95 % by{" "}
        {number(data.resamples)} bootstrap resamples. A score beats counting if its τ is above that of both params and FLOPs, and adds to counting if its ρ
        with either of them held fixed is above 0, by the whole interval. The top 10 % is the share of the best tenth that is in the best tenth by score, 0.1
        by chance.
      </p>
    </Card>
  );
}

function AuditPlot({ study, data }: { study: string; data: Audit }): JSX.Element {
  const names = data.scores.map((s) => s.score);
  const best = [...data.scores].sort((a, b) => b.tau.value - a.tau.value)[0]?.score ?? "";
  const [score, setScore] = useState(best);
  const cloud = useMemo<Cloud>(() => {
    const take = (values: (number | null)[] | undefined) => Float32Array.from(values ?? [], (v) => v ?? Number.NaN);
    const ids = Uint32Array.from(data.points.numbers ?? [], (v) => v ?? 0);
    return { x: take(data.points[score]), y: take(data.points.trained), c: new Float32Array(ids.length), id: ids, colored: false };
  }, [data, score]);
  return (
    <Card title="Score against what training gave" aside={<Choice label="Score" value={score} options={names} onChange={setScore} />}>
      <Plot
        label={`${data.goal.metric} against ${score}`}
        x={score}
        y={data.goal.metric}
        cloud={cloud}
        onPick={(number) => !isReport && go(address("/architecture", { study, number }))}
      />
    </Card>
  );
}
