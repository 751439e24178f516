import type { JSX } from "preact";
import { useEffect, useState } from "preact/hooks";
import { logIn } from "../api";
import { go, type Route } from "../router";

/** The token comes behind # in the address, which browsers send to nobody, or is typed in. */
export function Login({ route }: { route: Route }): JSX.Element {
  const [token, setToken] = useState("");
  const [error, setError] = useState<string | null>(null);
  const next = route.query.get("next") ?? "/";
  const enter = async (given: string) => {
    try {
      await logIn(given);
      // Only addresses of this server: a link could name another one.
      go(next.startsWith("/") && !next.startsWith("//") ? next : "/", true);
    } catch (problem) {
      setError(problem instanceof Error ? problem.message : String(problem));
    }
  };
  useEffect(() => {
    const given = new URLSearchParams(location.hash.slice(1)).get("token");
    if (!given) return;
    history.replaceState(null, "", location.pathname + location.search);
    void enter(given);
  }, []);
  return (
    <form
      class="login card"
      onSubmit={(e) => {
        e.preventDefault();
        void enter(token);
      }}
    >
      <h1>nasplat dashboard</h1>
      <label class="field wide">
        <span>Token, as printed where the dashboard was started</span>
        <input type="password" autocomplete="off" autoFocus value={token} onInput={(e) => setToken(e.currentTarget.value)} />
      </label>
      {error && (
        <p class="problem" role="alert">
          {error}
        </p>
      )}
      <button type="submit" class="primary">
        Enter
      </button>
    </form>
  );
}
