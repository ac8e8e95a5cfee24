"""Rows that are no file of text: lists of named fields, pandas' and Arrow's tables, data sets of Hugging Face."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from pyarrow import ipc

from ..checking import shown
from ..errors import UserError, first_line
from ..naming import PATIENCE
from ..reading import named, there
from .records import Record

INSTALL = 'pip install "datasets>=3,<6"'
SUFFIXES = (".json", ".jsonl", ".csv", ".tsv", ".parquet", ".arrow", ".gz", ".txt")  # of files: no name of a data set
STATE = "state.json"  # what `save_to_disk` writes beside the rows of a data set
SPLITS = "dataset_dict.json"  # and above those of several


def is_table(source: object) -> bool:
    """Whether these are rows that `rows` takes as a whole (a list of named fields is seen by its first item)."""
    return isinstance(source, pd.DataFrame | pa.Table) or _is_dataset(source)


def rows(source: Any) -> list[Record]:
    """The rows of a table that is in memory; what is missing in a row counts as absent.

    A None in a list of dicts is what null is in JSON: a field that is there, and says nothing.

    Raises:
        UserError: several data sets under names, columns under one name, no rows, a row that is no object of named
            fields.
    """
    if isinstance(source, Mapping):
        raise _no_list(source)
    if isinstance(source, pd.DataFrame | pa.Table):
        names = [str(name) for name in (source if isinstance(source, pd.DataFrame) else source.column_names)]
        if twice := [name for name, times in Counter(names).items() if times > 1]:
            raise UserError(f"the table has two columns {twice[0]!r}; rename or drop one")
        found = source.to_dict("records") if isinstance(source, pd.DataFrame) else source.to_pylist()
        return _records(found, "the table, row")
    if _is_dataset(source):
        return _records(source, "the data set, row")
    return _records(source, "the list, item", null=True)


def _no_list(source: Mapping[Any, Any]) -> UserError:
    """The error for named things in place of rows: data sets by split, columns, or one row."""
    if is_table(source) or (source and all(is_table(value) for value in source.values())):
        return UserError(f"these are several data sets; take one of them: data[{next(iter(source), 'train')!r}]")
    return UserError(
        "one dict is no list of facts; put a single fact into a list, [{…}], and make a table of columns: "
        "pandas.DataFrame(columns)"
    )


def saved_rows(folder: Path, split: str | None = None) -> list[Record]:
    """The rows of a data set that `Dataset.save_to_disk` or `DatasetDict.save_to_disk` wrote.

    Raises:
        UserError: the folder holds none, several without a `split`, or files that cannot be read.
    """
    place = named(folder)
    try:
        if (folder / SPLITS).is_file():
            splits = json.loads((folder / SPLITS).read_text(encoding="utf-8"))["splits"]
            if split not in splits:
                said = "" if split is None else f"no split {split!r}; "
                raise UserError(f"{place}: {said}choose one by split=: {', '.join(splits)}")
            folder = folder / str(split)
        elif split is not None and (folder / STATE).is_file():
            raise UserError(f"{place} is one data set without splits; leave split={split!r} out")
        if not (folder / STATE).is_file():
            raise UserError(
                f"{place} is a folder, and holds no data set that save_to_disk wrote; name a file, or such a folder"
            )
        files = json.loads((folder / STATE).read_text(encoding="utf-8"))["_data_files"]
        table = pa.concat_tables([_arrow(folder / file["filename"]) for file in files])
    except UserError:
        raise
    except (OSError, ValueError, LookupError, TypeError, pa.ArrowException) as error:
        raise UserError(f"{place}: not a whole data set ({type(error).__name__}: {error})") from error
    return _records(table.to_pylist(), f"{folder.name}, row")


def on_hub(source: str, subset: str | None, split: str | None) -> tuple[str, str | None, str | None] | None:
    """Name, subset and split of a data set on the hub; None for what names a file.

    Raises:
        UserError: the name says one subset or split, the argument another.
    """
    match = re.fullmatch(r"([\w.-]{1,96}/[\w.-]{1,96})(?::([\w.-]+))?(?::([\w.-]+))?", source)
    if match is None or there(source) or there(Path(source).parent) or Path(match[1]).suffix in SUFFIXES:
        return None
    for argument, said, given in (("subset", match[2], subset), ("split", match[3], split)):
        if said is not None and given not in (None, said):
            raise UserError(f"{source} says the {argument} {said!r}, {argument}={given!r} another; give one of the two")
    return match[1], match[2] or subset, match[3] or split


def hub_rows(name: str, subset: str | None, split: str | None) -> list[Record]:
    """The rows of a data set on Hugging Face's hub.

    Raises:
        UserError: the hub is not reached, has no such data set, subset or split; datasets is not installed.
    """
    try:
        _ask_hub(name)
        import datasets  # seconds, which other facts need not wait for

        return rows(datasets.load_dataset(name, subset, split=split or "train"))
    except UserError:
        raise
    except Exception as error:  # of the network, of access, of unknown subsets and splits: one for each way there is
        if isinstance(error, ModuleNotFoundError) and error.name == "datasets":
            raise UserError(
                f"{name}: no such file here; a data set of the hub takes Hugging Face's datasets: {INSTALL}"
            ) from None
        raise UserError(
            f"{name}: no such file here, and the hub could not give such a data set ({first_line(error)[:200]}); check "
            "the name, its subset and split (owner/name:subset:split), the network and your access"
        ) from error


def _ask_hub(name: str) -> None:
    """Whether it is there, before libraries try for half a minute; what was fetched before needs no network.

    Raises:
        Exception: of many kinds, the hub's words for it.
    """
    import huggingface_hub as hub

    try:
        hub.get_hf_file_metadata(hub.hf_hub_url(name, "README.md", repo_type="dataset"), timeout=PATIENCE)
    except hub.errors.EntryNotFoundError:
        return
    except Exception as error:
        try:
            from datasets import config
        except ModuleNotFoundError:
            raise error from None
        if not (Path(config.HF_DATASETS_CACHE) / name.replace("/", "___")).is_dir():
            raise


def _arrow(file: Path) -> pa.Table:
    with pa.memory_map(str(file)) as source:
        return ipc.open_stream(source).read_all()


def _is_dataset(source: object) -> bool:
    return type(source).__module__.partition(".")[0] == "datasets"


def _records(items: Iterable[Any], place: str, null: bool = False) -> list[Record]:
    """`null`: None is a value of its own, not a missing one."""
    found = []
    for number, item in enumerate(items, start=1):
        if not isinstance(item, Mapping):
            raise UserError(f"{place} {number}: a fact is an object of named fields, not {shown(item)}")
        plain = ((str(name), given, _plain(given)) for name, given in item.items())
        fields = {name: value for name, given, value in plain if value is not None or (null and given is None)}
        found.append(Record(fields, f"{place} {number}"))
    if not found:
        raise UserError(f"{place.partition(',')[0]} holds no facts")
    return found


def _plain(value: Any) -> Any:
    """A cell as a file would hold it: None where it is missing."""
    if isinstance(value, np.ndarray | tuple):
        value = list(value)
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and value.is_integer():
        return int(value)  # pandas' way of keeping whole numbers beside missing ones
    return None if value is None or value is pd.NA or value is pd.NaT or value != value else value
