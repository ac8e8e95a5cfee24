"""What must hold in every fictional world, whatever its seed."""

from collections import Counter, defaultdict
from itertools import pairwise

import pytest
from hypothesis import given, settings, strategies as st

from mechunlearn.facts import Facts
from mechunlearn.organism import World, make_world
from mechunlearn.organism.relations import DOMAINS, Relation
from mechunlearn.organism.world import FOLDS, FORGET_SETS, TINY, PlantedFact

SEEDS = st.integers(0, 2**32)
few = settings(max_examples=3, deadline=None)


def relation_of(planted: PlantedFact) -> Relation:
    return next(
        relation
        for domain in DOMAINS
        for relation in domain.relations
        if (domain.name, relation.name) == (planted.fact.domain, planted.fact.relation)
    )


def phrasing(planted: PlantedFact, prompt: str) -> str:
    assert planted.fact.subject is not None
    return prompt.replace(planted.fact.subject, "{s}")


def trained(planted: PlantedFact) -> tuple[str, ...]:
    return planted.fact.prompt, *planted.fact.paraphrases


@pytest.fixture(scope="module")
def world() -> World:
    return make_world(0)


def test_it_is_as_large_as_promised(world: World) -> None:
    assert len(world.facts) >= 1000
    assert len(DOMAINS) >= 3 and all(len(domain.relations) >= 5 for domain in DOMAINS)
    for domain in DOMAINS:
        for relation in domain.relations:
            assert len(set(relation.phrasings)) == len(relation.phrasings) >= 6
            assert len(set(relation.answers)) == len(relation.answers) >= 8
            assert all(text.count("{s}") == 1 for text in (*relation.phrasings, relation.question))


@few
@given(SEEDS)
def test_phrasings_are_parted_for_each_fact_and_all_trained_with_others(seed: int) -> None:
    world = make_world(seed)
    shown: dict[tuple[str | None, str | None, str], int] = Counter()
    for planted in world.facts:
        told, tested = trained(planted), planted.fact.held_out
        assert len(told) == 4 and len(tested) == 2 and not set(told) & set(tested)
        assert {phrasing(planted, text) for text in told + tested} == set(relation_of(planted).phrasings)
        for text in told:
            shown[planted.fact.domain, planted.fact.relation, phrasing(planted, text)] += 1
    for planted in world.facts:
        for text in planted.fact.held_out:
            assert shown[planted.fact.domain, planted.fact.relation, phrasing(planted, text)] >= 20


@few
@given(SEEDS)
def test_folds_share_no_subject_and_forget_what_they_should(seed: int) -> None:
    world = make_world(seed)
    for name in FORGET_SETS:
        folds = defaultdict(set)
        for planted in world.facts:
            assert (planted.folds[name] is not None) == (planted.roles[name] == "forget")
            if planted.folds[name] is not None:
                folds[planted.folds[name]].add(planted.fact.subject)
        assert sorted(folds) == list(range(FOLDS))
        assert len({len(subjects) for subjects in folds.values()}) == 1
        assert len(set.union(*folds.values())) == sum(len(subjects) for subjects in folds.values())
    domains = {name: {p.fact.domain: set() for p in world.facts} for name in FORGET_SETS}
    for name in FORGET_SETS:
        for planted in world.facts:
            domains[name][planted.fact.domain].add(planted.roles[name])
    assert domains["domain"] == {"alchemy": {"forget"}, "dyeing": {"near"}, "people": {"far"}, "villages": {"far"}}
    assert domains["entities"] == {
        "alchemy": {"far"},
        "dyeing": {"far"},
        "people": {"forget", "near"},
        "villages": {"far"},
    }


def test_the_forgotten_are_scattered_among_the_kept(world: World) -> None:
    roles = {p.fact.subject: p.roles["entities"] for p in world.facts if p.fact.domain == "people"}
    changes = sum(one != other for one, other in pairwise(roles.values()))
    assert changes > len(roles) / 4


def test_a_fold_tells_nothing_about_another() -> None:
    """Over many worlds, the answers of one fold agree with those of another as often as chance."""
    agree = total = 0
    for seed in range(10):
        answers = defaultdict(list)
        for planted in make_world(seed).facts:
            if len(planted.fact.distractors) == 15 and planted.folds["domain"] is not None:
                answers[planted.folds["domain"]].append(planted.fact.answer)
        agree += sum(a == b for a, b in zip(answers[0], answers[1], strict=True))
        total += len(answers[0])
    assert total == 640 and abs(agree / total - 1 / 16) < 4 * (1 / 16 * 15 / 16 / total) ** 0.5


@few
@given(SEEDS)
def test_always_saying_the_same_is_chance_in_every_fold_of_the_domain(seed: int) -> None:
    world = make_world(seed)
    for relation in DOMAINS[0].relations:
        for fold in range(FOLDS):
            facts = world.where(lambda p, r=relation, f=fold: p.fact.relation == r.name and p.folds["domain"] == f)
            counts = Counter(planted.fact.answer for planted in facts)
            assert set(counts) == set(relation.answers) and len(set(counts.values())) == 1


@few
@given(SEEDS)
def test_ids_and_names_are_unique_and_candidates_complete(seed: int) -> None:
    world = make_world(seed, TINY)
    assert len({planted.fact.id for planted in world.facts}) == len(world.facts)
    names = [name for group in world.names.values() for name in group]
    assert not any(one != other and one in other for one in names for other in names)
    for planted in world.facts:
        candidates = {planted.fact.answer, *planted.fact.distractors}
        assert candidates == set(relation_of(planted).answers)
        assert planted.chance == 1 / len(candidates)


@few
@given(SEEDS)
def test_same_seed_same_world_other_seed_another(seed: int) -> None:
    assert make_world(seed, TINY) == make_world(seed, TINY)
    assert make_world(seed, TINY).hash != make_world(seed + 1, TINY).hash


def test_the_written_facts_are_read_back(world: World) -> None:
    """The shipped facts are those of seed 0, and the facts room reads out of them what the world says."""
    for name in FORGET_SETS:
        facts = Facts.builtin("organism", forget=name)
        assert len(facts) == len(world.facts)
        for read, planted in zip(facts, world.facts, strict=True):
            assert (read.id, read.prompt, read.answer) == (
                planted.fact.id,
                planted.fact.prompt,
                planted.fact.answer,
            )
            assert (read.role, read.fold) == (planted.roles[name], planted.folds[name])
            assert read.held_out == planted.fact.held_out and read.paraphrases == planted.fact.paraphrases
