"""Which facts of a frame belong together, so that intervals resample them together; and how that is said."""

from __future__ import annotations

import pandas as pd

from ..errors import UserError
from ..facts import fact_of


def facts_of(questions: pd.Series) -> pd.Series:
    """The id of the fact that each question asks for."""
    distinct = pd.Series(questions.unique())
    return questions.map(dict(zip(distinct, distinct.map(fact_of), strict=True)))


def clusters_of(frame: pd.DataFrame, cluster: str, questions: str = "fact") -> pd.Series:
    """The cluster of every fact in a frame: its label in a column; None makes it one by itself.

    Args:
        frame: one row a fact or more.
        cluster: a column that labels facts; "fact" takes each by itself, and so does "subject" of a frame that has no
            such column (facts without subjects, frames of older versions).
        questions: the column with the ids of facts or of questions.

    Returns:
        Labels, indexed by the ids of facts in their alphabetical order.

    Raises:
        UserError: no such column; a fact with several labels.
    """
    facts = facts_of(frame[questions])
    names = pd.Index(sorted(facts.unique()), name="fact")
    if cluster == "fact" or (cluster == "subject" and cluster not in frame):
        return pd.Series(None, index=names, dtype=object)
    if cluster not in frame:
        raise UserError(f"facts cannot be resampled by {cluster!r}: the frame has no such column")
    known = pd.DataFrame({"fact": facts, "label": frame[cluster].astype(object)}).dropna().drop_duplicates()
    if known["fact"].duplicated().any():
        twice = known["fact"][known["fact"].duplicated()].iloc[0]
        raise UserError(f"facts cannot be resampled by {cluster!r}: the fact {twice!r} has several of them")
    labels = known.set_index("fact")["label"].reindex(names)
    return labels.where(labels.notna(), None)


def resampled(summary: pd.DataFrame, cluster: str = "subject") -> str:
    """What the intervals of a summary are over, in words: "64 subjects", "48 to 64 subjects", "facts".

    `summary` has `n` and `n_clusters`; where no two facts share a cluster, facts themselves were resampled, as they
    always were in tables of older versions, which lack `n_clusters`.
    """
    if "n_clusters" not in summary:
        return "facts"
    counts = summary["n_clusters"][summary["n_clusters"] < summary["n"]]
    if counts.empty:
        return "facts"
    low, high = int(counts.min()), int(counts.max())
    number = f"{low}" if low == high else f"{low} to {high}"
    return f"{number} {cluster}{'' if high == 1 else 's'}"
