"""What comes with the package: the organism's facts, with their roles for one of two forget sets, and its text."""

from __future__ import annotations

from pathlib import Path

from ..checking import checked
from ..errors import UserError
from .fact import Fact
from .records import Record, read_records

BUILT_IN = ("organism", "organism:domain", "organism:entities")
FORGET_SETS = ("domain", "entities")

_DATA = Path(__file__).parent.parent / "data"


def organism_records(name: str, forget: str) -> list[Record]:
    """The facts of the organism, each with the role and the fold that it has in this forget set.

    Raises:
        UserError: unknown name or forget set.
    """
    if name != "organism":
        raise UserError(f"there are no built-in facts {name!r}; there are {', '.join(BUILT_IN)}")
    if forget not in FORGET_SETS:
        raise UserError(f"the organism has no forget set {forget!r}; it has {', '.join(FORGET_SETS)}")
    return [_choose(record, forget) for record in read_records(_DATA / "facts.jsonl")]


def _choose(record: Record, forget: str) -> Record:
    """The fields of a fact, with the role and the fold that it has in one forget set."""
    values = {key: value for key, value in record.fields.items() if key in Fact.__dataclass_fields__}
    values["role"] = record.inner("roles").optional(forget)
    values["fold"] = record.inner("folds").whole_number(forget)
    return Record(values, record.place)


@checked
def organism_text(split: str = "held_out") -> list[str]:
    """General text of the organism's world that states no fact, one passage an item.

    Args:
        split: "held_out" (measures disruption) or "train" (what the organism was trained on).

    Raises:
        UserError: no such split.
    """
    if split not in ("held_out", "train"):
        raise UserError(f"split {split!r}: the organism's text has held_out and train")
    return (_DATA / f"text_{split}.txt").read_text(encoding="utf-8").splitlines()
