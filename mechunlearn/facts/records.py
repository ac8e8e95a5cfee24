"""From a file to records: rows of named fields that know where they stand, so that every error can say it."""

from __future__ import annotations

import ast
import csv
import gzip
import io
import json
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ..errors import UserError
from ..reading import MOST_BYTES, decoded, parse_json, read_bytes

PARQUET, ARROW = b"PAR1", b"ARROW1"  # the first bytes of such files


@dataclass(frozen=True)
class Record:
    """The fields of one row and its place ("facts.jsonl, line 3")."""

    fields: dict[str, Any]
    place: str

    def missing(self, field: str, hint: str = "") -> UserError:
        """The error for a field that is not there."""
        have = ", ".join(map(repr, self.fields)) or "no field"
        return UserError(f"{self.place}: the field {field!r} is missing; it has {have}{hint}")

    def wrong(self, field: str, wanted: str) -> UserError:
        """The error for a field that holds something else than `wanted`."""
        return UserError(f"{self.place}: the field {field!r} must be {wanted}, not {self.fields[field]!r:.80}")

    def text(self, field: str) -> str:
        """A text that must be there."""
        if field not in self.fields:
            raise self.missing(field)
        value = self.fields[field]
        if not isinstance(value, str):
            raise self.wrong(field, "a text")
        if not value.strip():
            raise UserError(f"{self.place}: the field {field!r} is empty")
        return value

    def optional(self, field: str) -> str | None:
        """A text, a number taken as text, or None where the field is absent or null."""
        value = self.fields.get(field)
        if value is None or isinstance(value, str):
            return value
        if isinstance(value, int) and not isinstance(value, bool):
            return str(value)
        raise self.wrong(field, "a text")

    def texts(self, field: str) -> tuple[str, ...]:
        """A list of texts, one text taken as a list of one, or () where the field is absent or null."""
        value = self.fields.get(field)
        if value is None:
            return ()
        if isinstance(value, str):
            return (value,)
        if isinstance(value, list) and all(isinstance(text, str) for text in value):
            return tuple(value)
        raise self.wrong(field, "a list of texts")

    def whole_number(self, field: str) -> int | None:
        """An integer, or None where the field is absent or null."""
        value = self.fields.get(field)
        if isinstance(value, str) and value.strip().isdecimal() and len(value.strip()) < 19:  # a cell of a CSV file
            return int(value)
        if value is None or (isinstance(value, int) and not isinstance(value, bool)):
            return value
        raise self.wrong(field, "a whole number")

    def inner(self, field: str) -> Record:
        """The record inside a field."""
        if field not in self.fields:
            raise self.missing(field)
        if not isinstance(self.fields[field], dict):
            raise self.wrong(field, "an object")
        return Record(self.fields[field], f"{self.place}, {field}")


def read_records(path: Path) -> list[Record]:
    """The rows of a JSON array, of JSON lines, of an object around one list of rows, of .csv, .tsv or .parquet.

    Any of them may be packed by gzip (.gz); Parquet is known by its first bytes, whatever the file is called.

    Raises:
        UserError: no such file, a folder, not UTF-8, empty, or malformed (with the line).
    """
    data = _unpacked(path)
    kind = Path(path.stem if path.suffix.lower() == ".gz" else path.name).suffix.lower()
    if kind == ".parquet" or data.startswith(PARQUET):
        return _parquet(data, path)
    if kind == ".arrow" or data.startswith(ARROW):
        raise UserError(f"{path} is an Arrow file; name the folder that save_to_disk wrote, or save it as Parquet")
    text = decoded(data, str(path))
    if not text.strip():
        raise UserError(f"{path} is empty")
    if kind in (".csv", ".tsv"):
        records = _csv(text, path.name, "," if kind == ".csv" else "\t")
    elif text.lstrip().startswith("["):
        records = _items(parse_json(text, path.name), path.name)
    else:
        records = _lines_or_object(text, path.name)
    if not records:
        raise UserError(f"{path} holds no facts")
    return records


def _unpacked(path: Path) -> bytes:
    data = read_bytes(path)
    if path.suffix.lower() == ".gz":
        try:
            with gzip.open(io.BytesIO(data)) as packed:
                data = packed.read(MOST_BYTES + 1)
        except (OSError, EOFError, zlib.error) as error:
            raise UserError(f"{path}: not a whole gzip file ({error})") from error
        if len(data) > MOST_BYTES:
            raise UserError(f"{path} is too large to be read at once: unpacked, it is more than {MOST_BYTES:,} bytes")
    return data


def _record(value: Any, place: str) -> Record:
    if not isinstance(value, dict):
        raise UserError(f"{place}: a fact is an object of named fields, not {value!r:.80}")
    return Record(value, place)


def _items(values: list[Any], name: str) -> list[Record]:
    return [_record(value, f"{name}, item {number}") for number, value in enumerate(values, start=1)]


def _lines_or_object(text: str, name: str) -> list[Record]:
    try:
        whole = json.loads(text)
    except RecursionError:
        raise UserError(f"{name}: brackets are nested too deeply to be read") from None
    except ValueError:
        # JSON lines end at \n only: texts may hold other characters that splitlines() takes for line ends.
        lines = ((number, line) for number, line in enumerate(text.split("\n"), start=1) if line.strip())
        return [_record(parse_json(line, name, number), f"{name}, line {number}") for number, line in lines]
    wrapped = [value for value in whole.values() if isinstance(value, list)] if isinstance(whole, dict) else []
    if len(wrapped) == 1 and wrapped[0] and all(isinstance(item, dict) for item in wrapped[0]):
        return _items(wrapped[0], name)
    return [_record(whole, f"{name}, line 1")]


def _parquet(data: bytes, path: Path) -> list[Record]:
    """Rows of a Parquet file; missing values count as absent, arrays are lists."""
    try:
        table = pq.read_table(pa.BufferReader(data))
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"{path}: not a readable Parquet file ({error})") from error
    rows = [{name: value for name, value in row.items() if value is not None} for row in table.to_pylist()]
    if not rows:
        raise UserError(f"{path} holds no facts")
    return [Record(row, f"{path.name}, row {number}") for number, row in enumerate(rows, start=1)]


def _csv(text: str, name: str, delimiter: str) -> list[Record]:
    """Rows of a CSV or TSV file; an empty cell counts as absent, a cell that starts with "[" is a list (as JSON, or as
    pandas writes one)."""
    rows = csv.DictReader(io.StringIO(text, newline=""), strict=True, delimiter=delimiter)
    records = []
    try:
        for row in rows:
            place = f"{name}, line {rows.line_num}"
            if None in row:
                raise UserError(f"{place}: more cells than columns; put quotes around a text that holds a comma")
            records.append(Record({field: _cell(cell) for field, cell in row.items() if cell}, place))
    except csv.Error as error:
        raise UserError(f"{name}, line {rows.line_num}: not valid CSV ({error})") from None
    return records


def _cell(cell: str) -> Any:
    if not cell.startswith("["):
        return cell
    for parse in (json.loads, ast.literal_eval):  # JSON, and what pandas writes for a list of texts
        try:
            value = parse(cell)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            continue
        if isinstance(value, list):
            return value
    return cell  # a text that happens to start with a bracket
