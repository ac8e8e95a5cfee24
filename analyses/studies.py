"""How the long studies run: jobs in worker processes, each kept when finished; tables and pages from what is kept.

A job is known by its name alone. Jobs whose rows the repository's results hold are not done again, nor are those that
are finished in the run folder: a study can be stopped at any moment, and its page written from what there is
(`--page`). So whoever changes what a job does gives it another name, or takes its rows out of both.
"""  # fmt: skip

from __future__ import annotations

import argparse
import multiprocessing
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Protocol

import numpy as np
import pandas as pd
import torch
from tqdm.auto import tqdm

from mechunlearn.facts import Facts
from mechunlearn.runs import RunFolder, write_frame

RESULTS = Path(__file__).parent / "results"
Tables = dict[str, pd.DataFrame]


class Page(Protocol):
    """A module that writes the page of a study."""

    def write(self, tables: Tables, missing: int) -> None: ...


def study(
    stem: str,
    description: str | None,
    jobs: Callable[[int], Sequence[str]],
    do: Callable[[str, Path], Tables],
    quick: tuple[Sequence[str], Callable[[str, Path], Tables]],
    page: Page,
) -> None:
    """A study's command line: all jobs and the page; only the page; or, for a quick look, few jobs and no page.

    `jobs(seeds)` names them in their order; `quick` holds the jobs of a quick look and what does them.
    """
    torch.set_num_threads(1)
    options = _arguments(description, stem)
    if options.quick:
        run_jobs(*quick, options.out.with_name(f"{options.out.name}-quick"), stem, options.workers, held=False)
        return
    wanted = jobs(options.seeds)
    if not options.page:
        run_jobs(wanted, do, options.out, stem, options.workers)
    tables = collect(wanted, options.out, stem)
    write(tables, stem)
    page.write(tables, missing=len(wanted) - len({job for table in tables.values() for job in table["job"]}))


def _arguments(description: str | None, stem: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs") / stem, help="where models and finished jobs are kept")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2, help="processes of one thread each")
    parser.add_argument("--quick", action="store_true", help="small and short, to see that all of it runs; no page")
    parser.add_argument("--page", action="store_true", help="only write the page of what is finished")
    return parser.parse_args()


def run_jobs(
    jobs: Sequence[str], do: Callable[[str, Path], Tables], out: Path, stem: str, workers: int = 2, held: bool = True
) -> Tables:
    """Every table of every job, in the order of the jobs; jobs that are finished are not done again.

    `do(job, folder)` is a function of a module (it is called in other processes); each of its tables gets a column
    `job`. `held`: whether to look for finished jobs in `results/{stem}_{table}.parquet` as well.
    """
    folder = RunFolder(out, "study", {"study": stem})
    known = read(stem) if held else {}
    finished = {job for table in known.values() for job in table["job"]}
    missing = [job for job in jobs if job not in finished and not _units(folder, job)]
    for job, tables in tqdm(_done(missing, do, out, workers), total=len(missing), desc=stem, disable=not missing):
        for name, table in tables.items():
            folder.finish_unit(f"{job}.{name}", table.assign(job=job))
        folder.finish_unit(f"{job}.done", pd.DataFrame({"job": [job], "finished": [time.time()]}))
    return collect(jobs, out, stem, held)


def _done(
    jobs: Sequence[str], do: Callable[[str, Path], Tables], out: Path, workers: int
) -> Iterator[tuple[str, Tables]]:
    """Every job with its tables, as they are finished; one worker is this process itself.

    A job that fails does not keep the others from being done and kept; the first failure is raised behind the last.
    """
    if workers == 1:
        yield from ((job, do(job, out / "jobs" / job)) for job in jobs)
        return
    failed: list[BaseException] = []
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), initializer=_one_thread) as pool:
        running = {pool.submit(do, job, out / "jobs" / job): job for job in jobs}
        for future in as_completed(running):
            if (error := future.exception()) is None:
                yield running[future], future.result()
            else:
                error.add_note(f"in the job {running[future]}")
                failed.append(error)
    if failed:
        raise failed[0]


