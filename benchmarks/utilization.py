"""How busy workers are kept: sleeping trials on Ray, and the real loop and store with simulated workers.

    python -m benchmarks.utilization --workers 16 --trials 480
    python -m benchmarks.utilization --simulate 100 1000 10000
    python -m benchmarks.utilization --simulate 10000 --seconds 6,60

Part 1 runs trials that sleep for 1 to 10 seconds, log-uniform, on so many Ray workers of this machine, and sums the
seconds that workers slept; what is missing to 100 % is what the driver, Ray and the store cost.

Part 2 runs the loop, a strategy and a SQLite store as they are, durable writes included, with simulated workers whose
trials take 60 to 600 seconds (or ``--seconds``), log-uniform. The simulated clock also passes while the driver works,
so a driver that is too slow leaves workers idle.

Both look at the time from when every worker has had a trial until nine tenths of the trials have been asked for: then
the budget is about to end, and workers have nothing to do.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

from nasplat.config import Budget, Execution, StudyConfig
from nasplat.executors import TrialExecutor
from nasplat.simulation import SimulatedExecutor
from nasplat.storage import SqlStore
from nasplat.study import Study

STRATEGIES = ("random", "regularized-evolution")


def simulated(execution: Execution) -> TrialExecutor:
    """Simulated workers on whose clock the driver's time passes."""
    assert execution.workers is not None
    return SimulatedExecutor(execution.workers, driver_time=True)


def utilization(spans: list[tuple[float, float]], workers: int) -> float:
    """Share of the workers' time that is busy.

    Args:
        spans: When trials began and ended.
        workers: How many workers.
    """
    spans = sorted(spans)
    start, stop = spans[workers - 1][0], spans[9 * len(spans) // 10][0]
    busy = sum(max(0.0, min(end, stop) - max(begin, start)) for begin, end in spans)
    return busy / (workers * (stop - start))


def run(strategy: str, table: str, execution: Execution, trials: int, folder: Path) -> tuple[Study, float]:
    """A finished study, and the driver's CPU seconds for it."""
    config = StudyConfig(
        "conv-kernels",
        strategy=strategy,
        name=f"{strategy}-{execution.workers}",
        benchmark=table,
        epochs=1,
        budget=Budget(trials=trials),
        seed=1,
    )
    with SqlStore(folder / f"{config.name}.db") as store:
        started = time.process_time()
        study = Study(config, store, execution=execution).run()
        return study, time.process_time() - started


def on_ray(workers: int, trials: int, folder: Path) -> None:
    """Part 1."""
    print(f"{workers} Ray workers on this machine, {trials} trials that sleep for 1 to 10 s")
    print(f"{'strategy':24}{'utilization':>12}{'driver CPU s':>14}{'wall s':>8}")
    execution = Execution("ray", workers, address="local", cpus_per_worker=1 / 16, threads=1)
    for strategy in STRATEGIES:
        began = time.time()
        study, cpu = run(strategy, "benchmarks.workload:sleeping:1,10", execution, trials, folder)
        paid = [t.measurement for t in study.trials if t.measurement is not None and not t.saved]
        share = utilization([(m["began_at"], m["ended_at"]) for m in paid], workers)
        print(f"{strategy:24}{100 * share:>10.1f} %{cpu:>14.1f}{time.time() - began:>8.0f}")


def by_simulation(counts: list[int], bounds: str, rounds: int, folder: Path) -> None:
    """Part 2."""
    print(f"simulated workers, trials of {bounds} s, {rounds} a worker; the driver's own time passes on their clock")
    print(f"{'workers':>8}  {'strategy':24}{'utilization':>12}{'trials/s':>10}{'driver ms/trial':>17}")
    for workers in counts:
        for strategy in STRATEGIES:
            execution = Execution("benchmarks.utilization:simulated", workers)
            study, cpu = run(strategy, f"benchmarks.workload:simulated:{bounds}", execution, rounds * workers, folder)
            spans = [
                (t.finished_at - t.measurement.cost.seconds, t.finished_at)
                for t in study.trials
                if t.measurement is not None and not t.saved and t.finished_at is not None
            ]
            share = utilization(spans, workers)
            length = statistics.fmean(end - begin for begin, end in spans)
            ms = 1000 * cpu / len(study.trials)
            (folder / f"{study.config.name}.db").unlink()
            print(f"{workers:>8}  {strategy:24}{100 * share:>10.1f} %{workers / length:>10.1f}{ms:>17.2f}")


def main() -> None:
    """The tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=0, help="Ray workers of part 1")
    parser.add_argument("--trials", type=int, default=480)
    parser.add_argument("--simulate", type=int, nargs="*", default=[], help="numbers of simulated workers of part 2")
    parser.add_argument("--seconds", default="60,600", help="shortest and longest simulated trial")
    parser.add_argument("--rounds", type=int, default=6, help="trials a simulated worker")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if options.workers:
            on_ray(options.workers, options.trials, Path(folder))
        if options.simulate:
            by_simulation(options.simulate, options.seconds, options.rounds, Path(folder))


if __name__ == "__main__":
    main()
