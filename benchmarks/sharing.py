"""Two searches at the same time over one PostgreSQL store: what each wants, and what is paid for.

    python -m benchmarks.sharing --budget 40

Both search the learning rate and momentum of one network on the digits (78 recipes, each a real training) with
different seeds, as two processes that start together. A training that both want is made once: the second one finds it,
or waits for it where it is being made.
"""

import argparse
import subprocess
import sys

from nasplat.storage import Reader, SqlStore
from tests.storage.postgresql import PostgresServer

_SEARCH = (
    *("search", "--space", "recipes", "--space-set", 'settings=["lr", "momentum"]', "--task", "digits"),
    *("--strategy", "random", "--epochs", "3", "--threads", "1", "--json"),
)


def main() -> None:
    """The table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--budget", type=int, default=40)
    options = parser.parse_args()
    command = [sys.executable, "-c", "from nasplat.cli import main; main()", *_SEARCH, "--budget", str(options.budget)]
    with PostgresServer(durable=True) as server, server.database() as url:
        SqlStore(url).close()
        drivers = [
            subprocess.Popen([*command, "--seed", str(seed), "--name", name, "--store", url], stdout=subprocess.DEVNULL)
            for seed, name in enumerate("ab")
        ]
        if any(driver.wait() for driver in drivers):
            raise RuntimeError("a search failed")
        with Reader(url) as reader:
            rows = reader.sql("SELECT study, measurement_id, saved, repeat_of FROM v_trial")
            trainings = reader.sql("SELECT COUNT(*) AS n FROM v_attempt WHERE ended = 'completed'")[0]["n"]
    wanted = {name: {r["measurement_id"] for r in rows if r["study"] == name} for name in "ab"}
    shared = len(wanted["a"] & wanted["b"])
    saved = sum(r["saved"] and r["repeat_of"] is None for r in rows)
    print(f"measurements wanted by a {len(wanted['a'])}, by b {len(wanted['b'])}, by both {shared}", end=" ")
    print(f"({100 * shared / min(map(len, wanted.values())):.0f} % of a search)")
    print(f"distinct measurements {len(wanted['a'] | wanted['b'])}, trainings run {trainings}, saved {saved}")


if __name__ == "__main__":
    main()
