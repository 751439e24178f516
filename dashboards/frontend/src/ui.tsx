/** The pieces that pages are made of. */
import type { ComponentChildren, JSX } from "preact";
import { useEffect, useState } from "preact/hooks";
import { type ApiError, isReport, type Loaded } from "./api";
import { cell } from "./format";
import { Link } from "./router";
import type { Row } from "./types";

export function Card(props: { title?: ComponentChildren; aside?: ComponentChildren; children: ComponentChildren; class?: string }): JSX.Element {
  return (
    <section class={`card ${props.class ?? ""}`}>
      {(props.title || props.aside) && (
        <header>
          {props.title && <h2>{props.title}</h2>}
          {props.aside && <div class="aside">{props.aside}</div>}
        </header>
      )}
      {props.children}
    </section>
  );
}

export function Stat(props: { label: string; value: ComponentChildren; note?: ComponentChildren }): JSX.Element {
  return (
    <div class="stat">
      <dt>{props.label}</dt>
      <dd class={typeof props.value === "string" && props.value.length > 12 ? "text" : ""}>
        {props.value}
        {props.note && <small>{props.note}</small>}
      </dd>
    </div>
  );
}

export function Badge({ state }: { state: string }): JSX.Element {
  return <span class={`badge ${/^[a-z]+$/.test(state) ? state : ""}`}>{state}</span>;
}

export function Empty({ children }: { children: ComponentChildren }): JSX.Element {
  return <div class="empty">{children}</div>;
}

export function Problem({ error }: { error: ApiError }): JSX.Element {
  return (
    <div class="problem" role="alert">
      {error.message}
    </div>
  );
}

/** The answer when it is there; before that a note, and what went wrong if it did. */
export function Answer<T>(props: { of: Loaded<T>; children: (data: T) => ComponentChildren }): JSX.Element {
  const { data, error } = props.of;
  return (
    <>
      {error && <Problem error={error} />}
      {data !== null ? props.children(data) : !error && <Waiting />}
    </>
  );
}

/** Says that something is coming, but only if it takes long enough to be noticed. */
export function Waiting(): JSX.Element | null {
  const [late, setLate] = useState(false);
  useEffect(() => {
    const timer = setTimeout(() => setLate(true), 300);
    return () => clearTimeout(timer);
  }, []);
  return late ? <div class="empty">Reading the store…</div> : null;
}

export function Bar({ share }: { share: number }): JSX.Element {
  return (
    <progress max={1} value={share}>
      {Math.round(100 * share)} %
    </progress>
  );
}

export function Choice(props: { label: string; value: string; options: (string | [string, string])[]; onChange: (value: string) => void }): JSX.Element {
  return (
    <label class="field">
      <span>{props.label}</span>
      <select value={props.value} onChange={(e) => props.onChange(e.currentTarget.value)}>
        {props.options.map((option) => {
          const [value, text] = typeof option === "string" ? [option, option] : option;
          return (
            <option key={value} value={value}>
              {text}
            </option>
          );
        })}
      </select>
    </label>
  );
}

export function Toggle(props: { label: string; on: boolean; onChange: (on: boolean) => void }): JSX.Element {
  return (
    <label class="toggle">
      <input type="checkbox" checked={props.on} onChange={(e) => props.onChange(e.currentTarget.checked)} />
      {props.label}
    </label>
  );
}

/** One of a few, as a row of buttons. */
export function Segments(props: { label: string; value: string; options: [string, string][]; onChange: (value: string) => void }): JSX.Element {
  return (
    <div class="segments" role="group" aria-label={props.label}>
      {props.options.map(([value, text]) => (
        <button key={value} type="button" aria-pressed={value === props.value} onClick={() => props.onChange(value)}>
          {text}
        </button>
      ))}
    </div>
  );
}

/** A text that takes effect with Enter or when it is left. */
export function TextField(props: { label: string; value: string; placeholder?: string; onChange: (value: string) => void; wide?: boolean }): JSX.Element {
  const [text, setText] = useState(props.value);
  useEffect(() => setText(props.value), [props.value]);
  const submit = () => text !== props.value && props.onChange(text.trim());
  return (
    <label class={`field ${props.wide ? "wide" : ""}`}>
      <span>{props.label}</span>
      <input
        type="search"
        value={text}
        placeholder={props.placeholder}
        spellcheck={false}
        onInput={(e) => setText(e.currentTarget.value)}
        onChange={submit}
        onKeyDown={(e) => e.key === "Enter" && submit()}
      />
    </label>
  );
}

