"""What the API says is what the store holds."""

import csv
import io
import json
import struct
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pandas as pd
import pytest
from scipy import stats

from nasplat.audit import audit
from nasplat.cli.dashboard import Installed
from nasplat.dashboards.views.choices import effect
from nasplat.storage import Query, Reader
from tests.dashboards.conftest import Filled, wait_for
from tests.dashboards.store import HOSTILE

STUDY = "evolution-0"


def get(client: httpx.Client, path: str, **params: Any) -> Any:
    response = client.get(path, params=params)
    assert response.status_code == 200, response.text
    return response.json()


def refused(client: httpx.Client, path: str, **params: Any) -> tuple[int, str]:
    response = client.get(path, params=params)
    return response.status_code, response.json()["error"]


@pytest.fixture(scope="module")
def rows(filled: Filled) -> list[dict[str, Any]]:
    """All trials of the study, as the store's own reader gives them."""
    with Reader(filled.url) as reader:
        return reader.page(Query(STUDY, limit=10_000))


def points(client: httpx.Client, **params: Any) -> tuple[dict[str, Any], list[np.ndarray[Any, Any]]]:
    response = client.get("/api/points", params={"study": STUDY, **params})
    assert response.status_code == 200, response.text
    body = response.content
    (length,) = struct.unpack_from("<I", body)
    header = json.loads(body[4 : 4 + length])
    n = header["count"]
    columns = [
        np.frombuffer(body, kind, n, 4 + length + 4 * n * i) for i, kind in enumerate(("<u4", "<f4", "<f4", "<f4"))
    ]
    assert len(body) == 4 + length + 16 * n
    return header, columns


# Studies -----------------------------------------------------------------------------------------------------


def test_all_studies_are_listed_with_what_the_reader_counts(client: httpx.Client, filled: Filled) -> None:
    wait_for(lambda: all(row["summary"] for row in get(client, "/api/studies")))
    listed = {row["study"]: row for row in get(client, "/api/studies")}
    with Reader(filled.url) as reader:
        for known in reader.studies():
            row = listed.pop(known["study"])
            counted = row["summary"]
            assert (row["space"], row["task"], row["strategy"]) == (known["space"], known["task"], known["strategy"])
            assert counted["trials"] == known["trials"]
            assert counted["states"]["completed"] == known["completed"]
            assert counted["states"]["failed"] == known["failed"]
            assert counted["saved"] == known["saved"]
            assert counted["paid_seconds"] == pytest.approx(known["paid_seconds"])
            assert counted["best"]["value"] == pytest.approx(known["best"])
    assert not listed


def test_a_study_whose_driver_is_gone_is_lost(client: httpx.Client) -> None:
    found = {row["study"]: row["state"] for row in get(client, "/api/studies")}
    assert found[HOSTILE] == "lost"
    assert found[STUDY] == "completed"


def test_costs_are_money_where_there_are_prices(client: httpx.Client) -> None:
    summary = get(client, "/api/study", study=STUDY)["summary"]
    assert summary["cost"] == pytest.approx(2.0 * summary["paid_seconds"] / 3600)
    assert get(client, "/api/study", study="two goals")["summary"]["cost"] is None


def test_failures_come_with_their_reasons(client: httpx.Client, rows: list[dict[str, Any]]) -> None:
    found = get(client, "/api/failures", study=STUDY)
    failed = [r["number"] for r in rows if r["state"] == "failed"]
    assert sorted(t["number"] for t in found["trials"]) == failed
    assert found["reasons"] == {"invalid": len(failed)}
    assert get(client, "/api/failures", study=HOSTILE)["trials"][0]["failure_message"] == HOSTILE


def test_events_and_running_trials(client: httpx.Client) -> None:
    assert [e["kind"] for e in get(client, "/api/events", study=STUDY)] == ["completed", "created"]
    assert [t["number"] for t in get(client, "/api/running", study=HOSTILE)["trials"]] == [4]


