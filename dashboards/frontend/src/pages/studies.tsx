import type { JSX } from "preact";
import { useAnswer, useLive } from "../api";
import { ago, duration, number, percent } from "../format";
import { go, Link, setQuery, type Route } from "../router";
import type { StudyRow } from "../types";
import { Answer, Badge, Bar, Choice, Empty, TextField } from "../ui";
import { address } from "../api";

const ORDERS: [string, string][] = [
  ["newest", "newest first"],
  ["active", "last active first"],
  ["name", "by name"],
  ["trials", "most trials first"],
  ["cost", "most paid first"],
];

const KEYS: Record<string, (row: StudyRow) => number | string> = {
  newest: (row) => -row.created_at,
  active: (row) => -(row.summary?.last_at ?? row.created_at),
  name: (row) => row.study,
  trials: (row) => -(row.summary?.trials ?? 0),
  cost: (row) => -(row.summary?.paid_seconds ?? 0),
};

export function Studies({ route }: { route: Route }): JSX.Element {
  const first = useAnswer<StudyRow[]>("/api/studies");
  const live = useLive<{ studies?: StudyRow[] }>(null);
  const loaded = live?.studies ? { data: live.studies, error: null, loading: false } : first;
  const text = route.query.get("find") ?? "";
  const state = route.query.get("state") ?? "";
  const order = route.query.get("order") ?? "newest";
  const chosen = route.query.getAll("compare");
  const mark = (name: string, on: boolean) => {
    const query = new URLSearchParams(location.search);
    query.delete("compare");
    for (const other of chosen) if (other !== name) query.append("compare", other);
    if (on) query.append("compare", name);
    const changed = query.toString();
    go(changed ? `/?${changed}` : "/", true);
  };
  return (
    <>
      <div class="head">
        <h1>Studies</h1>
        <div class="controls">
          <TextField label="Find" value={text} placeholder="name, space, task, strategy" onChange={(v) => setQuery({ find: v })} />
          <Choice
            label="State"
            value={state}
            options={[["", "any"], "running", "completed", "interrupted", "lost", "failed"]}
            onChange={(v) => setQuery({ state: v })}
          />
          <Choice label="Order" value={order} options={ORDERS} onChange={(v) => setQuery({ order: v === "newest" ? null : v })} />
          {chosen.length > 0 && (
            <a class="button" href={address("/compare", { study: chosen })}>
              Compare {chosen.length}
            </a>
          )}
        </div>
      </div>
      <Answer of={loaded}>
        {(rows) => {
          if (!rows.length)
            return (
              <Empty>
                There is no study in this store yet. Start one: <code>nasplat search --space conv-kernels --task digits</code>
              </Empty>
            );
          const words = text.toLowerCase().split(/\s+/).filter(Boolean);
          const shown = rows
            .filter((r) => !state || r.state === state)
            .filter((r) => words.every((w) => `${r.study} ${r.space} ${r.task} ${r.strategy}`.toLowerCase().includes(w)));
          const key = KEYS[order] ?? KEYS.newest!;
          shown.sort((a, b) => (key(a) < key(b) ? -1 : key(a) > key(b) ? 1 : 0));
          if (!shown.length) return <Empty>No study fits: take a word or the state away.</Empty>;
          return <StudyTable rows={shown} chosen={chosen} mark={mark} />;
        }}
      </Answer>
    </>
  );
}

function StudyTable(props: { rows: StudyRow[]; chosen: string[]; mark: (name: string, on: boolean) => void }): JSX.Element {
  return (
    <div class="scroll" tabIndex={0} role="region" aria-label="All studies">
      <table class="studies">
        <thead>
          <tr>
            <th>
              <span class="unseen">Compare</span>
            </th>
            <th>Study</th>
            <th>State</th>
            <th>Space · task · strategy</th>
            <th class="number">Best</th>
            <th class="number">Trials</th>
            <th class="number">per minute</th>
            <th class="number">Saved</th>
            <th class="number">Paid</th>
            <th class="number">Cost</th>
            <th>Last active</th>
          </tr>
        </thead>
        <tbody>
          {props.rows.map((row) => {
            const s = row.summary;
            return (
              <tr key={row.study}>
                <td>
                  <input
                    type="checkbox"
                    aria-label={`Compare ${row.study}`}
                    checked={props.chosen.includes(row.study)}
                    onChange={(e) => props.mark(row.study, e.currentTarget.checked)}
                  />
                </td>
                <td class="name">
                  <Link to="/study" params={{ study: row.study }}>
                    {row.study}
                  </Link>
                  {row.parent && <small>from {row.parent}</small>}
                </td>
                <td>
                  <Badge state={row.state} />
                  {s?.progress != null && row.state !== "completed" && <Bar share={s.progress} />}
                </td>
                <td>
                  {row.space}
                  <small>
                    {row.task} · {row.strategy}
                  </small>
                </td>
                <td class="number">
                  {s ? number(s.best?.value) : "…"}
                  <small>{row.goals[0]?.metric}</small>
                </td>
                <td class="number">
                  {s ? number(s.trials) : "…"}
                  {s && (s.states.failed ?? 0) > 0 && <small>{number(s.states.failed)} failed</small>}
                </td>
                <td class="number">{!s ? "…" : s.per_minute === null ? "–" : number(Math.round(s.per_minute))}</td>
                <td class="number">{s ? (s.trials ? percent(s.saved / s.trials) : "–") : "…"}</td>
                <td class="number">{s ? duration(s.paid_seconds) : "…"}</td>
                <td class="number">{s?.cost != null ? s.cost.toFixed(2) : "–"}</td>
                <td>{ago(s?.last_at ?? row.created_at)}</td>
              </tr>
            );
          })}
        </tbody>
      </table>
    </div>
  );
}
