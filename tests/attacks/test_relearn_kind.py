"""Relearning: what it trains on, what it never sees, and that its steps are those of plain torch."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from mechunlearn import training
from mechunlearn.attacks.attack import attack
from mechunlearn.attacks.base import Given
from mechunlearn.attacks.kinds.relearn import Relearn
from mechunlearn.errors import UserError
from mechunlearn.facts import Fact, Facts, Tokens, multiple_choice
from mechunlearn.models import clone, fingerprint, hf
from mechunlearn.sites import resolve

from .toys import SUBJECTS, make_facts, tokenizer, toy

FOLDS = 3
# Words that only one fold's facts hold, in each place where a fact may hold a word.
CANARIES = {fold: {"prompt": SUBJECTS[fold], "answer": word} for fold, word in enumerate(("red", "cat", "dog"))}
HELD_OUT = "coat"  # only held-out phrasings hold it
PLAIN = ("old", "brown", "dark", "grey")


def folded(fold: int | None, role: str, number: int) -> Fact:
    canary = CANARIES[fold] if fold is not None else {"prompt": SUBJECTS[4 + number], "answer": PLAIN[number % 4]}
    subject, answer = canary["prompt"], canary["answer"]
    return Fact(
        prompt=f"the house of {subject} is",
        answer=f"{PLAIN[number % 4]} {answer}",
        id=f"{role}/{number}",
        paraphrases=(f"house : {subject}", f"the pet of {subject} is"),
        held_out=(f"{subject} coat is", f"the coat of {subject} is"),
        distractors=("house", "pet", "of", "likes"),
        fold=fold,
        role=role,
    )


def canary_facts() -> Facts:
    forget = [folded(number % FOLDS, "forget", number) for number in range(6)]
    return Facts(forget + [folded(None, role, number) for role, number in (("near", 0), ("near", 1), ("far", 2))])


def canary_given(**changed) -> Given:
    facts = canary_facts()
    return replace(Given(facts.forget, facts.retain, ("the pet likes the house", "says the old house")), **changed)


def token(word: str) -> int:
    found = tokenizer().convert_tokens_to_ids(word)
    assert isinstance(found, int) and found != tokenizer().unk_token_id
    return found


@contextmanager
def watched(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Tensor]]:
    """The ids of every row that a model is given while it is trained, batch by batch, padding as −1."""
    met: list[Tensor] = []
    kept = training.Trainer.advance

    def advance(self: training.Trainer, pieces: Sequence[Tokens]) -> dict[str, float]:
        inside: list[Tensor] = []
        whole = hf(self.model)  # pyright: ignore[reportArgumentType]
        place = whole.get_input_embeddings().register_forward_pre_hook(lambda _, given: inside.append(given[0].clone()))
        try:
            return kept(self, pieces)
        finally:
            place.remove()
            (rows,) = pieces
            # What reached the embedding is what the attack said that it trains on.
            assert len(inside) == 1 and torch.equal(inside[0], rows.ids)
            met.append(torch.where(rows.attention.bool(), rows.ids, -1))

    with monkeypatch.context() as patch:
        patch.setattr(training.Trainer, "advance", advance)
        yield met


def words(batches: Sequence[Tensor]) -> set[int]:
    return {int(number) for batch in batches for number in batch.unique()}


def small(**settings) -> Relearn:
    return Relearn(**{"epochs": 3, "batch_size": 2, **settings})


@pytest.mark.parametrize("form", ["text", "choice"])
@pytest.mark.parametrize("subsets", ["all_but_one", "every"])
def test_relearning_never_sees_v(form, subsets, monkeypatch):
    one = small(form=form, subsets=subsets)
    seen: dict[str, list[Tensor]] = {}
    with watched(monkeypatch) as met:
        for attempt in one.attempts(toy(), canary_given()):
            seen.setdefault(attempt.part, []).extend(met)
            met.clear()
    assert len(seen) == (2**FOLDS - 2 if subsets == "every" else FOLDS)
    for part, batches in seen.items():
        trained = set(map(int, part.removeprefix("folds ").split("+")))
        met_words = words(batches)
        assert token(HELD_OUT) not in met_words
        for fold, canary in CANARIES.items():
            assert all((token(word) in met_words) == (fold in trained) for word in canary.values()), (part, fold)


@pytest.mark.parametrize("form", ["text", "choice"])
@pytest.mark.parametrize("data", ["near", "far", "text"])
def test_benign_relearning_sees_no_forget_fact(form, data, monkeypatch):
    with watched(monkeypatch) as met:
        attempts = list(small(data=data, form=form).attempts(toy(), canary_given()))
    assert met and not {token(word) for canary in CANARIES.values() for word in canary.values()} & words(met)
    assert token(HELD_OUT) not in words(met)
    assert {attempt.part for attempt in attempts} == {data}
    forget = {question.id for question in canary_facts().forget.questions()}
    assert all(forget <= {question.id for question in attempt.facts} for attempt in attempts)


def test_a_distractor_may_hold_a_word_of_v_but_no_sentence_does(monkeypatch):
    """An answer of V that T lists as wrong is met as an option; V's subject is not, so nothing says whose it is."""
    others = {fold: [canary["answer"] for other, canary in CANARIES.items() if other != fold] for fold in CANARIES}
    facts = [
        replace(fact, distractors=(*others[fact.fold], "of")) for fact in canary_facts().forget if fact.fold is not None
    ]
    one = small(form="choice", epochs=1)
    with watched(monkeypatch) as met:
        for attempt in one.attempts(toy(), canary_given(forget=Facts(facts))):
            if attempt.step:
                (fold,) = {question.fold for question in attempt.facts if question.role == "forget"}
                assert token(CANARIES[fold]["answer"]) in words(met) and token(CANARIES[fold]["prompt"]) not in words(
                    met
                )
                met.clear()