# Trials ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize("sort", ["val_accuracy", "seconds", "number"])
def test_pages_are_what_a_sort_gives(
    client: httpx.Client, rows: list[dict[str, Any]], sort: str, descending: bool
) -> None:
    there = [r for r in rows if r.get(sort) is not None]
    there.sort(key=lambda r: r["number"], reverse=descending and sort == "number")
    there.sort(key=lambda r: r[sort], reverse=descending)
    wanted = {r["number"] for r in there}
    pages = [
        get(client, "/api/trials", study=STUDY, sort=sort, descending=descending, offset=offset, limit=13)
        for offset in range(0, len(rows), 13)
    ]
    given = [r for page in pages for r in page["rows"]]
    assert {page["total"] for page in pages} == {len(rows)}
    assert sorted(r["number"] for r in given) == [r["number"] for r in rows]
    # Of those that failed the page also knows how long they took.
    assert [r[sort] for r in given if r["number"] in wanted] == [r[sort] for r in there]
    values = [r.get(sort) for r in given]
    assert values[len(values) - values.count(None) :] == [None] * values.count(None)


def test_a_condition_keeps_what_the_reader_keeps(client: httpx.Client, filled: Filled) -> None:
    where = "val_accuracy > 0.8 and not saved or failure_reason == 'invalid'"
    page = get(client, "/api/trials", study=STUDY, where=where, limit=1000)
    with Reader(filled.url) as reader:
        kept = reader.page(Query(STUDY, where, limit=10_000))
    assert [r["number"] for r in page["rows"]] == [r["number"] for r in kept]
    assert 0 < page["total"] < page["trials"]


@pytest.mark.parametrize("where", ["val_acuracy > 0.8", "__import__('os')", "1; DROP TABLE trial", "val_accuracy >"])
def test_a_condition_that_is_none(client: httpx.Client, where: str) -> None:
    status, error = refused(client, "/api/trials", study=STUDY, where=where)
    assert status == 400
    assert "val_acuracy" in error or "cannot read" in error


def test_the_best_so_far(client: httpx.Client, rows: list[dict[str, Any]]) -> None:
    curve = get(client, "/api/curve", study=STUDY, x="cost")
    paid, best, expected = 0.0, -1.0, []
    for row in sorted((r for r in rows if r["finished_at"]), key=lambda r: (r["finished_at"], r["number"])):
        paid += 0.0 if row["saved"] else row["seconds"] or 0.0
        if row.get("val_accuracy", -1.0) > best:
            best = row["val_accuracy"]
            expected.append([paid, best, row["number"]])
    assert [s[1:] for s in curve["steps"]] == [s[1:] for s in expected]
    assert [s[0] for s in curve["steps"]] == pytest.approx([s[0] for s in expected], rel=1e-3)


def test_points_are_the_trials(client: httpx.Client, rows: list[dict[str, Any]]) -> None:
    header, (numbers, seconds, accuracy, colour) = points(client, x="seconds", y="val_accuracy", color="number")
    there = {r["number"]: r for r in rows if "val_accuracy" in r}
    assert header["count"] == header["matched"] == len(there)
    assert numbers.tolist() == sorted(there) == colour.tolist()
    assert seconds == pytest.approx([there[n]["seconds"] for n in numbers])
    assert accuracy == pytest.approx([there[n]["val_accuracy"] for n in numbers])


def test_points_are_drawn_at_random_where_there_are_too_many(client: httpx.Client) -> None:
    header, columns = points(client, x="order", y="val_accuracy", most=10)
    assert (header["count"], len(columns[0])) == (10, 10)
    assert header["matched"] > 10
    assert points(client, x="order", y="val_accuracy", most=10)[1][0].tolist() == columns[0].tolist()
    later, (numbers, *_) = points(client, x="order", y="val_accuracy", after=30)
    assert numbers.min() >= 30
    assert later["matched"] == header["matched"]


def test_the_front_is_that_of_the_reader(client: httpx.Client, filled: Filled) -> None:
    front = get(client, "/api/front", study="two goals", x="min params", y="max val_accuracy")
    with Reader(filled.url) as reader:
        expected = reader.pareto(Query("two goals", by=("val_accuracy", "min params")))
    assert {(p[1], p[2]) for p in front["points"]} == {(r["params"], r["val_accuracy"]) for r in expected}
    worst = front["reference"]
    area, left = 0.0, sorted(front["points"], key=lambda p: p[1])
    for point, right in zip(left, [*(p[1] for p in left[1:]), worst[0]], strict=True):
        area += (right - point[1]) * (point[2] - worst[1])
    assert front["hypervolume"] == pytest.approx(area)


