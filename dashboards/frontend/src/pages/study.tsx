import type { ComponentChildren, JSX } from "preact";
import { useMemo } from "preact/hooks";
import { askPoints, isReport, useAnswer, useAsked, useLive, useThrottled } from "../api";
import { ago, duration, moment, number, percent } from "../format";
import { type Cloud, type Line, Plot } from "../plot";
import { go, type Route, setQuery } from "../router";
import { address } from "../api";
import type { Curve, Driver, Row, StudyDetail, StudyRow, Summary } from "../types";
import { Answer, Badge, Bar, Card, Empty, Segments, Stat, StudyHead, Table, TrialLink } from "../ui";

const AXES: [string, string][] = [
  ["order", "trials"],
  ["cost", "paid seconds"],
  ["elapsed", "seconds since the start"],
];

export function Study({ route }: { route: Route }): JSX.Element {
  const study = route.query.get("study") ?? "";
  const live = useLive<{ study?: StudyRow }>(study);
  const version = useThrottled(live?.study?.summary?.version ?? 0, 400);
  const detail = useAnswer<StudyDetail>("/api/study", { study }, live?.study?.state ?? "");
  const x = route.query.get("x") ?? "order";
  return (
    <>
      <StudyHead study={study} page="/study" />
      <Answer of={detail}>
        {(data) => {
          const now = { ...data, ...(live?.study ?? {}), summary: live?.study?.summary ?? data.summary };
          // First the counts, then what every trial is read for.
          if (!now.summary) return <Counting study={now} />;
          return (
            <>
              <Facts study={now} />
              <BestSoFar study={now} x={x} version={version} />
              <div class="columns">
                <Running study={study} version={version} />
                <Events study={study} version={version} />
              </div>
              <Failures study={study} version={version} />
              <Settings config={data.config} />
            </>
          );
        }}
      </Answer>
    </>
  );
}

function Counting({ study }: { study: StudyDetail }): JSX.Element {
  return (
    <>
      <Facts study={study} />
      <Empty>Counting the trials…</Empty>
      <Settings config={study.config} />
    </>
  );
}

