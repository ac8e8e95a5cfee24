"""Parts of the forget facts, of which one is asked for and the others may be shown."""

from __future__ import annotations

from ..errors import UserError
from ..facts import Facts


def can_part(facts: Facts) -> bool:
    """Whether there are two folds, or two subjects."""
    return len({fact.fold for fact in facts}) > 1 or len({fact.subject or fact.id for fact in facts}) > 1


def groups(facts: Facts) -> dict[str, Facts]:
    """Two parts or more, by name: the folds where there are several, else two halves.

    Facts without a fold, beside others that have one, make a part of their own. Halves keep the facts of a subject
    together; subjects go to one half and the other in turn.

    Raises:
        UserError: all facts are of one subject.
    """
    folds = sorted({fact.fold for fact in facts}, key=lambda fold: (fold is None, fold))
    if len(folds) > 1:
        return {"no fold" if fold is None else f"fold {fold}": facts.where(fold=fold) for fold in folds}
    subjects = {subject: place for place, subject in enumerate(dict.fromkeys(f.subject or f.id for f in facts))}
    if not can_part(facts):
        raise UserError(
            f"{facts.name}: facts of two folds or of two subjects are needed, to ask for some and show others"
        )
    halves = [[f.id for f in facts if subjects[f.subject or f.id] % 2 == half] for half in (0, 1)]
    return {f"half {number}": facts.where(id=half) for number, half in enumerate(halves, start=1)}