export interface Column {
  name: string;
  title?: string;
  numeric?: boolean;
  render?: (row: Row) => ComponentChildren;
}

export function Table(props: { columns: Column[]; rows: Row[]; caption: string; sort?: string; descending?: boolean; onSort?: ((name: string) => void) | undefined; sortable?: (name: string) => boolean }): JSX.Element {
  const isNumeric = (column: Column) => column.numeric ?? props.rows.some((row) => typeof row[column.name] === "number");
  return (
    <div class="scroll" tabIndex={0} role="region" aria-label={props.caption}>
      <table>
        <caption class="unseen">{props.caption}</caption>
        <thead>
          <tr>
            {props.columns.map((column) => {
              const title = column.title ?? column.name;
              const sorted = props.sort === column.name;
              const can = props.onSort && (props.sortable?.(column.name) ?? true);
              return (
                <th key={column.name} class={isNumeric(column) ? "number" : ""} aria-sort={sorted ? (props.descending ? "descending" : "ascending") : undefined}>
                  {can ? (
                    <button type="button" onClick={() => props.onSort?.(column.name)}>
                      {title}
                      {sorted ? (props.descending ? " ↓" : " ↑") : ""}
                    </button>
                  ) : (
                    title
                  )}
                </th>
              );
            })}
          </tr>
        </thead>
        <tbody>
          {props.rows.map((row, i) => (
            <tr key={i}>
              {props.columns.map((column) => (
                <td key={column.name} class={isNumeric(column) ? "number" : ""}>
                  {column.render ? column.render(row) : cell(column.name, row[column.name])}
                </td>
              ))}
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

export function TrialLink({ study, number }: { study: string; number: number }): JSX.Element {
  return (
    <Link to="/architecture" params={{ study, number }}>
      {number}
    </Link>
  );
}

const TABS: [string, string][] = [
  ["/study", "Overview"],
  ["/trials", "Trials"],
  ["/pareto", "Pareto"],
  ["/importance", "Choices"],
  ["/lineage", "Lineage"],
  ["/audit", "Proxy audit"],
];

export function StudyHead({ study, page, children }: { study: string; page: string; children?: ComponentChildren }): JSX.Element {
  return (
    <div class="head">
      <h1 title={study}>{study}</h1>
      {children}
      {!isReport && (
        <nav class="tabs" aria-label="Views of this study">
          {TABS.map(([path, title]) => (
            <Link key={path} to={path} params={{ study }} aria-current={path === page ? "page" : undefined}>
              {title}
            </Link>
          ))}
        </nav>
      )}
    </div>
  );
}

export function Copy({ text }: { text: string }): JSX.Element {
  const [done, setDone] = useState(false);
  const copy = async () => {
    await navigator.clipboard.writeText(text);
    setDone(true);
    setTimeout(() => setDone(false), 1500);
  };
  return (
    <button type="button" class="plain" onClick={() => void copy()}>
      {done ? "Copied" : "Copy"}
    </button>
  );
}

/** A value with its interval as a bar on a common scale. */
export function IntervalBar(props: { value: number; low: number | null; high: number | null; from: number; to: number }): JSX.Element {
  const place = (v: number) => Math.max(0, Math.min(100, (100 * (v - props.from)) / (props.to - props.from)));
  const good = (props.low ?? props.value) > 0;
  const bad = (props.high ?? props.value) < 0;
  return (
    <svg class={`interval ${good ? "good" : bad ? "bad" : ""}`} viewBox="0 0 100 12" preserveAspectRatio="none" aria-hidden="true">
      <line class="zero" x1={place(0)} x2={place(0)} y1="0" y2="12" />
      {props.low !== null && props.high !== null && <line class="range" x1={place(props.low)} x2={place(props.high)} y1="6" y2="6" />}
      <rect x={place(props.value) - 0.8} y="2" width="1.6" height="8" />
    </svg>
  );
}