def test_exports_are_complete(client: httpx.Client, rows: list[dict[str, Any]]) -> None:
    text = client.get("/api/export", params={"study": STUDY, "sort": "val_accuracy", "descending": True}).text
    table = list(csv.DictReader(io.StringIO(text)))
    assert len(table) == len(rows)
    values = [float(r["val_accuracy"]) for r in table if r["val_accuracy"]]
    assert values == sorted(values, reverse=True)
    file = client.get("/api/export", params={"study": STUDY, "format": "parquet"}).content
    frame = pd.read_parquet(io.BytesIO(file))
    assert frame["number"].tolist() == [r["number"] for r in rows]
    assert frame["val_accuracy"].max() == values[0]


def test_a_spreadsheet_computes_nothing(client: httpx.Client) -> None:
    from nasplat.dashboards.views.exports import _cell

    assert [_cell(v) for v in ("=1+1", "@x", "-2", "+3", "|skip~0|", -2.5)] == [
        "'=1+1",
        "'@x",
        "'-2",
        "'+3",
        "|skip~0|",
        -2.5,
    ]


# Architectures -----------------------------------------------------------------------------------------------


def test_an_architecture_with_its_relatives(client: httpx.Client, filled: Filled) -> None:
    best = get(client, "/api/study", study=STUDY)["summary"]["best"]["number"]
    found = get(client, "/api/architecture", study=STUDY, number=best)
    with Reader(filled.url) as reader:
        known = reader.trial(STUDY, best)
        children = reader.sql(f"SELECT child FROM v_lineage WHERE study = '{STUDY}' AND parent = {best}")
    assert found["architecture"]["text"] == known["architecture"] == found["trial"]["architecture"]
    assert [a["number"] for a in found["ancestors"]][:1] == known["parents"]
    assert {c["number"] for c in found["trial"]["children"]} == {r["child"] for r in children}
    measured = {m["epochs"]: m["metrics"] for m in found["architecture"]["measurements"]}
    assert {"naswot", "params", "flops"} <= measured[0].keys()
    assert "val_accuracy" in measured[4]
    assert found["counts"]["params"] == measured[0]["params"]
    assert {t["study"] for t in found["architecture"]["trials"]} >= {STUDY, "scores"}
    assert found["graph"]["nodes"] == ["input", "node 1", "node 2", "output"]
    assert len(found["choices"]) == 6


def test_the_code_builds_the_network(client: httpx.Client) -> None:
    found = get(client, "/api/architecture", study="chains", number=0)
    names: dict[str, Any] = {}
    exec(found["code"], names)  # noqa: S102 - it is there to be run
    assert sum(p.numel() for p in names["network"].parameters()) == found["counts"]["params"]


def test_a_space_that_is_not_installed_is_not_imported(client: httpx.Client) -> None:
    found = get(client, "/api/architecture", study=HOSTILE, number=0)
    assert found["graph"] is None
    assert "--trust-spaces" in found["not_drawn"]
    config = {"space": "nasplat.testing.stored:Words", "space_options": {}}
    assert Installed(trust_spaces=True).choices(config, ["größe=klein,ops=π;--"]) == [{"größe": "klein", "ops": "π;--"}]


# What matters ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["ped-anova", "fanova"])
def test_the_choice_that_the_table_weighs_most_matters_most(client: httpx.Client, method: str) -> None:
    found = get(client, "/api/importance", study="random-1", method=method)
    weights = {row["choice"]: row["importance"] for row in found["importances"]}
    assert len(weights) == 6
    assert sum(weights.values()) == pytest.approx(1)
    if method == "fanova":
        assert max(weights, key=lambda choice: weights[choice]) == "0->3"


def test_parallel_coordinates_are_the_choices(client: httpx.Client, rows: list[dict[str, Any]]) -> None:
    found = get(client, "/api/parallel", study=STUDY)
    first = next(r for r in rows if r["state"] == "completed" and r["repeat_of"] is None)
    spelled = [axis["options"][place] for axis, place in zip(found["choices"], found["rows"][0], strict=True)]
    assert found["values"][0] == first["val_accuracy"]
    assert sorted(spelled) == sorted(
        part.rpartition("~")[0] for part in first["architecture"].replace("+", "").split("|") if part
    )