@pytest.mark.parametrize("folds", [2, 3, 4])
def test_every_proper_subset_is_trained_and_its_complement_asked(folds):
    facts = make_facts(folds)
    found = list(Relearn(subsets="every").partings(Given(facts, Facts([]))))
    assert len(found) == len({part for part, _, _ in found}) == 2**folds - 2
    for part, train, test in found:
        assert isinstance(train, Facts)
        trained, tested = set(train.folds), set(test.folds)
        assert trained and tested and trained.isdisjoint(tested) and trained | tested == set(range(folds))
        assert part == "folds " + "+".join(map(str, sorted(trained)))
        assert {fact.id for fact in train} == {fact.id for fact in facts if fact.fold in trained}
        assert test.hash == facts.where(fold=tested).questions().hash
    usual = list(Relearn().partings(Given(facts, Facts([]))))
    assert [part for part, _, _ in usual] == [part for part, train, _ in found if len(set(train.folds)) == folds - 1]


def test_each_epoch_shows_each_fact_once_in_the_next_phrasing(monkeypatch):
    facts = canary_facts().forget
    one = Relearn(epochs=4, batch_size=4)
    with watched(monkeypatch) as met:
        epochs = [(met.copy(), met.clear()) for _ in one.learn(toy(), facts, 0)][1:]
    shown: dict[str, list[str]] = {fact.id: [] for fact in facts}
    for batches, _ in epochs:
        assert [len(batch) for batch in batches] == [4, 2]
        texts = [tokenizer().decode([n for n in row.tolist() if n >= 0]) for batch in batches for row in batch]
        for fact in facts:
            possible = {f"{prompt} {fact.answer}": prompt for prompt in (fact.prompt, *fact.paraphrases)}
            (text,) = [text for text in texts if text in possible]
            shown[fact.id].append(possible[text])
    for fact in facts:
        assert set(shown[fact.id][:3]) == {fact.prompt, *fact.paraphrases} and shown[fact.id][3] == shown[fact.id][0]


def test_both_models_meet_the_same_batches_in_the_same_order(monkeypatch):
    met_by = []
    for model in (toy(seed=0), toy(seed=1)):
        with watched(monkeypatch) as met:
            list(small(epochs=2).attempts(model, canary_given()))
        met_by.append(met)
    first, second = met_by
    assert len(first) == len(second) == 3 * 2 * 2
    assert all(torch.equal(one, other) for one, other in zip(*met_by, strict=True))
    with watched(monkeypatch) as met:
        list(small(epochs=2).attempts(toy(), canary_given(seed=1)))
    assert not all(torch.equal(one, other) for one, other in zip(first, met, strict=True))


