import type { JSX } from "preact";
import { useAnswer } from "../api";
import { cell, compact, duration, moment, number } from "../format";
import { Drawing } from "../graph";
import { Link, type Route } from "../router";
import type { ArchitectureDetail, Goal, Relative, Row } from "../types";
import { Answer, Badge, Card, Copy, Empty, Stat, StudyHead, Table, TrialLink } from "../ui";

export function Architecture({ route }: { route: Route }): JSX.Element {
  const study = route.query.get("study") ?? "";
  const trial = route.query.get("number") ?? "0";
  const found = useAnswer<ArchitectureDetail>("/api/architecture", { study, number: trial });
  return (
    <>
      <StudyHead study={study} page="/architecture">
        <p class="sub">
          Trial {trial}{" "}
          <span class="steps">
            <Link to="/architecture" params={{ study, number: Math.max(0, Number(trial) - 1) }} aria-label="Previous trial">
              ‹
            </Link>{" "}
            <Link to="/architecture" params={{ study, number: Number(trial) + 1 }} aria-label="Next trial">
              ›
            </Link>
          </span>
        </p>
      </StudyHead>
      <Answer of={found}>{(data) => <Detail study={study} data={data} />}</Answer>
    </>
  );
}

export function Detail({ study, data }: { study: string; data: ArchitectureDetail }): JSX.Element {
  const { trial, architecture } = data;
  return (
    <>
      <dl class="stats">
        <Stat label="State" value={<Badge state={String(trial.state)} />} note={trial.saved ? "known before, not paid" : duration(trial.seconds as number | null)} />
        <Stat label="Parameters" value={data.counts.params === undefined ? "–" : compact(data.counts.params)} note={data.counts.params !== undefined && number(data.counts.params)} />
        <Stat label="FLOPs" value={data.counts.flops === undefined ? "–" : compact(data.counts.flops)} note="a forward pass of one example" />
        {trial.metrics.filter((m) => !(m.name in data.counts)).slice(0, 4).map((m) => (
          <Stat key={m.name} label={m.name} value={number(m.value)} note={m.role === "none" ? null : `${m.role} data`} />
        ))}
        <Stat label="Proposed" value={String(trial.why)} note={moment(trial.asked_at as number)} />
      </dl>
      {trial.failure_reason && (
        <Card title={`Failed: ${trial.failure_reason}`}>
          <p>{trial.failure_message}</p>
          <pre>{trial.failure_traceback || "There is no traceback."}</pre>
        </Card>
      )}
      <div class="columns wide-first">
        <Card title="Drawing" class="drawing">
          {data.graph ? <Drawing graph={data.graph} /> : <Empty>{data.not_drawn}</Empty>}
          <p class="note">
            <code class="long">{architecture.text}</code>
          </p>
          <p class="note">
            {architecture.space} · fingerprint <code>{architecture.fingerprint}</code>
          </p>
        </Card>
        <Card title="Choices">
          <dl class="settings">
            {Object.entries(data.choices).map(([choice, value]) => (
              <div key={choice}>
                <dt>{choice}</dt>
                <dd>{value}</dd>
              </div>
            ))}
          </dl>
        </Card>
      </div>
      <Measurements data={data} />
      <div class="columns">
        <Card title="Ancestors">
          <Relatives study={study} rows={data.ancestors} goals={data.goals} none="It was not made from another trial." />
        </Card>
        <Card title="Descendants">
          <Relatives study={study} rows={trial.children} goals={data.goals} none="No trial was made from it." />
        </Card>
      </div>
      {data.code && (
        <Card title="Build it" aside={<Copy text={data.code} />}>
          <pre class="code">{data.code}</pre>
        </Card>
      )}
      <Card title="Where it was proposed">
        <Table
          caption="Trials with this architecture"
          rows={architecture.trials}
          columns={[
            { name: "study", render: (r) => <Link to="/study" params={{ study: String(r.study) }}>{r.study}</Link> },
            { name: "number", title: "trial", render: (r) => <TrialLink study={String(r.study)} number={Number(r.number)} /> },
            { name: "epochs" },
            { name: "state", render: (r) => <Badge state={String(r.state)} /> },
            { name: "why" },
          ]}
        />
      </Card>
      {data.provenance && (
        <Card title="Measured with">
          <dl class="settings">
            {Object.entries(data.provenance).map(([key, value]) => (
              <div key={key}>
                <dt>{key}</dt>
                <dd>{typeof value === "object" ? JSON.stringify(value) : String(value)}</dd>
              </div>
            ))}
          </dl>
        </Card>
      )}
    </>
  );
}

function Measurements({ data }: { data: ArchitectureDetail }): JSX.Element {
  const rows = data.architecture.measurements;
  const metrics = [...new Set(rows.flatMap((row) => Object.keys(row.metrics)))].sort();
  const flat = rows.map((row): Row => ({ ...(row as unknown as Row), ...row.metrics }));
  const fixed = ["epochs", "seed", "data_fraction", "resolution"].filter((name) => name !== "resolution" || flat.some((row) => row[name] !== null));
  return (
    <Card title="All its measurements">
      {rows.length ? (
        <Table
          caption="Measurements of this architecture at every fidelity"
          rows={flat}
          columns={[...fixed, ...metrics, "seconds"].map((name) => ({ name, render: (row: Row) => cell(name, row[name]) }))}
        />
      ) : (
        <Empty>It has not been measured yet.</Empty>
      )}
    </Card>
  );
}

function Relatives(props: { study: string; rows: Relative[]; goals: Goal[]; none: string }): JSX.Element {
  if (!props.rows.length) return <Empty>{props.none}</Empty>;
  const goal = props.goals[0];
  const value = (row: Row) => (row.objective_0 === null ? null : Number(row.objective_0) * (goal?.maximize ? -1 : 1));
  return (
    <Table
      caption="Relatives"
      rows={props.rows as unknown as Row[]}
      columns={[
        { name: "number", title: "trial", render: (r) => <TrialLink study={props.study} number={Number(r.number)} /> },
        { name: "objective_0", title: goal?.metric ?? "goal", render: (r) => number(value(r)) },
        { name: "why" },
        { name: "architecture", render: (r) => <code class="long">{r.architecture}</code> },
      ]}
    />
  );
}