def test_lineage_counts_every_change_once(client: httpx.Client, filled: Filled) -> None:
    found = get(client, "/api/lineage", study=STUDY)
    with Reader(filled.url) as reader:
        links = reader.sql("SELECT * FROM v_lineage WHERE study = 'evolution-0' ORDER BY child")
    links = [r for r in links if r["improvement"] is not None]
    gains = [r["improvement"] for r in links]
    changes = {(r["parent_architecture"], r["child_architecture"]) for r in links}
    assert found["steps"] == len(gains) > len(changes)
    assert found["different"] == len(changes) == sum(row["n"] for row in found["choices"]) + found["several"]
    assert [g for _, g in found["gains"]] == pytest.approx(gains)
    total = sum(row["n"] * row["mean"] for row in found["choices"])
    assert total == pytest.approx(sum(row["n"] * row["mean"] for row in found["changes"]))


def test_effects_have_the_intervals_of_scipy() -> None:
    gains = [0.1, -0.2, 0.3, 0.05]
    found = effect(gains)
    low, high = stats.ttest_1samp(gains, 0).confidence_interval(0.95)
    assert (found["low"], found["high"]) == pytest.approx((low, high))
    assert found["improved"] == 0.75
    assert effect([0.5])["low"] is None


def test_the_audit_is_that_of_the_library(client: httpx.Client) -> None:
    found = get(client, "/api/audit", study=STUDY)
    points = found["points"]
    scores = {name: np.array(points[name]) for name in ("flops", "l2-norm", "naswot", "params")}
    expected = {a.score: a for a in audit(scores, np.array(points["trained"]), resamples=found["resamples"])}
    assert {row["score"] for row in found["scores"]} == expected.keys()
    for row in found["scores"]:
        assert row["tau"]["value"] == expected[row["score"]].tau.value
        assert row["verdict"] == str(expected[row["score"]].verdict)
    assert found["architectures"] == 24


def test_an_audit_without_scores_says_what_to_do(client: httpx.Client) -> None:
    status, error = refused(client, "/api/audit", study="two goals")
    assert status == 400
    assert "nasplat score --space nasbench201" in error


def test_studies_that_differ_in_their_seed_are_one_group(client: httpx.Client) -> None:
    names = ["evolution-0", "random-0", "evolution-1", "random-1"]
    found = get(client, "/api/compare", study=names)
    assert [g["studies"] for g in found["groups"]] == [["evolution-0", "evolution-1"], ["random-0", "random-1"]]
    a, b = (g["finals"] for g in found["groups"])
    (test,) = found["tests"]
    assert test["p"] == pytest.approx(stats.mannwhitneyu(a, b).pvalue) == test["adjusted"]
    assert {d["setting"] for d in found["differences"]} == {"strategy", "strategy_options", "seed"}
    for group in found["groups"]:
        medians = [m for m in group["median"] if m is not None]
        assert medians == sorted(medians)


def test_studies_with_other_goals_are_not_compared(client: httpx.Client) -> None:
    status, error = refused(client, "/api/compare", study=[STUDY, "chains"])
    assert status == 400
    assert "look for different things" in error


# Everything else ---------------------------------------------------------------------------------------------


def test_an_unknown_study_is_not_found(client: httpx.Client) -> None:
    status, error = refused(client, "/api/study", study="evolution-00")
    assert status == 404
    assert "did you mean 'evolution-0'?" in error


def test_the_schema_names_every_address(client: httpx.Client) -> None:
    schema = get(client, "/api/openapi.json")
    assert {"/api/studies", "/api/points", "/api/live", "/api/sql"} <= schema["paths"].keys()
    assert all(set(methods) == {"get"} for methods in schema["paths"].values())


def test_a_report_is_one_file(filled: Filled, tmp_path: Path, client: httpx.Client) -> None:
    from nasplat.dashboards.report import write_report
    from nasplat.storage.browsing import Database

    with Database(filled.url) as database:
        write_report(database, Installed(trust_spaces=False), STUDY, tmp_path / "reports" / "r.html")
        write_report(database, Installed(trust_spaces=False), HOSTILE, tmp_path / "h.html")
    text = (tmp_path / "reports" / "r.html").read_text(encoding="utf-8")
    data = json.loads(text.split('id="nasplat-data">')[1].split("</script>")[0])
    assert data["report"]["parts"] == ["curve", "pareto", "importance", "parallel", "lineage", "audit"]
    assert (
        data[f"/api/study?study={STUDY}"]["summary"]["trials"]
        == get(client, "/api/study", study=STUDY)["summary"]["trials"]
    )
    hostile = (tmp_path / "h.html").read_text(encoding="utf-8")
    assert "<img" not in hostile
    assert hostile.count("</script>") == 2
