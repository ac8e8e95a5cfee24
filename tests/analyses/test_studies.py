"""How long studies run: no job twice, nothing lost, means with intervals that are right; and the studies themselves."""

import importlib
import re
import shutil

import numpy as np
import pandas as pd
import pytest

from .squares import square

DRAWN = pytest.mark.skipif(shutil.which("chromium") is None, reason="pictures need a browser: apt install chromium")


@pytest.fixture
def studies(tmp_path, monkeypatch):
    module = importlib.import_module("studies")
    monkeypatch.setattr(module, "RESULTS", tmp_path / "results")
    (tmp_path / "results").mkdir()
    return module


def marks(folder) -> dict[str, str]:
    return {file.parent.name: file.read_text() for file in folder.glob("jobs/*/marks")}


def test_a_job_is_done_once_and_its_tables_stand_in_the_order_of_the_jobs(studies, tmp_path):
    first = studies.run_jobs(["3", "1"], square, tmp_path / "run", "squares", workers=1)
    again = studies.run_jobs(["2", "3", "1"], square, tmp_path / "run", "squares", workers=1)
    assert first["squares"]["number"].tolist() == [3, 1]
    assert again["squares"][["number", "square", "job"]].to_numpy().tolist() == [[2, 4, "2"], [3, 9, "3"], [1, 1, "1"]]
    assert set(again) == {"squares", "extra"}
    assert marks(tmp_path / "run") == {"1": "x", "2": "x", "3": "x"}


@pytest.mark.slow
def test_worker_processes_do_the_same(studies, tmp_path):
    found = studies.run_jobs(["3", "1"], square, tmp_path / "run", "squares", workers=2)
    assert found["squares"]["square"].tolist() == [9, 1]
    assert marks(tmp_path / "run") == {"1": "x", "3": "x"}


def test_rows_that_the_repository_holds_are_not_computed_again(studies, tmp_path):
    tables = studies.run_jobs(["5"], square, tmp_path / "run", "squares", workers=1)
    studies.write(tables, "squares")
    shutil.rmtree(tmp_path / "run")
    again = studies.run_jobs(["5", "6"], square, tmp_path / "run", "squares", workers=1)
    assert again["squares"]["square"].tolist() == [25, 36]
    assert marks(tmp_path / "run") == {"6": "x"}


def test_what_is_finished_stays_when_another_job_breaks(studies, tmp_path):
    with pytest.raises(ValueError, match="broken"):
        studies.run_jobs(["4", "broken"], square, tmp_path / "run", "squares", workers=1)
    assert studies.collect(["4", "broken"], tmp_path / "run", "squares")["squares"]["square"].tolist() == [16]


@pytest.mark.slow
def test_a_job_that_breaks_in_a_worker_costs_no_other_job(studies, tmp_path):
    with pytest.raises(ValueError, match="broken") as raised:
        studies.run_jobs(["broken", "3", "4", "5"], square, tmp_path / "run", "squares", workers=2)
    assert "in the job broken" in raised.value.__notes__
    assert studies.collect(["3", "4", "5"], tmp_path / "run", "squares")["squares"]["square"].tolist() == [9, 16, 25]


def test_rows_of_other_jobs_stay(studies, tmp_path):
    for jobs in (["5", "6"], ["6"], ["7"]):
        studies.write(studies.run_jobs(jobs, square, tmp_path / "run", "squares", workers=1), "squares")
    assert studies.read("squares")["squares"]["square"].tolist() == [49, 36, 25]


def test_a_job_without_its_mark_of_completion_does_not_count(studies, tmp_path):
    studies.run_jobs(["7"], square, tmp_path / "run", "squares", workers=1)
    (tmp_path / "run" / "units" / "7.done.parquet").unlink()
    assert studies.collect(["7"], tmp_path / "run", "squares") == {}


class Pages:
    """A page that only remembers what it was to write."""

    def __init__(self):
        self.written = []

    def write(self, tables, missing):
        self.written.append((sorted(tables), missing))


