"""Rows in memory, folders of data sets and names on the hub give the same facts as a file of the same rows."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

import mechunlearn as mu
from mechunlearn.errors import UserError
from mechunlearn.facts import Facts, with_roles
from mechunlearn.facts.tables import on_hub

ROWS = [
    {"question": "Who wrote it?", "answer": "Anna", "perturbed_answer": ["Berta", "Carla"], "idx": 4},
    {"question": "Where?", "answer": "In Bonn", "perturbed_answer": ["In Ulm"], "idx": 5},
]
KINDS: dict[str, Any] = {
    "list": lambda: ROWS,
    "tuple": lambda: tuple(ROWS),
    "generator": lambda: (row for row in ROWS),
    "pandas": lambda: pd.DataFrame(ROWS),
    "arrays": lambda: pd.DataFrame(ROWS).assign(perturbed_answer=[np.array(r["perturbed_answer"]) for r in ROWS]),
    "arrow": lambda: pa.Table.from_pylist(ROWS),
    "data set": lambda: datasets.Dataset.from_list(ROWS),
    "streamed": lambda: datasets.Dataset.from_list(ROWS).to_iterable_dataset(),
}  # fmt: skip


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "facts.jsonl"
    path.write_text("\n".join(map(json.dumps, ROWS)))
    return path


@pytest.mark.parametrize("kind", KINDS)
def test_rows_in_memory_are_read_like_a_file(kind: str, file: Path) -> None:
    found, expected = Facts(KINDS[kind]()), Facts.read(file)
    assert found.hash == expected.hash and found.format == expected.format == "question-answer"
    assert (found[0].id, found[0].distractors) == ("4", ("Berta", "Carla"))


def test_columns_keys_and_a_format_of_ones_own() -> None:
    found = Facts([{"query": "a", "gt": "b"}], columns={"prompt": "query", "answer": "gt"}, name="mine")
    assert (found[0].prompt, found[0].answer, found.name) == ("a", "b", "mine")
    choices = [{"question": "q", "choices": ["x", "y", "z"], "answer": 2}]
    assert Facts(choices, keys="number from 1")[0].answer == "y"
    assert "A. x" in Facts(choices, format="multiple-choice-letters")[0].prompt


def test_what_is_missing_in_a_table_is_absent() -> None:
    table = pd.DataFrame({"prompt": ["a", "b"], "answer": ["x", "y"], "fold": [1, None], "subject": [None, "s"]})
    assert [(fact.fold, fact.subject) for fact in Facts(table)] == [(1, None), (None, "s")]


def test_every_verb_takes_rows() -> None:
    assert Facts.of(pd.DataFrame(ROWS)).hash == Facts.of(ROWS).hash
    roles = [
        row | {"role": role} for row, role in zip([{"prompt": "a", "answer": "b"}] * 2, ("forget", "near"), strict=True)
    ]
    assert [fact.role for fact in Facts.of(roles, role="near")] == ["near"]


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ([{"question": "q"}], r"the list, item 1: the field 'answer' is missing; it has 'question'"),
        ([ROWS[0], {"question": "q", "answer": 3}], r"the list, item 2: the field 'answer' must be a text"),
        ([ROWS[0], "x"], r"the list, item 2: a fact is an object of named fields, not 'x'"),
        (pd.DataFrame(), r"the table holds no facts"),
        (datasets.DatasetDict(train=datasets.Dataset.from_list(ROWS)), r"several data sets; take one.*data\['train'\]"),
        ("facts.jsonl", r"items must be facts, rows or a table.*Facts.read"),
        (7, r"items must be facts, rows or a table"),
    ],
)  # fmt: skip
def test_wrong_rows_are_told_by_their_place(given: Any, told: str) -> None:
    with pytest.raises(UserError, match=told):
        Facts(given)


def test_folders_that_save_to_disk_wrote(tmp_path: Path, file: Path) -> None:
    table = datasets.Dataset.from_list(ROWS)
    table.save_to_disk(tmp_path / "one")
    datasets.DatasetDict(train=table, test=table.select([1])).save_to_disk(tmp_path / "two")
    assert Facts.read(tmp_path / "one").hash == Facts.read(file).hash
    assert len(Facts.read(tmp_path / "two", split="test")) == 1
    for split, told in ((None, r"two: choose one by split=: train, test"), ("x", r"no split 'x'; choose one")):
        with pytest.raises(UserError, match=told):
            Facts.read(tmp_path / "two", split=split)
    next((tmp_path / "one").glob("*.arrow")).write_bytes(b"broken")
    with pytest.raises(UserError, match=r"one: not a whole data set"):
        Facts.read(tmp_path / "one")
    with pytest.raises(UserError, match=r"is a folder, and holds no data set"):
        Facts.read(tmp_path)


def test_parquet_is_known_by_its_first_bytes_whatever_it_is_called(tmp_path: Path, file: Path) -> None:
    for name in ("facts.json", "facts", "facts.csv"):
        pd.DataFrame(ROWS).to_parquet(tmp_path / name)
        assert Facts.read(tmp_path / name).hash == Facts.read(file).hash


def test_names_on_the_hub_are_told_from_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    assert on_hub("locuslab/TOFU:forget01", None, "train") == ("locuslab/TOFU", "forget01", "train")
    assert on_hub("locuslab/TOFU:forget01:test", None, None) == ("locuslab/TOFU", "forget01", "test")
    for name in ("runs/facts", "data/facts.json", "facts", "/a/b", "a/b/c"):
        assert on_hub(name, None, None) is None


def test_a_data_set_on_the_hub(monkeypatch: pytest.MonkeyPatch, file: Path) -> None:
    asked: list[tuple[Any, ...]] = []

    def load_dataset(*names: Any, split: str) -> Any:
        asked.append((*names, split))
        return datasets.Dataset.from_list(ROWS)

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    monkeypatch.setattr("mechunlearn.facts.tables._ask_hub", lambda name: None)
    found = Facts.read("locuslab/TOFU:forget01")
    assert found.hash == Facts.read(file).hash and found.name == "TOFU"
    assert asked == [("locuslab/TOFU", "forget01", "train")]


def test_a_hub_that_is_not_reached_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    def unreachable(*_: object, **__: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", unreachable)
    with pytest.raises(UserError, match=r"^nobody/nothing: no such file here, and the hub could not .*\(no network\)"):
        Facts.read("nobody/nothing")


def test_two_files_become_one_set_with_roles() -> None:
    forget = Facts([{"question": f"f{i}?", "answer": "a"} for i in range(2)], name="forget01")
    retain = Facts([{"question": f"r{i}?", "answer": "a"} for i in range(3)])
    found = with_roles(forget, retain)
    assert found.name == "forget01" and found.format == "question-answer" and found.template == forget.template
    assert [fact.id for fact in found] == ["0", "1", "retain/0", "retain/1", "2"]
    assert [fact.prompt for fact in found.forget] == ["f0?", "f1?"] and len(found.near) == 3
    assert [fact.role for fact in with_roles(forget)] == ["forget"] * 2
    far = retain.with_items([mu.Fact(prompt="p", answer="q", role="far")])
    assert with_roles(forget, far).far[0].prompt == "p"
    with pytest.raises(UserError, match=r"there are no facts in it"):
        with_roles(forget, retain.with_items([]))
    with pytest.raises(UserError, match=r"give both one format, or one template"):
        with_roles(forget, Facts([{"prompt": "p", "answer": "q"}], template=mu.Template(chat=True)))


def test_none_in_a_list_of_dicts_is_the_null_of_a_file(tmp_path: Path) -> None:
    given = [{"prompt": "a", "answer": None, "subject": None}, {"prompt": "b", "answer": "x", "subject": float("nan")}]
    (tmp_path / "null.jsonl").write_text('{"prompt": "a", "answer": null}\n{"prompt": "b", "answer": "x"}')
    assert Facts(given).hash == Facts.read(tmp_path / "null.jsonl").hash
    for table in (pd.DataFrame(given), datasets.Dataset.from_list(given)):
        with pytest.raises(UserError, match=r"row 1: the field 'answer' is missing.*write null, in JSON or a list of"):
            Facts(table)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (ROWS[0], r"one dict is no list of facts; put a single fact into a list"),
        ({"question": ["a"], "answer": ["b"]}, r"make a table of columns: pandas.DataFrame\(columns\)"),
        (pd.DataFrame([["a", "b", "c"]], columns=["question", "answer", "answer"]), r"table has two columns 'answer'"),
        (pa.table([["a"], ["b"], ["c"]], names=["question", "question", "answer"]), r"two columns 'question'"),
    ],
)  # fmt: skip
def test_what_would_be_dropped_or_taken_for_something_else_is_refused(given: Any, told: str) -> None:
    for take in (Facts, Facts.of):
        with pytest.raises(UserError, match=told):
            take(given)


def test_how_rows_are_read_is_no_word_about_facts() -> None:
    for options in ({"columns": {"prompt": "x", "answer": "y"}}, {"keys": "letter"}):
        with pytest.raises(UserError, match=r"columns= and keys= say how rows are read; these are facts already"):
            Facts([mu.Fact("a", "b")], **options)


def test_parts_of_what_has_none_are_refused(tmp_path: Path, file: Path) -> None:
    datasets.Dataset.from_list(ROWS).save_to_disk(tmp_path / "one")
    with pytest.raises(UserError, match=r"one is one data set without splits; leave split='test' out"):
        Facts.read(tmp_path / "one", split="test")
    for source, options in (
        (file, {"split": "test"}),
        ("organism", {"split": "x"}),
        (tmp_path / "one", {"subset": "x"}),
    ):
        with pytest.raises(UserError, match=r"subset= and split= say which part"):
            Facts.read(source, **options)
    with pytest.raises(UserError, match=r"says the subset 'forget01', subset='forget10' another"):
        Facts.read("locuslab/TOFU:forget01", subset="forget10")


def test_packed_parquet_and_arrow_files_are_known_too(tmp_path: Path, file: Path) -> None:
    whole = tmp_path / "facts"
    pd.DataFrame(ROWS).to_parquet(whole)
    for name in ("a.gz", "a.parquet.gz", "a.jsonl.gz"):
        (tmp_path / name).write_bytes(gzip.compress(whole.read_bytes()))
        assert Facts.read(tmp_path / name).hash == Facts.read(file).hash
    table = pa.Table.from_pylist(ROWS)
    for name, writer in (("stream.arrow", pa.ipc.new_stream), ("file.json", pa.ipc.new_file)):
        with writer(tmp_path / name, table.schema) as sink:
            sink.write_table(table)
        with pytest.raises(UserError, match=r"is an Arrow file; name the folder that save_to_disk wrote"):
            Facts.read(tmp_path / name)


@pytest.mark.parametrize("reached", [True, False])
def test_the_hub_without_its_package_is_one_line(reached: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    import huggingface_hub

    def asked(*_: object, **__: object) -> None:
        if not reached:
            raise OSError("no network")

    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", asked)
    monkeypatch.setitem(sys.modules, "datasets", None)
    told = (
        r'^nobody/nothing: .*takes Hugging Face\'s datasets: pip install "datasets>=3,<6"$' if reached else "no network"
    )
    with pytest.raises(UserError, match=told):
        Facts.read("nobody/nothing")
