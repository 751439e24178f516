/** The address is the view: its path names the page, its parameters hold everything that was chosen there. */
import type { ComponentChildren, JSX } from "preact";
import { useEffect, useState } from "preact/hooks";
import { address, isReport, type Params } from "./api";

export interface Route {
  path: string;
  query: URLSearchParams;
}

const current = (): Route => ({ path: location.pathname, query: new URLSearchParams(location.search) });

const MOVED = "nasplat-moved";

export function go(where: string, replace = false): void {
  if (replace) history.replaceState(null, "", where);
  else history.pushState(null, "", where);
  window.dispatchEvent(new Event(MOVED));
  if (!replace) window.scrollTo(0, 0);
}

export function useRoute(): Route {
  const [route, setRoute] = useState(current);
  useEffect(() => {
    const moved = () => setRoute(current());
    window.addEventListener("popstate", moved);
    window.addEventListener(MOVED, moved);
    return () => {
      window.removeEventListener("popstate", moved);
      window.removeEventListener(MOVED, moved);
    };
  }, []);
  return route;
}

/** Changes parameters of the address; null takes one away. */
export function setQuery(changes: Record<string, string | null>): void {
  const query = new URLSearchParams(location.search);
  for (const [name, value] of Object.entries(changes)) {
    if (value === null || value === "") query.delete(name);
    else query.set(name, value);
  }
  const text = query.toString();
  go(text ? `${location.pathname}?${text}` : location.pathname, true);
}

type LinkProps = {
  to: string;
  params?: Params;
  children: ComponentChildren;
  class?: string;
  "aria-label"?: string;
  "aria-current"?: "page" | undefined;
};

export function Link({ to, params, children, ...rest }: LinkProps): JSX.Element {
  if (isReport) return <span>{children}</span>;
  const where = address(to, params);
  const follow = (event: MouseEvent) => {
    if (event.metaKey || event.ctrlKey || event.shiftKey || event.button !== 0) return;
    event.preventDefault();
    go(where);
  };
  return (
    <a {...rest} href={where} onClick={follow}>
      {children}
    </a>
  );
}
