import type { JSX } from "preact";
import { address, useAnswer, useLive, useThrottled } from "../api";
import { cell, number } from "../format";
import { type Route, setQuery } from "../router";
import type { Row, StudyDetail, StudyRow, TrialPage } from "../types";
import { Answer, Badge, Choice, type Column, Empty, StudyHead, Table, TextField, TrialLink } from "../ui";

const USUAL = ["number", "state", "epochs", "why", "saved", "seconds"];
const OTHERS = ["attempts", "seed", "data_fraction", "resolution", "repeat_of", "gpu_seconds", "peak_memory_bytes", "asked_at", "finished_at", "failure_reason", "failure_message", "fingerprint"];
const SORTABLE = new Set(["number", "state", "epochs", "attempts", "seconds", "gpu_seconds", "finished_at", "asked_at"]);

export function Trials({ route }: { route: Route }): JSX.Element {
  const study = route.query.get("study") ?? "";
  const where = route.query.get("where") ?? "";
  const sort = route.query.get("sort") ?? "number";
  const descending = route.query.get("descending") === "true";
  const offset = Number(route.query.get("offset") ?? 0) || 0;
  const limit = Number(route.query.get("limit") ?? 100) || 100;
  const live = useLive<{ study?: StudyRow }>(study);
  const version = useThrottled(live?.study?.summary?.version ?? 0, 1000);
  const detail = useAnswer<StudyDetail>("/api/study", { study });
  const page = useAnswer<TrialPage>("/api/trials", { study, where, sort, descending, offset, limit }, version);
  const metrics = detail.data?.metrics ?? [];
  const chosen = route.query.get("columns")?.split(",").filter(Boolean) ?? [...USUAL, ...metrics, "architecture"];
  const all = [...USUAL, ...metrics, ...OTHERS, "architecture"];
  const show = (name: string, on: boolean) => setQuery({ columns: all.filter((c) => (c === name ? on : chosen.includes(c))).join(",") });
  const file = (format: string) => address("/api/export", { study, where, sort, descending, format });
  const order = (name: string) => setQuery({ sort: name, descending: name === sort ? String(!descending) : String(metrics.includes(name)), offset: null });
  return (
    <>
      <StudyHead study={study} page="/trials">
        <div class="controls">
          <TextField
            label="Only trials where"
            wide
            value={where}
            placeholder="val_accuracy > 0.9 and params < 1e5"
            onChange={(v) => setQuery({ where: v, offset: null })}
          />
          <Choice label="Rows" value={String(limit)} options={["50", "100", "250", "1000"]} onChange={(v) => setQuery({ limit: v, offset: null })} />
          <details class="menu">
            <summary>Columns</summary>
            <div>
              {all.map((name) => (
                <label key={name} class="toggle">
                  <input type="checkbox" checked={chosen.includes(name)} onChange={(e) => show(name, e.currentTarget.checked)} />
                  {name}
                </label>
              ))}
            </div>
          </details>
          <a class="button" href={file("csv")} download>
            CSV
          </a>
          <a class="button" href={file("parquet")} download>
            Parquet
          </a>
        </div>
      </StudyHead>
      <Answer of={page}>
        {(data) => (
          <>
            {data.rows.length ? (
              <Table
                caption="Trials"
                rows={data.rows}
                columns={chosen.map((name) => column(name, study))}
                sort={sort}
                descending={descending}
                onSort={order}
                sortable={(name) => SORTABLE.has(name) || metrics.includes(name)}
              />
            ) : (
              <Empty>{where ? "No trial satisfies the condition: relax it, or take it away." : "The study has no trial yet."}</Empty>
            )}
            <Pager total={data.total} offset={offset} limit={limit} of={data.trials} />
          </>
        )}
      </Answer>
    </>
  );
}

function column(name: string, study: string): Column {
  const render: Record<string, (row: Row) => JSX.Element | string> = {
    number: (row) => <TrialLink study={study} number={Number(row.number)} />,
    state: (row) => <Badge state={String(row.state)} />,
    architecture: (row) => <code class="long">{row.architecture}</code>,
    fingerprint: (row) => <code>{String(row.fingerprint).slice(0, 12)}</code>,
  };
  const own = render[name];
  return { name, title: name === "number" ? "trial" : name, ...(own ? { render: own } : { render: (row) => cell(name, row[name]) }) };
}

function Pager({ total, offset, limit, of }: { total: number; offset: number; limit: number; of: number }): JSX.Element {
  const to = (value: number) => setQuery({ offset: value <= 0 ? null : String(value) });
  const last = Math.max(0, Math.floor((total - 1) / limit) * limit);
  return (
    <nav class="pager" aria-label="Pages">
      <button type="button" disabled={offset <= 0} onClick={() => to(0)}>
        « First
      </button>
      <button type="button" disabled={offset <= 0} onClick={() => to(offset - limit)}>
        ‹ Previous
      </button>
      <span>
        {total ? `${number(offset + 1)} to ${number(Math.min(offset + limit, total))}` : "0"} of {number(total)}
        {total !== of && ` (${number(of)} in all)`}
      </span>
      <button type="button" disabled={offset + limit >= total} onClick={() => to(offset + limit)}>
        Next ›
      </button>
      <button type="button" disabled={offset + limit >= total} onClick={() => to(last)}>
        Last »
      </button>
    </nav>
  );
}