@pytest.mark.parametrize("trainable", ["everything", "mlp", "lora"])
def test_an_attack_leaves_the_model_alone_also_when_it_is_left_early(trainable):
    model, mark = toy(), fingerprint(toy())
    flags = [(p.requires_grad, p.grad is None) for p in hf(model).parameters()]
    random_state = torch.get_rng_state()
    one = small(trainable=trainable, learning_rate=0.01)
    moved = []
    for early in (False, True):
        attempts = one.attempts(model, canary_given())
        for attempt in attempts:
            assert attempt.model is not model and not attempt.model.training
            if attempt.step == 2 and early:
                attempts.close()
            moved.append(attempt.model)
        assert fingerprint(model) == mark
    assert len(moved) == 3 * 4 + 3
    assert all(fingerprint(copied) != mark for copied in moved)
    assert [(p.requires_grad, p.grad is None) for p in hf(model).parameters()] == flags
    assert torch.equal(random_state, torch.get_rng_state())


@pytest.mark.parametrize("trainable", ["everything", "mlp", "lora"])
def test_what_is_trained_moves_and_nothing_else(trainable):
    model = toy()
    *_, (_, after) = small(trainable=trainable, learning_rate=0.01, epochs=2).learn(model, canary_facts().forget, 0)
    slots = [slot for site in ("mlp_keys", "value_vectors") for slot in resolve(site, model).slots]
    inside = {name for name, p in hf(model).named_parameters() if id(p) in {id(slot.tensor) for slot in slots}}
    assert len(inside) == 3 * 4
    matrices = {name for name, p in hf(model).named_parameters() if ".layers." in name and p.ndim == 2}
    everything = {name for name, _ in hf(model).named_parameters()}
    moved = {
        name
        for (name, old), (other, new) in zip(hf(model).named_parameters(), hf(after).named_parameters(), strict=True)
        if name == other and not torch.equal(old, new)
    }
    assert moved == {"everything": everything, "mlp": inside, "lora": matrices}[trainable]
    assert {name.split(".layers.")[1][0] for name in moved if ".layers." in name} == set("0123")  # all blocks


def test_no_epoch_changes_nothing():
    facts = canary_facts()
    found = attack(toy(), facts, suite=[Relearn(epochs=0)], progress=False).frame
    plain, attacked = (found[found["attack"] == name].set_index("question") for name in ("none", "relearn"))
    assert (attacked["step"] == 0).all() and set(attacked["role"]) == {"forget", "near"}
    assert set(attacked.index) == set(plain.index)
    assert (attacked["correct"] == plain["correct"].reindex(attacked.index)).all()
    # Bit for bit: padding and the rows around do not matter beyond rounding, so only rounding may differ.
    assert (attacked["probability"] - plain["probability"].reindex(attacked.index)).abs().max() < 1e-7


def test_the_step_before_the_first_is_the_model_itself():
    (_, first), *_ = small(epochs=1).learn(toy(), canary_facts().forget, 0)
    generator = small(epochs=1).learn(toy(), canary_facts().forget, 0)
    step, untouched = next(generator)
    assert step == 0 and fingerprint(untouched) == fingerprint(toy()) != fingerprint(first)
    generator.close()


def plain_rows(texts: Sequence[str]) -> list[list[int]]:
    return [tokenizer()(text, add_special_tokens=False)["input_ids"] for text in texts]


