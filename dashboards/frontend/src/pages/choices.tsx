import type { JSX } from "preact";
import { isReport, useAnswer } from "../api";
import { number, percent } from "../format";
import { ParallelPlot } from "../parallel";
import { type Route, setQuery } from "../router";
import type { Importance, Lineage, Parallel, Row } from "../types";
import { Answer, Card, Empty, IntervalBar, Segments, StudyHead, Table } from "../ui";

export function Choices({ route }: { route: Route }): JSX.Element {
  const study = route.query.get("study") ?? "";
  return (
    <>
      <StudyHead study={study} page="/importance" />
      <ImportanceCard study={study} method={route.query.get("method") ?? "ped-anova"} />
      <ParallelCard study={study} />
    </>
  );
}

export function ImportanceCard({ study, method }: { study: string; method: string }): JSX.Element {
  const found = useAnswer<Importance>("/api/importance", { study, method });
  return (
    <Card
      title="Which choices matter"
      aside={!isReport && <Segments label="Method" value={method} options={[["ped-anova", "PED-ANOVA"], ["fanova", "fANOVA"]]} onChange={(v) => setQuery({ method: v })} />}
    >
      <Answer of={found}>
        {(data) =>
          data.importances.length ? (
            <>
              <ol class="bars">
                {data.importances.map(({ choice, importance }) => (
                  <li key={choice}>
                    <span>{choice}</span>
                    <meter min={0} max={data.importances[0]?.importance || 1} value={importance} />
                    <b>{percent(importance, 1)}</b>
                  </li>
                ))}
              </ol>
              <p class="note">
                {method === "fanova"
                  ? "Share of the variance of "
                  : "How much each choice sets the best tenth apart from all trials by "}
                {data.goal}, from {number(data.trials)} of {number(data.of)} distinct trials.
              </p>
            </>
          ) : (
            <Empty>Every choice has the same value in all trials, so that none can matter.</Empty>
          )
        }
      </Answer>
    </Card>
  );
}

export function ParallelCard({ study }: { study: string }): JSX.Element {
  const found = useAnswer<Parallel>("/api/parallel", { study });
  return (
    <Card title="Choices side by side">
      <Answer of={found}>{(data) => <ParallelPlot data={data} />}</Answer>
    </Card>
  );
}

export function LineagePage({ route }: { route: Route }): JSX.Element {
  const study = route.query.get("study") ?? "";
  return (
    <>
      <StudyHead study={study} page="/lineage" />
      <LineageCards study={study} />
    </>
  );
}

export function LineageCards({ study }: { study: string }): JSX.Element {
  const found = useAnswer<Lineage>("/api/lineage", { study });
  return (
    <Answer of={found}>
      {(data) => {
        if (!data.steps)
          return (
            <Card title="Lineage">
              <Empty>No trial of this study was made from another one: only evolution and local search have a lineage.</Empty>
            </Card>
          );
        const ends = [...data.choices, ...data.changes.slice(0, 30)].flatMap((c) => [c.low ?? c.mean, c.high ?? c.mean]);
        const reach = Math.max(...ends.map(Math.abs), 1e-9);
        const shared = (row: Row) => (
          <IntervalBar value={Number(row.mean)} low={row.low as number | null} high={row.high as number | null} from={-reach} to={reach} />
        );
        const effects = [
          { name: "n", title: "changes" },
          { name: "mean", title: `mean gain in ${data.goal.metric}`, render: (r: Row) => (r.low === null ? number(r.mean) : `${number(r.mean)} [${number(r.low)}, ${number(r.high)}]`) },
          { name: "interval", title: "95 % interval", render: shared, numeric: false },
          {
            name: "improved",
            title: "improved",
            numeric: true,
            render: (r: Row) => `${percent(Number(r.improved))} [${percent(Number(r.improved_low))}, ${percent(Number(r.improved_high))}]`,
          },
        ];
        return (
          <>
            <Card title="What changing each choice gained">
              <Table caption="Gain by choice" rows={data.choices as unknown as Row[]} columns={[{ name: "choice" }, ...effects]} />
              <p class="note">
                From the latest {number(data.steps)} children of one parent where both count: {number(data.different)} different changes, of which{" "}
                {number(data.several)} changed several choices at once and are left out. A gain is how much better than its parent a child is. Intervals are
                Student's for means and Wilson's for shares, not adjusted for there being several.
              </p>
            </Card>
            <Card title="What each mutation gained">
              <Table
                caption="Gain by mutation"
                rows={data.changes.slice(0, 30) as unknown as Row[]}
                columns={[{ name: "choice" }, { name: "before", title: "from" }, { name: "after", title: "to" }, ...effects]}
              />
            </Card>
          </>
        );
      }}
    </Answer>
  );
}