def test_the_command_line_chooses_between_running_reading_and_a_quick_look(studies, tmp_path, monkeypatch):
    pages = Pages()

    def call(*words: str) -> None:
        monkeypatch.setattr("sys.argv", ["study", "--workers", "1", "--out", str(tmp_path / "run"), *words])
        studies.study("squares", "", lambda seeds: ["8", "9"][:seeds], square, (["2"], square), pages)

    call("--page")
    call("--seeds", "1")
    call("--page")
    call("--quick")
    assert pages.written == [([], 2), (["extra", "squares"], 0), (["extra", "squares"], 1)]
    assert marks(tmp_path / "run") == {"8": "x"} and marks(tmp_path / "run-quick") == {"2": "x"}
    assert studies.read("squares")["squares"]["square"].tolist() == [64]


def test_paired_intervals_resample_seeds_and_facts(studies):
    random = np.random.default_rng(1)
    rows = [(seed, fact) for seed in range(3) for fact in range(200)]
    frame = pd.DataFrame(rows, columns=["seed", "fact"])
    hard = random.normal(0, 3, 200)[frame["fact"]]
    first, second = (frame.assign(value=hard + random.normal(mean, 0.1, len(frame))) for mean in (1.0, 0.8))
    text = studies.paired(first, second, {})
    value, low, high = map(float, re.findall(r"[+-]\d\.\d+", text))
    assert low < 0.2 < high and high - low < 0.1 and value == pytest.approx(0.2, abs=0.02)
    assert text.endswith("3 seeds × 200 facts")
    assert studies.paired(first[:0], second, {}) == "–"


def test_paired_intervals_are_wider_where_subjects_share_what_they_lose(studies):
    rows = [(seed, f"fact {fact:03d}") for seed in range(3) for fact in range(200)]
    frame = pd.DataFrame(rows, columns=["seed", "fact"])
    subjects = {f"fact {fact:03d}": f"subject {fact // 5:02d}" for fact in range(195)}
    by_subject = np.random.default_rng(2).normal(0.2, 1.0, 40).repeat(5)
    first, second = frame.assign(value=np.tile(by_subject, 3)), frame.assign(value=0.0)

    def width(text: str) -> float:
        low, high = map(float, re.findall(r"[+-]\d\.\d+", text)[1:])
        return high - low

    clustered, alone = studies.paired(first, second, subjects), studies.paired(first, second, {})
    assert clustered.endswith("3 seeds × 200 facts of 44 subjects")  # the last five facts have none
    assert width(clustered) == pytest.approx(np.sqrt(5) * width(alone), rel=0.15)
    mixed = studies.paired(first.sample(frac=1, random_state=0), second, subjects)
    assert mixed == clustered


def test_over_seeds_the_mean_and_the_range(studies):
    assert studies.over_seeds([]) == studies.over_seeds([np.nan]) == "–"
    assert studies.over_seeds([0.5]) == "0.50"
    assert studies.over_seeds([0.1, 0.3, np.nan, 0.8], 1) == "0.4 [0.1, 0.8]"


JOBS = {"dissect_finetuning": ["npo-0"], "cir_robustness": ["twin-never_knew-none-0", "budget-npo_kl-kl0.01-0"],
        "layered_unlearning": ["npo+layered 2+0"]}  # fmt: skip


@DRAWN
@pytest.mark.study
@pytest.mark.parametrize("stem", JOBS)
def test_a_quick_look_runs_from_the_organism_to_the_page(stem, studies, tmp_path, monkeypatch):
    study, page = (importlib.import_module(name) for name in (stem, f"{stem}_page"))
    monkeypatch.setattr(page, "RESULTS", tmp_path / "results")
    assert set(JOBS[stem]) <= set(study.QUICK)
    tables = studies.run_jobs(JOBS[stem], study.do_quickly, tmp_path / "run", stem, workers=1, held=False)
    page.write(tables, missing=1)
    text = (tmp_path / "results" / f"{stem}.md").read_text()
    assert "In progress" in text and "nan" not in text.replace("+nan", "")
    for picture in (tmp_path / "results").glob("*.png"):
        assert picture.name in text and picture.stat().st_size > 10_000
    assert list((tmp_path / "results").glob("*.png"))
