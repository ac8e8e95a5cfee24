"""Any file as facts: which of its columns holds what."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from ..errors import UserError
from .fact import Fact
from .records import Record

LISTS = ("paraphrases", "held_out", "distractors")


def mapped(records: Sequence[Record], columns: Mapping[str, str]) -> list[Record]:
    """The records with the fields of `Fact` that `columns` names, each from its column; nothing else is taken.

    A column may lie inside others ("requested_rewrite.prompt"). A list where one text is wanted gives its first, the
    name by which a thing is asked for; {} in a prompt is the subject's place.

    Raises:
        UserError: no field of a fact, neither prompt nor answer named, a record without the column.
    """
    known = [field.name for field in fields(Fact)]
    for name in columns:
        if name not in known:
            raise UserError(f"columns: a fact has no field {name!r}; its fields are {', '.join(known)}")
    if "prompt" not in columns:
        raise UserError("columns: which one holds the prompt? columns={'prompt': …, 'answer': …}")
    return [_record(record, columns) for record in records]


def _record(record: Record, columns: Mapping[str, str]) -> Record:
    found: dict[str, Any] = {"answer": None}
    for name, column in columns.items():
        value = _dug(record, column)
        found[name] = _texts(value) if name in LISTS else value if name == "fold" else _text(value)
    if "{}" in str(found["prompt"]) and found.get("subject"):
        found["prompt"] = found["prompt"].replace("{}", found["subject"])
    return Record(found, record.place)


def _dug(record: Record, column: str) -> Any:
    if column in record.fields:
        return record.fields[column]
    value: Any = record.fields
    for part in column.split("."):
        if not isinstance(value, dict) or part not in value:
            raise record.missing(column)
        value = value[part]
    return value


def _listed(value: Any) -> Any:
    """A list that a cell holds as JSON (PopQA), as a list."""
    if isinstance(value, str) and value.startswith("["):
        try:
            found = json.loads(value)
        except json.JSONDecodeError:
            return value
        return found if isinstance(found, list) else value
    return value


def _text(value: Any) -> Any:
    value = _listed(value)
    if isinstance(value, list):
        value = value[0] if value else None
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


def _texts(value: Any) -> Any:
    value = _listed(value)
    if isinstance(value, list):
        return [str(part) if isinstance(part, int | float) else part for part in value]
    return value
