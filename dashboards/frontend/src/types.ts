/** What the API answers; the field names are its own. */

export interface Goal {
  metric: string;
  maximize: boolean;
}

export interface Summary {
  version: number;
  trials: number;
  states: Record<string, number>;
  saved: number;
  saved_seconds: number;
  repeats: number;
  best: { number: number; value: number } | null;
  paid_seconds: number;
  gpu_seconds: number;
  cost: number | null;
  first_at: number | null;
  last_at: number | null;
  progress: number | null;
  /** Of a study that runs. */
  per_minute: number | null;
}

export interface StudyRow {
  study: string;
  space: string;
  task: string;
  strategy: string;
  goals: Goal[];
  state: string;
  parent: string | null;
  created_at: number;
  epochs: number | null;
  seed: number | null;
  /** Null while it is still being counted. */
  summary: Summary | null;
}

export interface Worker {
  name: string;
  host: string;
  pid: number;
  gpu: string;
  busy: number;
}

export interface Driver {
  host: string | null;
  pid: number | null;
  acquired_at: number;
  silent_seconds: number;
  alive: boolean;
  executor: string | null;
  workers: Worker[];
  in_flight: number | null;
  capacity: number | null;
  awaited: number | null;
}

export interface StudyDetail extends StudyRow {
  config: Record<string, unknown>;
  metrics: string[];
  driver: Driver | null;
}

export interface Curve {
  x: string;
  end: number;
  steps: [number, number, number][];
}

export interface Points {
  count: number;
  matched: number;
  last: number;
  version: number;
  id: Uint32Array;
  x: Float32Array;
  y: Float32Array;
  c: Float32Array;
}

export type Value = string | number | boolean | null;
export type Row = Record<string, Value>;

export interface TrialPage {
  total: number;
  trials: number;
  offset: number;
  rows: Row[];
}

export interface Front {
  trials: number;
  points: [number, number, number][];
  hypervolume: number;
  reference: [number, number];
}

export interface Relative {
  number: number;
  architecture: string;
  state: string;
  why: string;
  objective_0: number | null;
}

export interface Graph {
  nodes: string[];
  edges: [number, number, string][];
}

export interface ArchitectureDetail {
  trial: Row & {
    metrics: { name: string; role: string; value: number | null }[];
    starts: Row[];
    artifacts: Record<string, string>;
    parents: Relative[];
    children: Relative[];
  };
  provenance: Record<string, unknown> | null;
  architecture: {
    space: string;
    fingerprint: string;
    text: string;
    measurements: (Row & { metrics: Record<string, number | null> })[];
    trials: (Row & { study: string; number: number })[];
  };
  counts: Record<string, number>;
  ancestors: Relative[];
  graph: Graph | null;
  choices: Record<string, string>;
  code: string | null;
  not_drawn: string | null;
  goals: Goal[];
}

export interface Effect {
  n: number;
  mean: number;
  low: number | null;
  high: number | null;
  improved: number;
  improved_low: number;
  improved_high: number;
}

export interface Lineage {
  goal: Goal;
  steps: number;
  different: number;
  several: number;
  choices: (Effect & { choice: string })[];
  changes: (Effect & { choice: string; before: string; after: string })[];
  gains: [number, number][];
}

export interface Importance {
  method: string;
  goal: string;
  trials: number;
  of: number;
  importances: { choice: string; importance: number }[];
}

export interface Parallel {
  goal: Goal;
  choices: { choice: string; options: string[] }[];
  rows: number[][];
  values: number[];
  trials: number;
  of: number;
}

export interface Interval {
  value: number;
  low: number;
  high: number;
}

export interface ScoreAudit {
  score: string;
  tau: Interval;
  rho: Interval;
  partial_rho: Record<string, Interval>;
  tau_above: Record<string, Interval>;
  top_overlap: number;
  infinite: number;
  verdict: string;
}

export interface Audit {
  goal: Goal;
  architectures: number;
  of: number;
  resamples: number;
  scores: ScoreAudit[];
  points: Record<string, (number | null)[]>;
}

export interface Group {
  label: string;
  space: string;
  task: string;
  studies: string[];
  grid: number[];
  median: (number | null)[];
  low: (number | null)[];
  high: (number | null)[];
  finals: (number | null)[];
}

export interface Comparison {
  x: string;
  goal: Goal;
  common_end: number;
  groups: Group[];
  tests: {
    first: number;
    second: number;
    n: [number, number];
    p: number | null;
    adjusted?: number;
    superiority: number | null;
  }[];
  differences: { setting: string; values: string[] }[];
}

export interface Session {
  store: string;
  sql: boolean;
  views: string[];
}

export interface SqlAnswer {
  columns: string[];
  rows: Value[][];
  more: boolean;
}
