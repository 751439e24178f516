/** An architecture as a drawing: a chain as a stack, any other graph in layers by its longest paths. */
import type { JSX } from "preact";
import type { Graph } from "./types";

const LINE = 30;
const COLUMN = 224;
const ROW = 92;

export function Drawing({ graph }: { graph: Graph }): JSX.Element {
  const chain = graph.edges.length === graph.nodes.length - 1 && graph.edges.every(([a, b]) => b === a + 1);
  return chain ? <Stack graph={graph} /> : <Layers graph={graph} />;
}

/** Kinds of operations by what their names say, so that equal ones have equal colours. */
export function kind(label: string): string {
  const name = label.toLowerCase();
  if (/input|output|linear$|average$|head|classifier/.test(name)) return "end";
  if (/skip|identity/.test(name)) return "skip";
  if (/pool/.test(name)) return "pool";
  if (/attention|attn|mixer|transformer/.test(name)) return "attention";
  if (/mamba|ssm|hyena|rnn|lstm|gru/.test(name)) return "state";
  if (/conv|kernel/.test(name)) return "conv";
  return "other";
}

interface Block {
  label: string;
  times: number;
}

/** Neighbours of the same name drawn once, with how many there are. */
function blocks(graph: Graph): Block[] {
  const out: Block[] = [];
  for (const label of graph.nodes) {
    const last = out[out.length - 1];
    if (last && last.label === label) last.times++;
    else out.push({ label, times: 1 });
  }
  return out;
}

function Stack({ graph }: { graph: Graph }): JSX.Element {
  const shown = blocks(graph);
  return (
    <ol class="stack" aria-label="Layers from input to output">
      {shown.map((block, i) => (
        <li key={i} class={kind(block.label)}>
          {block.label}
          {block.times > 1 && <b>× {block.times}</b>}
        </li>
      ))}
    </ol>
  );
}

interface Place {
  x: number;
  y: number;
}

/** Nodes in columns by their longest path from an input, in each column near what leads to them. */
export function layout(graph: Graph): Place[] {
  const depth = graph.nodes.map(() => 0);
  const edges = [...graph.edges].sort((a, b) => a[1] - b[1]);
  for (const [source, target] of edges) depth[target] = Math.max(depth[target]!, depth[source]! + 1);
  const columns: number[][] = [];
  depth.forEach((column, node) => (columns[column] ??= []).push(node));
  const row = graph.nodes.map(() => 0);
  for (const column of columns) {
    if (!column) continue;
    const wish = (node: number) => {
      const sources = edges.filter((edge) => edge[1] === node).map((edge) => row[edge[0]]!);
      return sources.length ? sources.reduce((a, b) => a + b, 0) / sources.length : 0;
    };
    const ordered = column.map((node) => ({ node, at: wish(node) })).sort((a, b) => a.at - b.at || a.node - b.node);
    ordered.forEach(({ node }, i) => (row[node] = i - (column.length - 1) / 2));
  }
  return graph.nodes.map((_, node) => ({ x: depth[node]! * COLUMN, y: row[node]! * ROW }));
}

function Layers({ graph }: { graph: Graph }): JSX.Element {
  const places = layout(graph);
  const between = new Map<string, number>();
  const drawn = graph.edges.map(([source, target, label], i) => {
    const a = places[source]!;
    const b = places[target]!;
    const pair = `${source}-${target}`;
    const nth = between.get(pair) ?? 0;
    between.set(pair, nth + 1);
    const span = Math.round((b.x - a.x) / COLUMN);
    // What passes over other nodes makes a bow, the longer the higher, in turn above and below.
    const bow = (span > 1 ? (span - 1) * 58 * (i % 2 ? 1 : -1) : 0) + nth * 34;
    const middle = { x: (a.x + b.x) / 2, y: (a.y + b.y) / 2 + bow };
    return { a, b, label, bow, middle };
  });
  const ys = [...places.map((p) => p.y), ...drawn.map((d) => d.middle.y)];
  const [top, bottom] = [Math.min(...ys) - 40, Math.max(...ys) + 40];
  const width = Math.max(...places.map((p) => p.x));
  return (
    <div class="scroll" tabIndex={0} role="region" aria-label="Drawing of the architecture">
      <svg
        class="layers"
        width={width + 150}
        height={bottom - top}
        viewBox={`-75 ${top} ${width + 150} ${bottom - top}`}
        role="img"
        aria-label={`${graph.nodes.length} nodes and ${graph.edges.length} edges`}
      >
        <defs>
          <marker id="arrow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">
            <path d="M0 0 8 4 0 8z" />
          </marker>
        </defs>
        {drawn.map(({ a, b, bow }, i) => (
          <path
            key={i}
            class="edge"
            markerEnd="url(#arrow)"
            d={`M${a.x + 46} ${a.y} C ${a.x + 46 + 30} ${a.y + bow * 1.33}, ${b.x - 46 - 30} ${b.y + bow * 1.33}, ${b.x - 46} ${b.y}`}
          />
        ))}
        {drawn.map(({ label, middle }, i) => {
          if (!label) return null;
          const wide = 7 * label.length + 12;
          return (
            <g key={i} class={`edge-label ${kind(label)}`}>
              <rect x={middle.x - wide / 2} y={middle.y - 11} width={wide} height="22" rx="5" />
              <text x={middle.x} y={middle.y + 4}>
                {label}
              </text>
            </g>
          );
        })}
        {places.map(({ x, y }, node) => (
          <g key={node} class={`node ${kind(graph.nodes[node]!)}`}>
            <rect x={x - 46} y={y - LINE / 2} width="92" height={LINE} rx="8" />
            <text x={x} y={y + 4}>
              {short(graph.nodes[node]!)}
            </text>
            <title>{graph.nodes[node]}</title>
          </g>
        ))}
      </svg>
    </div>
  );
}

const short = (label: string) => (label.length > 14 ? `${label.slice(0, 13)}…` : label);
