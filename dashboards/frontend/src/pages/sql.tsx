import type { JSX } from "preact";
import { useState } from "preact/hooks";
import { useAnswer } from "../api";
import { duration, number } from "../format";
import { type Route, setQuery } from "../router";
import type { Row, Session, SqlAnswer } from "../types";
import { Answer, Card, Empty, Table } from "../ui";

const EXAMPLES: [string, string][] = [
  ["What each study cost", "SELECT study, trials, failed, paid_seconds / 3600 AS hours FROM v_cost ORDER BY paid_seconds DESC"],
  ["Mutations that helped most", "SELECT study, child, parent, improvement, child_architecture\nFROM v_lineage WHERE improvement > 0 ORDER BY improvement DESC LIMIT 20"],
  ["Share that was free", "SELECT c.study, 1.0 * s.saved_trials / c.trials AS share, s.saved_seconds\nFROM v_cost c JOIN v_saved s ON s.study = c.study WHERE c.trials > 0"],
];

export function Sql({ route }: { route: Route }): JSX.Element {
  const q = route.query.get("q") ?? "";
  const [text, setText] = useState(q);
  const session = useAnswer<Session>("/api/session");
  return (
    <>
      <div class="head">
        <h1>Query</h1>
        <p class="sub">One SELECT over the documented views. It cannot write, and is stopped after 5 seconds or 1,000 rows.</p>
      </div>
      <Answer of={session}>
        {(allowed) =>
          allowed.sql ? (
            <>
              <Card>
                <form
                  onSubmit={(e) => {
                    e.preventDefault();
                    setQuery({ q: text });
                  }}
                >
                  <textarea
                    aria-label="SQL"
                    rows={6}
                    spellcheck={false}
                    value={text}
                    onInput={(e) => setText(e.currentTarget.value)}
                    onKeyDown={(e) => (e.ctrlKey || e.metaKey) && e.key === "Enter" && setQuery({ q: text })}
                  />
                  <div class="controls">
                    <button type="submit" class="primary">
                      Run (Ctrl+Enter)
                    </button>
                    {EXAMPLES.map(([title, statement]) => (
                      <button key={title} type="button" onClick={() => setText(statement)}>
                        {title}
                      </button>
                    ))}
                  </div>
                </form>
                <p class="note">
                  Views: {allowed.views.map((view) => <code key={view}>{view} </code>)}
                </p>
              </Card>
              {q && <Result q={q} />}
            </>
          ) : (
            <Empty>
              SQL from the page is switched off. Start the server with <code>nasplat dashboard --allow-sql</code>, or use <code>nasplat query --sql</code>.
            </Empty>
          )
        }
      </Answer>
    </>
  );
}

function Result({ q }: { q: string }): JSX.Element {
  const [begun] = useState(performance.now());
  const found = useAnswer<SqlAnswer>("/api/sql", { q });
  return (
    <Card title="Result">
      <Answer of={found}>
        {(data) => (
          <>
            <Table
              caption="Result of the query"
              rows={data.rows.map((row): Row => Object.fromEntries(row.map((value, i) => [String(i), value])))}
              columns={data.columns.map((title, i) => ({ name: String(i), title }))}
            />
            <p class="note">
              {number(data.rows.length)} rows{data.more && ", and more: narrow it down or add LIMIT and OFFSET"}
              {!found.loading && `, ${duration((performance.now() - begun) / 1000)}`}.
            </p>
          </>
        )}
      </Answer>
    </Card>
  );
}
