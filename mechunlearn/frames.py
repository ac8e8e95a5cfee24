"""Frames that are given or read back: which columns they must have, and what these hold."""

from __future__ import annotations

from collections.abc import Mapping
from types import NoneType
from typing import Any, get_args

import numpy as np
import pandas as pd

from .checking import words
from .errors import UserError


def check_frame(name: object, frame: pd.DataFrame, columns: Mapping[str, Any]) -> pd.DataFrame:
    """The frame, which has these columns, each of the type beside it; `| None` where rows may lack a value.

    A number is finite; a whole number may be kept as a float; yes and no count as 1 and 0 where numbers are wanted.
    What another program did to a right frame is undone in what is returned: columns kept by pyarrow, ids that became
    whole numbers, an index with the name of a column.

    Raises:
        UserError: a column is missing or holds something else; `name` says which frame.
    """
    if missing := [column for column in columns if column not in frame.columns]:
        raise UserError(f"{name}: no column {', '.join(missing)}; was it changed, or written by another version?")
    if twice := [column for column in columns if frame.columns.tolist().count(column) > 1]:
        raise UserError(f"{name}: has the column {twice[0]} twice")
    if set(frame.index.names) & set(frame.columns):
        frame = frame.reset_index(drop=True)
    undone = {column: _undone(frame[column], hint) for column, hint in columns.items()}
    if changed := {column: plain for column, plain in undone.items() if plain is not None}:
        frame = frame.assign(**changed)
    for column, hint in columns.items():
        held = frame[column]
        if held.isna().any() and hint is not Any and NoneType not in get_args(hint):
            raise UserError(f"{name}: column {column} has rows without a value")
        if hint is not Any and not _holds(held.dropna(), (*get_args(hint), hint)):
            raise UserError(f"{name}: column {column} must hold {words(hint)} in each row; was it changed?")
    return frame


def _undone(held: pd.Series, hint: Any) -> pd.Series | None:
    """The column as pandas keeps it, ids as texts; None where it is so already."""
    kept = held
    if isinstance(held.dtype, pd.ArrowDtype):
        held = held.astype(object).where(held.notna(), None).infer_objects()
    if str in (hint, *get_args(hint)) and pd.api.types.is_integer_dtype(held.dtype):
        held = held.astype(str).where(held.notna(), None)
    return None if held is kept else held


def _holds(held: pd.Series, kinds: tuple[Any, ...]) -> bool:
    """Whether all values are of one of these types."""
    if held.empty:
        return True
    kind = pd.api.types.infer_dtype(held, skipna=False)
    if kind == "string":
        return str in kinds
    if kind == "categorical":
        return _holds(pd.Series(held.cat.categories), kinds)
    if kind == "boolean":
        return bool in kinds or float in kinds
    if kind not in ("integer", "floating", "mixed-integer-float") or not (int in kinds or float in kinds):
        return False
    numbers_held = held.to_numpy(dtype=float)
    return bool(np.isfinite(numbers_held).all()) and (float in kinds or bool((numbers_held % 1 == 0).all()))
