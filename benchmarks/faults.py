"""What a search on a cluster loses when things break: each fault really done on a local cluster of several nodes.

    python -m benchmarks.faults

Most trials sleep for two seconds and train a moment; those of "node added" wait for one that runs on the new node. Each
line is a whole search; the columns are how many trials lack an outcome or failed as lost, how many were told twice, how
many trainings were started again, and the seconds from the fault until work that it had stopped went on: a lost trial
was started again, a trial began on the new node, another trial was told. A trial's own fault (it hangs, eats memory,
raises, prints a gigabyte) ends that trial alone.
"""

import tempfile
from collections import Counter
from pathlib import Path

from ray.cluster_utils import Cluster

from tests.ray import faults
from tests.ray.conftest import QUICK
from tests.ray.faults import Aftermath, Site
from tests.storage.postgresql import PostgresServer


def show(after: Aftermath) -> None:
    """A line of the table."""
    failed = Counter(str(t.failure.reason) for t in after.trials if t.failure is not None)
    seconds = "–" if after.seconds is None else f"{after.seconds:.1f}"
    outcomes = ", ".join(f"{count} {reason}" for reason, count in failed.items()) or "all completed"
    figures = f"{len(after.trials):>7}{after.lost:>6}{after.twice:>7}{after.repeated:>9}{seconds:>9}"
    print(f"{after.fault:44}{figures}  {outcomes}", flush=True)


def main() -> None:
    """The table."""
    print(f"{'fault':44}{'trials':>7}{'lost':>6}{'twice':>7}{'repeated':>9}{'seconds':>9}  outcomes")
    with (
        tempfile.TemporaryDirectory(prefix="nasplat-", ignore_cleanup_errors=True) as folder,
        PostgresServer() as server,
    ):
        head = {"num_cpus": 0, "_system_config": QUICK, "temp_dir": f"{folder}/r"}
        cluster = Cluster(initialize_head=True, head_node_args=head)
        for _ in range(2):
            cluster.add_node(num_cpus=1)

        def site() -> Site:
            here = Path(tempfile.mkdtemp(dir=folder))
            return Site(cluster.address, f"sqlite:///{here}/s.db", here)

        show(faults.worker_killed(site()))
        show(faults.node_removed(site(), cluster))
        show(faults.node_added(site(), cluster))
        show(faults.driver_killed(site()))
        with server.database() as url:
            show(faults.database_stopped(Site(cluster.address, url, Path(tempfile.mkdtemp(dir=folder))), server))
        show(faults.trial_fault(site(), "hangs", "trials that hang (time limit 10 s)", time_limit=10.0))
        show(faults.trial_fault(site(), "eats", "trials that eat memory (limit 1 GiB)", memory_limit=2**30))
        show(faults.trial_fault(site(), "raises", "trials that raise"))
        show(faults.trial_fault(site(), "prints", "trials that print a gigabyte"))
        cluster.shutdown()


if __name__ == "__main__":
    main()