def collect(jobs: Sequence[str], out: Path, stem: str, held: bool = True) -> Tables:
    """The tables of the finished ones among these jobs."""
    known = read(stem) if held else {}
    parts: dict[str, list[pd.DataFrame]] = {}
    for job in jobs:
        found = {name: table[table["job"] == job] for name, table in known.items() if (table["job"] == job).any()}
        found |= {
            file.name.removeprefix(f"{job}.").removesuffix(".parquet"): pd.read_parquet(file)
            for file in _files(out, job)
        }
        for name, table in found.items():
            if name != "done":
                parts.setdefault(name, []).append(table)
    return {name: pd.concat(tables, ignore_index=True) for name, tables in parts.items()}


def read(stem: str) -> Tables:
    """The tables of a study that the repository holds."""
    files = sorted(RESULTS.glob(f"{stem}_*.parquet"))
    return {file.stem.removeprefix(f"{stem}_"): pd.read_parquet(file) for file in files}


def write(tables: Mapping[str, pd.DataFrame], stem: str) -> None:
    """Keep the tables beside the page; rows of jobs that were not asked for now stay."""
    known = read(stem)
    for name, table in tables.items():
        if name in known:
            table = pd.concat([table, known[name][~known[name]["job"].isin(table["job"])]], ignore_index=True)
        write_frame(RESULTS / f"{stem}_{name}.parquet", table)


def over_seeds(values: Sequence[float] | pd.Series, digits: int = 2) -> str:
    """Mean [smallest, largest] of one value a seed; of one seed, its value.

    No bootstrap: of three values its 95 % interval is their range, and would promise more than that.
    """
    numbers = pd.Series(values, dtype=float).dropna()
    if not len(numbers):
        return "–"
    mean, low, high = (f"{number:.{digits}f}" for number in (numbers.mean(), numbers.min(), numbers.max()))
    return mean if len(numbers) == 1 else f"{mean} [{low}, {high}]"


def paired(
    first: pd.DataFrame, second: pd.DataFrame, subjects: Mapping[str, str], resamples: int = 2000, seed: int = 0
) -> str:
    """first − second, in the mean over seeds and facts, with a 95 % interval from resampling seeds and subjects both.

    Both have `seed, fact, value`; only pairs that both have count. `subjects` says what each fact is about; one that it
    lacks is resampled by itself. What three seeds say about other seeds is little: the interval is one over subjects,
    widened by how far these seeds lie apart.
    """
    both = first.merge(second, on=["seed", "fact"], suffixes=("_first", "_second"))
    both["difference"] = both["value_first"] - both["value_second"]
    matrix = both.pivot(index="seed", columns="fact", values="difference").dropna(axis=1)
    if not matrix.size:
        return "–"
    n_seeds, n_facts = matrix.shape
    names = [f"subject {subjects[fact]}" if fact in subjects else f"fact {fact}" for fact in matrix.columns]
    by_subject = matrix.T.groupby(np.asarray(names))
    sums, counts = by_subject.sum().T.to_numpy(), by_subject.size().to_numpy()
    n_subjects = len(counts)
    random = np.random.default_rng(seed)
    means = []
    for _ in range(resamples):
        rows, columns = random.integers(n_seeds, size=n_seeds), random.integers(n_subjects, size=n_subjects)
        means.append(sums[rows][:, columns].sum() / (n_seeds * counts[columns].sum()))
    low, high = np.quantile(means, [0.025, 0.975])
    of = f" of {n_subjects} subjects" if n_subjects < n_facts else ""
    return f"{matrix.to_numpy().mean():+.3f} [{low:+.3f}, {high:+.3f}], {n_seeds} seeds × {n_facts} facts{of}"


def subjects_of(facts: Facts) -> dict[str, str]:
    """The subject of every fact that has one, by the fact's id."""
    return {fact.id: fact.subject for fact in facts if fact.subject is not None}


def _files(out: Path, job: str) -> list[Path]:
    """The tables of a finished job; those of an unfinished one do not count."""
    folder = out / "units"
    return sorted(folder.glob(f"{job}.*.parquet")) if (folder / f"{job}.done.parquet").exists() else []


def _units(folder: RunFolder, job: str) -> list[Path]:
    return _files(folder.path, job)


def _one_thread() -> None:
    torch.set_num_threads(1)
