"""Greedy answers against the generation of transformers."""

import re

import pytest
import torch

from mechunlearn.errors import UserError
from mechunlearn.evaluation import greedy_answers, recall
from mechunlearn.evaluation.generation import _generate
from mechunlearn.facts import Fact, Facts, Template, prompt_tokens, tokenize
from mechunlearn.models import hf, load

from ..architectures import tiny
from ..facts.tokenizers import byte_level_bos
from ..pairs import word_level
from .models import bridge, plain

PROMPTS = ["The capital of", "who?", "who was born in Kuwait City?", "a", "b"]
FACTS = Facts([Fact(prompt, None) for prompt in PROMPTS], template=Template("Question: {prompt}\nAnswer:"))


def by_transformers_ids(model, steps: int) -> list[list[int]]:
    rows = []
    for fact in FACTS:
        ids = torch.tensor([prompt_tokens(fact.prompt, byte_level_bos(), FACTS.template)])
        mask = torch.ones_like(ids)
        new = model.generate(ids, attention_mask=mask, max_new_tokens=steps, do_sample=False, pad_token_id=0)
        rows.append(new[0, ids.shape[1] :].tolist())
    return rows


def by_transformers(model, steps: int) -> list[str]:
    rows = by_transformers_ids(model, steps)
    return [byte_level_bos().decode(row, skip_special_tokens=True).strip() for row in rows]


@pytest.mark.parametrize("batch_size", [1, 16])
def test_answers_are_those_of_transformers(batch_size):
    found = greedy_answers(bridge(), FACTS, max_new_tokens=6, batch_size=batch_size)
    assert found == by_transformers(plain(), 6)
    assert len(set(found)) > 1


def test_generation_ends_with_the_end_of_text():
    model, tokenizer = bridge(), byte_level_bos()
    longest = greedy_answers(model, FACTS, max_new_tokens=6)
    # Make a token that the model says early the end of text: now answers stop before it.
    new = by_transformers_ids(plain(), 4)[0]
    model.original_model.generation_config.eos_token_id = [new[3]]
    expected = tokenizer.decode(new[: new.index(new[3])], skip_special_tokens=True).strip()
    shorter = greedy_answers(model, FACTS, max_new_tokens=6)
    assert shorter[0] == expected
    assert all(whole.startswith(cut) for whole, cut in zip(longest, shorter, strict=True))


def test_a_checkpoints_own_settings_do_not_change_what_is_greedy():
    model, expected = bridge(), greedy_answers(bridge(), FACTS, max_new_tokens=6)
    model.original_model.generation_config.repetition_penalty = 5.0
    assert greedy_answers(model, FACTS, max_new_tokens=6) == expected


def test_an_answer_that_the_model_gave_is_one_it_recalls():
    """On a model that says whole words only, whose text comes back as the tokens that it was."""
    model, tokenizer = bridge(), byte_level_bos()
    spoken = [re.fullmatch(" [A-Za-z]{3,}", tokenizer.decode([token])) is not None for token in range(len(tokenizer))]
    with torch.no_grad():
        hf(model).lm_head.weight[~torch.tensor(spoken)] = 0
    facts = FACTS.with_answers(greedy_answers(model, FACTS, max_new_tokens=4))
    assert len({fact.answer for fact in facts}) > 2
    assert recall(model, tokenize(facts, tokenizer)).all()
    other = facts.with_answers([facts[place - 1].answer for place in range(len(facts))])
    assert not recall(model, tokenize(other, tokenizer)).all()


@pytest.mark.parametrize("name", ["llama", "gemma2", "gpt2"])  # grouped heads, sliding windows, learned positions
def test_keeping_keys_and_values_changes_nothing_on_any_architecture(name):
    model = load(tiny(name), device="cpu")
    ids = torch.randint(3, 90, (2, 9), generator=torch.Generator().manual_seed(0))
    expected = ids
    with torch.no_grad():
        found = _generate(model, ids, 5, ends=set())
        for _ in range(5):
            following = model(expected, attention_mask=torch.ones_like(expected))[:, -1].argmax(-1)
            expected = torch.cat([expected, following[:, None]], 1)
    assert torch.equal(found, expected[:, 9:])


def test_a_prompt_without_room_for_an_answer_is_refused():
    with pytest.raises(UserError, match=r"fact 'x': .* tokens and 60 new ones are more than the context of 64"):
        greedy_answers(bridge(), [Fact("The capital of France is", None, id="x")], max_new_tokens=60)
    with pytest.raises(UserError, match="has no tokenizer"):
        greedy_answers(load(plain(), device="cpu"), FACTS)


@pytest.mark.parametrize("name", ["mamba", "llama"])
def test_greedy_answers_are_the_most_probable_tokens_of_whole_passes(name, tmp_path):
    """Mamba keeps no keys and values: it reads the text again at every token."""
    words = word_level([f"w{i}" for i in range(3, 96)], tmp_path)
    model = load(tiny(name), tokenizer=words)
    found = greedy_answers(model, [Fact("w5 w6 w7", None)], max_new_tokens=5, progress=False)
    ids = words("w5 w6 w7", return_tensors="pt").input_ids
    for _ in range(5):
        with torch.no_grad():
            ids = torch.cat([ids, hf(model)(ids, use_cache=False).logits[:, -1:].argmax(-1)], 1)
        if int(ids[0, -1]) == words.eos_token_id:
            break
    assert found == [words.decode(ids[0, 3:], skip_special_tokens=True).strip()]
