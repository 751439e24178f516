"""A study's figures for Prometheus, served over HTTP while it runs."""

from typing import TYPE_CHECKING, final

from nasplat.errors import InvalidInputError
from nasplat.trial import Trial

if TYPE_CHECKING:
    from nasplat.study import Study


@final
class PrometheusMetrics:
    """An observer of studies that serves what it sees under ``/metrics``. Counters start at zero with each driver.

    Args:
        address: ``PORT`` or ``HOST:PORT``; without a host only this machine can read them. Port 0 takes a free one.

    Attributes:
        port: Where they are served.

    Raises:
        InvalidInputError: If the address is malformed or taken, or the Prometheus client is not installed.
    """

    def __init__(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        if not port.isdecimal() or int(port) > 65_535:
            raise InvalidInputError(f"metrics are served on PORT or HOST:PORT, got {address!r}")
        try:
            from prometheus_client import CollectorRegistry, Counter, Gauge, start_http_server
        except ModuleNotFoundError as error:
            raise InvalidInputError("the Prometheus client is not installed: pip install 'nasplat[metrics]'") from error
        registry, of_study = CollectorRegistry(), ["study"]
        self._trials = Counter("nasplat_trials", "Trials told.", ["study", "state"], registry=registry)
        self._saved = Counter("nasplat_saved_trials", "Trials that cost nothing.", of_study, registry=registry)
        self._lost = Counter("nasplat_lost_workers", "Starts of trials whose worker died.", of_study, registry=registry)
        self._seconds = Counter("nasplat_paid_seconds", "Time paid for trials.", of_study, registry=registry)
        self._gpu_seconds = Counter("nasplat_paid_gpu_seconds", "GPU time paid.", of_study, registry=registry)
        self._best = Gauge("nasplat_best", "Best value of the first goal.", ["study", "metric"], registry=registry)
        self._now = {
            name: Gauge(f"nasplat_{name}", text, of_study, registry=registry)
            for name, text in (
                ("in_flight", "Trials that workers have."),
                ("awaited", "Trials that other studies are measuring."),
                ("capacity", "Trials that keep every worker busy."),
                ("workers", "Workers that have started."),
            )
        }
        self._losses: dict[str, float] = {}
        try:
            server, _thread = start_http_server(int(port), addr=host or "127.0.0.1", registry=registry)
        except OSError as error:
            raise InvalidInputError(f"metrics cannot be served on {address!r}: {error.strerror}") from error
        self._server = server
        self.port: int = server.server_port

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()

    def __call__(self, study: "Study", trial: Trial) -> None:
        """Count a trial that was told."""
        name = study.config.name
        self._trials.labels(name, str(trial.state)).inc()
        if trial.saved:
            self._saved.labels(name).inc()
        else:
            cost = trial.failure or (trial.measurement and trial.measurement.cost)
            if cost is not None:
                self._seconds.labels(name).inc(cost.seconds)
                self._gpu_seconds.labels(name).inc(cost.gpu_seconds)
        self._lost.labels(name).inc(trial.attempts - 1)
        self._note_best(study, trial)
        status = study.status()
        for figure, gauge in self._now.items():
            value = status[figure]
            gauge.labels(name).set(len(value) if figure == "workers" else value)

    def _note_best(self, study: "Study", trial: Trial) -> None:
        measured, goal = trial.measurement, study.objective.goals[0]
        if measured is None or not trial.proposal.is_at(study.config.fidelity):
            return
        loss = study.objective.losses(measured)[0]
        if loss < self._losses.get(study.config.name, float("inf")):
            self._losses[study.config.name] = loss
            self._best.labels(study.config.name, goal.metric).set(measured[goal.metric])
