/** Asking the server, or what was put into the page where it is a report without one. */
import { useEffect, useRef, useState } from "preact/hooks";
import type { Points } from "./types";

export type Params = Record<string, string | number | boolean | string[] | null | undefined>;

export class ApiError extends Error {
  constructor(
    readonly status: number,
    message: string,
  ) {
    super(message);
  }
}

/** Answers of a report by address; those of points are texts in base64. */
const embedded: Record<string, unknown> | null = (() => {
  const element = document.getElementById("nasplat-data");
  return element ? (JSON.parse(element.textContent ?? "{}") as Record<string, unknown>) : null;
})();

export const isReport = embedded !== null;

export function embeddedValue(name: string): unknown {
  return embedded?.[name];
}

/** An address with its parameters in the order of their names, so that equal questions have equal addresses. */
export function address(path: string, params: Params = {}): string {
  const query = new URLSearchParams();
  for (const name of Object.keys(params).sort()) {
    const value = params[name];
    if (value === null || value === undefined || value === "") continue;
    for (const item of Array.isArray(value) ? value : [value]) query.append(name, String(item));
  }
  const text = query.toString();
  return text ? `${path}?${text}` : path;
}

export async function ask<T>(path: string, params: Params = {}, signal?: AbortSignal): Promise<T> {
  const where = address(path, params);
  if (embedded) {
    if (where in embedded) return embedded[where] as T;
    throw new ApiError(404, "This is a report: start nasplat dashboard to see more than it holds.");
  }
  return (await (await respond(where, signal)).json()) as T;
}

export async function askPoints(params: Params, signal?: AbortSignal): Promise<Points> {
  const where = address("/api/points", params);
  let bytes: ArrayBuffer;
  if (embedded) {
    const text = atob(String(embedded[where] ?? ""));
    bytes = Uint8Array.from(text, (c) => c.charCodeAt(0)).buffer;
    if (!bytes.byteLength) throw new ApiError(404, "The report holds no points for this view.");
  } else {
    bytes = await (await respond(where, signal)).arrayBuffer();
  }
  return unpack(bytes);
}

export function unpack(bytes: ArrayBuffer): Points {
  const length = new DataView(bytes).getUint32(0, true);
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(bytes, 4, length)));
  const n = header.count as number;
  const start = 4 + length;
  return {
    ...header,
    id: new Uint32Array(bytes, start, n),
    x: new Float32Array(bytes, start + 4 * n, n),
    y: new Float32Array(bytes, start + 8 * n, n),
    c: new Float32Array(bytes, start + 12 * n, n),
  };
}

async function respond(where: string, signal?: AbortSignal): Promise<Response> {
  let response: Response;
  try {
    response = await fetch(where, { signal: signal ?? null });
  } catch (error) {
    if (error instanceof DOMException && error.name === "AbortError") throw error;
    throw new ApiError(0, "The server does not answer. Is nasplat dashboard still running?");
  }
  if (response.ok) return response;
  if (response.status === 401) throw new ApiError(401, "This dashboard wants its token.");
  const body = (await response.json().catch(() => ({}))) as { error?: string };
  throw new ApiError(response.status, body.error ?? `The server answered ${response.status}.`);
}

export async function logIn(token: string): Promise<void> {
  const response = await fetch("/api/session", { headers: { authorization: `Bearer ${token}` } });
  if (!response.ok) throw new ApiError(response.status, "This is not the token of this dashboard.");
}

export interface Loaded<T> {
  data: T | null;
  error: ApiError | null;
  loading: boolean;
}

/** What a question is answered; asked again when `key` changes, the old answer staying until the new one is there. */
export function useAsked<T>(key: string, question: (signal: AbortSignal) => Promise<T>): Loaded<T> {
  const [state, setState] = useState<Loaded<T> & { key: string }>({ data: null, error: null, loading: true, key });
  const latest = useRef(question);
  latest.current = question;
  useEffect(() => {
    const abort = new AbortController();
    setState((old) => ({ ...old, loading: true }));
    latest
      .current(abort.signal)
      .then((data) => !abort.signal.aborted && setState({ data, error: null, loading: false, key }))
      .catch((error: unknown) => {
        if (abort.signal.aborted) return;
        const shown = error instanceof ApiError ? error : new ApiError(0, String(error));
        if (shown.status === 401) location.assign(`/login?next=${encodeURIComponent(location.pathname + location.search)}`);
        setState((old) => ({ data: old.data, error: shown, loading: false, key }));
      });
    return () => abort.abort();
  }, [key]);
  return state;
}

export function useAnswer<T>(path: string, params: Params = {}, version: number | string = 0): Loaded<T> {
  return useAsked<T>(`${address(path, params)}#${version}`, (signal) => ask<T>(path, params, signal));
}

/** News from the server while the page is looked at: hidden pages give their connection back. */
export function useLive<T>(study: string | null): T | null {
  const [state, setState] = useState<T | null>(null);
  useEffect(() => {
    if (isReport) return;
    let source: EventSource | null = null;
    let again = 0;
    const close = () => {
      source?.close();
      source = null;
      clearTimeout(again);
    };
    const open = () => {
      close();
      if (document.hidden) return;
      source = new EventSource(address("/api/live", { study }));
      source.onmessage = (event: MessageEvent<string>) => setState(JSON.parse(event.data) as T);
      source.onopen = () => tellReached(true);
      source.onerror = () => {
        tellReached(false);
        if (source?.readyState === EventSource.CLOSED) again = window.setTimeout(open, 5000);
      };
    };
    open();
    document.addEventListener("visibilitychange", open);
    return () => {
      document.removeEventListener("visibilitychange", open);
      close();
    };
  }, [study]);
  return state;
}

const REACHED = "nasplat-reached";

function tellReached(reached: boolean): void {
  window.dispatchEvent(new CustomEvent<boolean>(REACHED, { detail: reached }));
}

/** Whether the stream of news has been broken off, for longer than it takes to open it again. */
export function useLost(): boolean {
  const [lost, setLost] = useState(false);
  useEffect(() => {
    let late = 0;
    const told = (event: Event) => {
      if ((event as CustomEvent<boolean>).detail) {
        clearTimeout(late);
        late = 0;
        setLost(false);
      } else late ||= window.setTimeout(() => setLost(true), 3000); // each attempt to come back fails anew
    };
    window.addEventListener(REACHED, told);
    return () => {
      clearTimeout(late);
      window.removeEventListener(REACHED, told);
    };
  }, []);
  return lost;
}

/** A value that follows another one at most every so many milliseconds. */
export function useThrottled<T>(value: T, milliseconds: number): T {
  const [shown, setShown] = useState(value);
  const changedAt = useRef(0);
  useEffect(() => {
    const wait = Math.max(0, changedAt.current + milliseconds - Date.now());
    const timer = setTimeout(() => {
      changedAt.current = Date.now();
      setShown(value);
    }, wait);
    return () => clearTimeout(timer);
  }, [value]);
  return shown;
}
