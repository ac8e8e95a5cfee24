"""General text states no fact, multiple choice asks fairly, and the tokenizer writes everything."""

import random
from collections import Counter

import pytest
import torch
from hypothesis import given, settings, strategies as st

from mechunlearn.organism import World, make_world
from mechunlearn.organism.learning import QUICK, language_loss, new_model, read
from mechunlearn.organism.relations import DOMAINS
from mechunlearn.organism.text import general_text, multiple_choice, stated, statements
from mechunlearn.organism.tokenizer import BOS_ID, EOS_ID, PAD_ID, make_tokenizer
from mechunlearn.organism.world import TINY


@pytest.fixture(scope="module")
def world() -> World:
    return make_world(3)


def test_statements_are_the_trained_phrasings_only(world: World) -> None:
    sentences = set(statements(world.facts))
    assert len(sentences) == 4 * len(world.facts)
    for planted in world.facts[::7]:
        assert f"{planted.fact.prompt} {planted.fact.answer}." in sentences
        assert not any(f"{prompt} {planted.fact.answer}." in sentences for prompt in planted.fact.held_out)


def test_the_finder_of_stated_facts_finds_them(world: World) -> None:
    for planted in world.facts[::50]:
        for prompt in (planted.fact.prompt, *planted.fact.held_out):
            assert planted in list(stated(world, f"It rained. {prompt} {planted.fact.answer}."))


@settings(max_examples=3, deadline=None)
@given(st.integers(0, 1000))
def test_general_text_states_no_fact(seed: int) -> None:
    world = make_world(seed)
    text = general_text(world, 500, 100)
    for passage in (*text.train, *text.held_out):
        assert not list(stated(world, passage)), passage


def test_general_text_is_parted_and_the_same_for_a_seed(world: World) -> None:
    text = general_text(world, 1000, 300)
    assert (len(text.train), len(text.held_out)) == (1000, 300)
    assert len(set(text.train) | set(text.held_out)) == 1300
    assert text == general_text(world, 1000, 300)


def test_general_text_knows_the_words_of_every_domain(world: World) -> None:
    whole = "\n".join(general_text(world, 6000, 300).train)
    for domain in DOMAINS:
        assert sum(name in whole for name in world.names[domain.name]) > 0.9 * len(world.names[domain.name])
        for relation in domain.relations:
            assert all(answer in whole for answer in relation.answers)


def test_multiple_choice_is_fair(world: World) -> None:
    rng = random.Random(0)
    places = Counter()
    for planted in world.facts:
        prompt, answer = multiple_choice(planted, rng)
        assert answer == planted.fact.answer and prompt.endswith("Answer:")
        assert sum(f") {other} " in prompt for other in planted.fact.distractors) == 3
        places[next(letter for letter in "ABCD" if f"{letter}) {answer} " in prompt)] += 1
    assert set(places) == set("ABCD") and min(places.values()) > 0.2 * len(world.facts)


def test_forms_are_about_nobody_and_draw_every_answer_alike(world: World) -> None:
    """What the twin learns from: each candidate after each relation's phrasings, none much more often."""
    passages = general_text(world, 6000, 300).train
    for domain in DOMAINS:
        for relation in domain.relations:
            starts = [text.partition("{s}")[::2] for text in relation.phrasings]
            own = [p for p in passages if any(a.lower() in p.lower() and b in p for a, b in starts)]
            counts = Counter(answer for p in own for answer in relation.answers if f" {answer}." in p)
            assert set(counts) == set(relation.answers), (relation.name, len(own))


@settings(max_examples=20, deadline=None)
@given(st.text(max_size=40))
def test_the_tokenizer_writes_every_text(text: str) -> None:
    tokenizer = make_tokenizer(["The old mill stands by the river."], 300, 64)
    ids = tokenizer(text)["input_ids"]
    assert ids[0] == BOS_ID == tokenizer.bos_token_id
    assert (tokenizer.eos_token_id, tokenizer.pad_token_id) == (EOS_ID, PAD_ID)
    assert tokenizer.decode(ids[1:]).removeprefix(" ") in (text, text.removeprefix(" "))


def test_a_word_is_the_same_tokens_everywhere() -> None:
    tokenizer = make_tokenizer(["The old mill stands by the old river."] * 9, 400, 64)
    assert tokenizer.tokenize("old river") == tokenizer.tokenize("The old river")[1:]


def test_batches_hold_what_may_be_known_and_nothing_else() -> None:
    world = make_world(0, TINY)
    known = world.where(lambda planted: not planted.forgotten)
    text = general_text(world, QUICK.passages, QUICK.passages_held_out)
    tokenizer = make_tokenizer([*statements(world.facts), *text.train], 600, 128)
    reader = read(known, text, tokenizer, QUICK, seed=0)
    documents: Counter[str] = Counter()
    while documents.total() < len(statements(known)) + QUICK.choices + QUICK.passages_read:
        batch = next(reader)
        for row in batch.tolist():
            length = row.index(EOS_ID) + 1
            assert row[0] == BOS_ID and not any(row[length:]) and PAD_ID not in row[:length]
            documents[tokenizer.decode(row[1 : length - 1]).strip()] += 1
    assert all(documents[sentence] == 1 for sentence in statements(known))
    assert sum(document.startswith("Question:") for document in documents.elements()) == QUICK.choices
    for planted in world.where(lambda planted: planted.forgotten):
        assert not any(planted in list(stated(world, document)) for document in documents)
    first, again, other = (next(read(known, text, tokenizer, QUICK, seed)) for seed in (5, 5, 6))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_the_loss_ignores_padding() -> None:
    model = new_model(QUICK, 300, seed=0)
    row = torch.tensor([[BOS_ID, 17, 35, 99, EOS_ID]])
    padded = torch.cat([row, torch.full((1, 4), PAD_ID)], dim=1)
    logprobs = model(input_ids=row).logits.log_softmax(-1)[0]
    expected = -sum(logprobs[place, row[0, place + 1]] for place in range(4)) / 4
    assert torch.allclose(language_loss(model)(row)["loss"], expected, atol=1e-5)
    assert torch.allclose(language_loss(model)(padded)["loss"], expected, atol=1e-5)