export function Facts({ study }: { study: StudyDetail }): JSX.Element {
  const s = study.summary;
  const counted = (value: (s: Summary) => ComponentChildren) => (s ? value(s) : "…");
  const best = s?.best && (isReport ? `trial ${s.best.number}` : <>trial <TrialLink study={study.study} number={s.best.number} /></>);
  return (
    <dl class="stats" aria-busy={s === null}>
      <Stat label="State" value={<Badge state={study.state} />} note={s && s.progress !== null && study.state !== "completed" && <Bar share={s.progress} />} />
      <Stat label={`Best ${study.goals[0]?.metric ?? ""}`} value={counted((s) => number(s.best?.value))} note={best} />
      <Stat label="Trials" value={counted((s) => number(s.trials))} note={s && `${number(s.states.running)} running, ${number(s.states.failed)} failed`} />
      <Stat label="Rate" value={counted((s) => perMinute(s))} note={s && `last ${ago(s.last_at)}`} />
      <Stat
        label="Paid time"
        value={counted((s) => duration(s.paid_seconds))}
        note={s && `${duration(s.gpu_seconds)} of GPUs${s.cost !== null ? `, cost ${s.cost.toFixed(2)}` : ""}`}
      />
      <Stat
        label="Saved by the store"
        value={counted((s) => (s.trials ? percent(s.saved / s.trials) : "–"))}
        note={s && duration(s.saved_seconds)}
      />
      <Stat label="Space" value={study.space.replace(/\[.*/, "")} note={[...options(study.space), study.task, study.strategy].join(" · ")} />
    </dl>
  );
}

/** The options that a space's key names in brackets. */
function options(space: string): string[] {
  return /\[(.+)\]/.exec(space)?.[1]?.split(",") ?? [];
}

/** How fast a study runs, or how fast it ran from its first proposal to its last measurement. */
function perMinute(s: Summary): string {
  if (s.per_minute !== null) return `${number(Math.round(s.per_minute))} / min`;
  const minutes = ((s.last_at ?? 0) - (s.first_at ?? 0)) / 60;
  return minutes > 0 ? `${number(Number((s.trials / minutes).toPrecision(2)))} / min` : "–";
}

export function BestSoFar(props: { study: StudyDetail; x: string; version: number }): JSX.Element {
  const { study, x, version } = props;
  const name = study.study;
  const goal = study.goals[0];
  const curve = useAnswer<Curve>("/api/curve", { study: name, x }, version);
  const points = useAsked(`${address("/api/points", { study: name, x, y: "goal" })}#${version}`, (signal) =>
    askPoints({ study: name, x, y: "goal" }, signal),
  );
  const cloud = useMemo<Cloud | null>(() => points.data && { ...points.data, colored: false }, [points.data]);
  const lines = useMemo<Line[]>(() => {
    const steps = curve.data?.steps ?? [];
    const last = steps[steps.length - 1];
    const held: [number, number][] = steps.map(([a, b]) => [a, b]);
    if (last && curve.data && curve.data.end > last[0]) held.push([curve.data.end, last[1]]);
    return [{ label: "best so far", color: "accent", points: held, step: "after", ids: steps.map((s) => s[2]) }];
  }, [curve.data]);
  const axis = AXES.find(([value]) => value === x)?.[1] ?? x;
  return (
    <Card
      title="Best so far"
      aside={!isReport && <Segments label="Axis" value={x} options={AXES} onChange={(v) => setQuery({ x: v === "order" ? null : v })} />}
    >
      {curve.error && <p class="problem">{curve.error.message}</p>}
      {curve.data && !curve.data.steps.length ? (
        <Empty>
          No trial counts yet: none is completed at {number(study.epochs)} epochs within the constraints. They appear here as they
          finish.
        </Empty>
      ) : (
        <Plot
          label={`Best ${goal?.metric} over ${axis}`}
          x={axis}
          y={goal?.metric ?? ""}
          cloud={cloud}
          lines={lines}
          focus={goal?.maximize ? "high" : "low"}
          onPick={(number) => !isReport && go(address("/architecture", { study: name, number }))}
        />
      )}
      {points.data ? (
        <p class="note" data-points={points.data.count}>
          {number(points.data.count)} of {number(points.data.matched)} distinct trials that count are drawn.
        </p>
      ) : (
        <p class="note">{points.error ? points.error.message : "Reading the trials…"}</p>
      )}
    </Card>
  );
}

function Running({ study, version }: { study: string; version: number }): JSX.Element {
  const running = useAnswer<{ trials: Row[]; driver: Driver | null }>("/api/running", { study }, version);
  return (
    <Card title="Running now">
      <Answer of={running}>
        {({ trials, driver }) => (
          <>
            {driver && (
              <p class="note">
                {driver.alive ? "Driven" : "Was driven"} by process {driver.pid} on {driver.host}
                {driver.executor && `, executor ${driver.executor}`}
                {driver.alive ? "" : `, silent for ${duration(driver.silent_seconds)}`}.
              </p>
            )}
            {driver && driver.workers.length > 0 && (
              <Table
                caption="Workers"
                rows={driver.workers as unknown as Row[]}
                columns={[{ name: "name", title: "worker" }, { name: "host" }, { name: "pid", render: (r) => String(r.pid) }, { name: "gpu" }, { name: "busy", title: "trials" }]}
              />
            )}
            {trials.length ? (
              <Table
                caption="Running trials"
                rows={trials}
                columns={[
                  { name: "number", title: "trial", render: (r) => <TrialLink study={study} number={Number(r.number)} /> },
                  { name: "epochs" },
                  { name: "running_seconds", title: "for" },
                  { name: "attempts", title: "start" },
                  { name: "why" },
                  { name: "architecture", render: (r) => <code class="long">{r.architecture}</code> },
                ]}
              />
            ) : (
              <Empty>
                No trial runs. {driver ? "" : <>To go on with this study: <code>nasplat resume {study}</code></>}
              </Empty>
            )}
          </>
        )}
      </Answer>
    </Card>
  );
}

function Failures({ study, version }: { study: string; version: number }): JSX.Element {
  const failures = useAnswer<{ reasons: Record<string, number>; trials: Row[] }>("/api/failures", { study }, version);
  return (
    <Card title="Failures">
      <Answer of={failures}>
        {({ reasons, trials }) =>
          trials.length ? (
            <>
              <p class="chips">
                {Object.entries(reasons).map(([reason, n]) => (
                  <span key={reason} class="chip">
                    {reason} <b>{number(n)}</b>
                  </span>
                ))}
              </p>
              {trials.slice(0, 30).map((trial) => (
                <details key={String(trial.number)} class="failure">
                  <summary>
                    <TrialLink study={study} number={Number(trial.number)} /> <Badge state={String(trial.failure_reason)} />{" "}
                    {trial.failure_message}
                  </summary>
                  <code class="long">{trial.architecture}</code>
                  <pre>{trial.failure_traceback || "There is no traceback."}</pre>
                </details>
              ))}
              {trials.length > 30 && <p class="note">The latest 30 are shown; all are on the page of trials with the filter state == 'failed'.</p>}
            </>
          ) : (
            <Empty>No trial has failed.</Empty>
          )
        }
      </Answer>
    </Card>
  );
}

function Events({ study, version }: { study: string; version: number }): JSX.Element {
  const events = useAnswer<{ id: number; at: number; kind: string; detail: Record<string, unknown> }[]>("/api/events", { study }, version);
  return (
    <Card title="Events">
      <Answer of={events}>
        {(rows) =>
          rows.length ? (
            <ol class="events">
              {rows.slice(0, 40).map((event) => (
                <li key={event.id}>
                  <time>{moment(event.at)}</time> <b>{event.kind}</b>{" "}
                  {Object.entries(event.detail)
                    .map(([key, value]) => `${key} ${typeof value === "object" ? JSON.stringify(value) : value}`)
                    .join(", ")}
                </li>
              ))}
            </ol>
          ) : (
            <Empty>Nothing has been noted.</Empty>
          )
        }
      </Answer>
    </Card>
  );
}

/** A setting as text: lists and tables item by item, what is not set left out. */
function setting(value: unknown): string {
  if (Array.isArray(value)) return value.map(setting).join(", ");
  if (value !== null && typeof value === "object") {
    const items = Object.entries(value).filter(([, v]) => v !== null && v !== 0 && v !== false);
    return items.map(([k, v]) => `${k} ${setting(v)}`).join(", ");
  }
  return value === null || value === undefined ? "" : String(value);
}

export function Settings({ config }: { config: Record<string, unknown> }): JSX.Element {
  return (
    <Card title="Settings">
      <dl class="settings">
        {Object.entries(config)
          .filter(([, value]) => setting(value) !== "")
          .map(([key, value]) => (
            <div key={key}>
              <dt>{key}</dt>
              <dd>{setting(value)}</dd>
            </div>
          ))}
      </dl>
    </Card>
  );
}