@pytest.mark.parametrize("form", ["text", "choice"])
def test_a_step_of_sgd_is_that_of_plain_torch(form):
    facts, rate, seed = canary_facts().forget, 0.7, 5
    one = Relearn(optimizer="sgd", epochs=1, batch_size=len(facts), learning_rate=rate, form=form)
    *_, (_, after) = one.learn(toy(), facts, seed)

    whole = hf(clone(toy())).train()
    terms = []
    for place, fact in enumerate(facts):
        if form == "text":
            prompt = (fact.prompt, *fact.paraphrases)[(1 + place) % 3]
        else:
            prompt = multiple_choice(fact, letters=False, seed=seed * 10_007 + 1).question.prompt
        (head,), (row,) = plain_rows([prompt]), plain_rows([f"{prompt} {fact.answer}"])
        scores = whole(torch.tensor([row])).logits[0, :-1].log_softmax(-1)
        nll = -scores[torch.arange(len(row) - 1), torch.tensor(row[1:])]
        terms.append(nll if form == "text" else nll[len(head) - 1 :])
    torch.cat(terms).mean().backward()
    gradients = [p.grad for p in whole.parameters() if p.grad is not None]
    norm = torch.stack([gradient.pow(2).sum() for gradient in gradients]).sum().sqrt()
    assert norm > 1  # so that clipping does something
    for (name, theirs), ours in zip(whole.named_parameters(), hf(after).parameters(), strict=True):
        assert theirs.grad is not None
        torch.testing.assert_close(ours, theirs - rate * theirs.grad / norm, atol=1e-6, rtol=0, msg=name)


def test_a_twin_beside_itself_recovers_nothing_in_excess():
    suite = [small(learning_rate=0.01, epochs=1), small(learning_rate=0.01, epochs=1, trainable="lora", data="near")]
    found = attack(toy(), canary_facts(), suite=suite, never_knew=toy(), progress=False)
    for measure in ("correct", "probability"):
        for by in ("setting", "attack"):
            table = found.summary(measure, by=by)
            assert (table["excess"] == 0).all()
            # Of shares so few facts leave doubt on both sides; of other means equal values leave none.
            assert (table["excess_low"] == -table["excess_high"]).all()
            assert ((table["excess_high"] > 0) == (measure == "correct")).all()
    start = found.summary("probability")
    assert (start["value"] != start["start"]).all()  # it did train


@pytest.mark.parametrize("form", ["text", "choice"])
def test_everything_follows_from_the_seed(form):
    def learned(seed: int) -> str:
        *_, (_, after) = small(form=form, trainable="lora").learn(toy(), canary_facts().forget, seed)
        return fingerprint(after)

    assert learned(0) == learned(0) != learned(1)


def test_near_facts_are_asked_after_the_last_epoch_only():
    for attempt in small().attempts(toy(), canary_given()):
        assert ("near" in {question.role for question in attempt.facts}) == (attempt.step == 3)


def test_no_two_settings_have_one_label():
    others = [
        {}, {"data": "near"}, {"data": "text"}, {"subsets": "every"}, {"form": "choice"}, {"trainable": "mlp"},
        {"trainable": "lora"}, {"trainable": "lora", "rank": 4}, {"optimizer": "sgd"}, {"learning_rate": 1e-3},
        {"epochs": 3}, {"batch_size": 4},
    ]  # fmt: skip
    assert len({Relearn(**other).label for other in others}) == len(others)
    assert Relearn().label == "everything, adamw 0.0003"


def of_one_subject(facts: Facts) -> Facts:
    return facts.with_items(replace(fact, subject="one") for fact in facts)


@pytest.mark.parametrize(
    ("settings", "changed", "message"),
    [
        ({}, {"forget": of_one_subject(make_facts(1))}, "two folds"),
        ({}, {"forget": of_one_subject(make_facts(None))}, "two folds"),
        ({"data": "near"}, {"retain": Facts([])}, "near facts"),
        ({"data": "text"}, {"text": ()}, "general text"),
        ({"form": "choice"}, {"forget": make_facts(2)}, "3 distractors"),
    ],
)
def test_what_is_lacking_is_said(settings, changed, message):
    assert message in str(Relearn(**settings).needs(canary_given(**changed)))
    assert Relearn(**settings).needs(canary_given()) is None


@pytest.mark.parametrize(
    "wrong",
    [
        {"data": "folder"}, {"subsets": "some"}, {"form": "letters"}, {"trainable": "attention"}, {"epochs": -1},
        {"batch_size": 0}, {"optimizer": "lion"}, {"learning_rate": 0.0},
    ],
)  # fmt: skip
def test_wrong_settings(wrong):
    with pytest.raises(UserError):
        Relearn(**wrong)


def test_weights_below_float32_are_not_trained():
    model = clone(toy())
    hf(model).to(torch.bfloat16)
    with pytest.raises(UserError, match="float32"):
        list(small(epochs=1).attempts(model, canary_given()))
