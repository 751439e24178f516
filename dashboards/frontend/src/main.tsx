import { render } from "preact";
import type { JSX } from "preact";
import { useEffect, useState } from "preact/hooks";
import { isReport, useLost } from "./api";
import { Architecture } from "./pages/architecture";
import { AuditPage } from "./pages/audit";
import { Choices, LineagePage } from "./pages/choices";
import { Compare } from "./pages/compare";
import { Login } from "./pages/login";
import { Pareto } from "./pages/pareto";
import { Missing, Report } from "./pages/report";
import { Sql } from "./pages/sql";
import { Studies } from "./pages/studies";
import { Study } from "./pages/study";
import { Trials } from "./pages/trials";
import { Link, type Route, useRoute } from "./router";
import { apply, setTheme, theme, type Theme } from "./theme";
import "./style.css";

const PAGES: Record<string, (props: { route: Route }) => JSX.Element> = {
  "/": Studies,
  "/study": Study,
  "/trials": Trials,
  "/architecture": Architecture,
  "/pareto": Pareto,
  "/lineage": LineagePage,
  "/importance": Choices,
  "/audit": AuditPage,
  "/compare": Compare,
  "/sql": Sql,
  "/login": Login,
};

const NEXT: Record<Theme, Theme> = { system: "light", light: "dark", dark: "system" };

function ThemeButton(): JSX.Element {
  const [chosen, choose] = useState(theme());
  const turn = () => {
    setTheme(NEXT[chosen]);
    choose(NEXT[chosen]);
  };
  return (
    <button type="button" class="plain" onClick={turn} aria-label={`Colours: ${chosen}. Change.`}>
      {{ system: "◐", light: "☀", dark: "☾" }[chosen]}
    </button>
  );
}

function App(): JSX.Element {
  const route = useRoute();
  const Page = PAGES[route.path] ?? Missing;
  const study = route.query.get("study");
  const lost = useLost();
  useEffect(() => {
    document.title = study ? `${study} · nasplat` : "nasplat";
  }, [study]);
  return (
    <>
      <a class="to-content" href="#main">
        To the content
      </a>
      <header class="top">
        <Link to="/" class="brand">
          nasplat
        </Link>
        {!isReport && (
          <nav aria-label="Pages">
            <Link to="/" aria-current={route.path === "/" ? "page" : undefined}>
              Studies
            </Link>
            <Link to="/compare" aria-current={route.path === "/compare" ? "page" : undefined}>
              Compare
            </Link>
            <Link to="/sql" aria-current={route.path === "/sql" ? "page" : undefined}>
              Query
            </Link>
          </nav>
        )}
        <ThemeButton />
      </header>
      <main id="main" tabIndex={-1}>
        {lost && (
          <p class="problem" role="status">
            The server does not answer, so what stands here may be old. Is nasplat dashboard still running?
          </p>
        )}
        {isReport ? <Report /> : <Page key={`${route.path}?${study ?? ""}`} route={route} />}
      </main>
    </>
  );
}

apply(theme());
const root = document.getElementById("app");
if (root) render(<App />, root);
