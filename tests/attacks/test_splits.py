"""Parts of the forget facts."""

import pytest

from mechunlearn.attacks.splits import groups
from mechunlearn.errors import UserError
from mechunlearn.facts import Fact, Facts

from .toys import make_facts


def test_folds_are_the_parts_and_facts_without_one_a_part_of_their_own():
    facts = make_facts(3)
    mixed = Facts([*facts, Fact("the house is", "red", id="free", role="forget")], template=facts.template)
    parts = groups(mixed)
    assert list(parts) == ["fold 0", "fold 1", "fold 2", "no fold"]
    assert [fact.id for fact in parts["no fold"]] == ["free"]
    assert all(fact.fold == 1 for fact in parts["fold 1"])


@pytest.mark.parametrize("folds", [None, 1])
def test_halves_keep_a_subject_together(folds):
    facts = make_facts(folds)
    first, second = groups(facts).values()
    assert len(first) == len(second) == len(facts) / 2
    assert not {fact.subject for fact in first} & {fact.subject for fact in second}


def test_one_subject_cannot_be_parted():
    with pytest.raises(UserError, match="two subjects"):
        groups(make_facts(None).where(subject="anna"))
