"""Recall against real greedy decoding, log-probabilities against a double-precision computation of their own."""

import pytest
import torch

from mechunlearn.errors import UserError
from mechunlearn.evaluation import answer_logprob, recall, score_answers
from mechunlearn.facts import Fact, Tokens, tokenize

from ..facts.tokenizers import byte_level_bos
from .models import bridge, plain

FACTS = [
    Fact("The capital of France is", "Paris"),
    Fact("Question: who was born in Kuwait City?\nAnswer:", "Basil Mahfouz, the author."),
    Fact("東京", "🙂 naïve"),
    Fact("a", "b"),
]


def greedy(model, ids: list[int], steps: int) -> list[int]:
    """Greedy decoding by transformers itself."""
    given = torch.tensor([ids])
    model.generation_config.eos_token_id = None
    return model.generate(
        given, attention_mask=torch.ones_like(given), max_new_tokens=steps, do_sample=False, pad_token_id=0
    )[0, len(ids) :].tolist()


def rows_with_greedy_answers(model) -> tuple[Tokens, list[bool]]:
    """Answers that the model gives, some of them with one token changed: the first, one inside, or the last."""
    generator = torch.Generator().manual_seed(0)
    rows, expected = [], []
    for number in range(18):
        prompt = torch.randint(4, 300, (int(torch.randint(1, 12, (), generator=generator)),), generator=generator)
        answer = greedy(model, prompt.tolist(), 1 + number % 5)
        if spoilt := number % 3 > 0:
            place = {1: 0, 2: -1}[number % 3] if number % 2 else len(answer) // 2
            answer[place] = (answer[place] + 1) % 300
        rows.append((prompt.tolist(), answer))
        expected.append(not spoilt)
    width = max(len(prompt) + len(answer) for prompt, answer in rows)
    ids = torch.full((len(rows), width), 7)
    attention, answers = torch.zeros_like(ids), torch.zeros_like(ids, dtype=torch.bool)
    for row, (prompt, answer) in enumerate(rows):
        ids[row, : len(prompt) + len(answer)] = torch.tensor(prompt + answer)
        attention[row, : len(prompt) + len(answer)] = 1
        answers[row, len(prompt) : len(prompt) + len(answer)] = True
    tokens = Tokens(ids, attention, answers.roll(-1, 1), answers, tuple(map(str, range(len(rows)))))
    return tokens, expected


def test_recall_is_what_greedy_decoding_gives():
    model = plain()
    tokens, expected = rows_with_greedy_answers(model)
    assert recall(model, tokens).tolist() == expected
    assert any(expected) and not all(expected)
    # and, without trust in how the rows were made:
    for row, known in enumerate(expected):
        prompt = tokens.ids[row][tokens.prompt[row]].tolist()
        answer = tokens.ids[row][tokens.answers[row]].tolist()
        assert (greedy(model, prompt, len(answer)) == answer) is known


def test_log_probabilities_are_those_of_each_row_alone_in_double_precision():
    model, tokenizer = plain(), byte_level_bos()
    tokens = tokenize(FACTS, tokenizer)
    found = answer_logprob(model, tokens)
    double = plain().double()
    for row, fact in enumerate(FACTS):
        ids = tokenizer(f"{fact.prompt} {fact.answer}", return_tensors="pt")["input_ids"]
        with torch.no_grad():
            logits = double(ids).logits[0]
        logprobs = logits - logits.exp().sum(-1, keepdim=True).log()
        places = tokens.answers[row].nonzero().flatten().tolist()
        parts = [logprobs[place - 1, ids[0, place]].item() for place in places]
        assert found.total[row].item() == pytest.approx(sum(parts), abs=1e-4)
        assert found.mean[row].item() == pytest.approx(sum(parts) / len(parts), abs=1e-5)


@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_batches_do_not_matter(batch_size):
    model, tokens = plain(), tokenize(FACTS, byte_level_bos())
    whole, parts = score_answers(model, tokens), score_answers(model, tokens, batch_size)
    assert torch.equal(whole.correct, parts.correct)
    torch.testing.assert_close(whole.logprob, parts.logprob, atol=1e-5, rtol=1e-5)


def test_every_kind_of_model_scores_the_same():
    tokens, model = tokenize(FACTS, byte_level_bos()), plain()
    expected = score_answers(model, tokens).logprob
    torch.testing.assert_close(score_answers(bridge(), tokens).logprob, expected, atol=1e-5, rtol=1e-5)

    def function(ids, attention_mask):
        return model(ids, attention_mask=attention_mask).logits

    assert torch.equal(score_answers(function, tokens).logprob, expected)


def test_half_precision_is_scored_in_single_precision():
    scores = score_answers(plain().bfloat16(), tokenize(FACTS, byte_level_bos()))
    assert scores.logprob.dtype == torch.float32


def test_nothing_is_left_behind():
    model, tokens = plain(), tokenize(FACTS, byte_level_bos())
    model.train()
    model.model.layers[0].eval()
    before = [part.training for part in model.modules()]
    scores = score_answers(model, tokens)
    assert [part.training for part in model.modules()] == before
    assert not scores.logprob.requires_grad
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.is_grad_enabled()


def test_nothing_is_left_behind_by_a_failure():
    model, tokens = plain().train(), tokenize(FACTS, byte_level_bos())
    with torch.no_grad():
        model.lm_head.weight[3, 0] = float("nan")
    with pytest.raises(UserError):
        score_answers(model, tokens)
    assert all(part.training for part in model.modules()) and torch.is_grad_enabled()


def test_logits_that_are_no_numbers_are_refused():
    model, tokens = plain(), tokenize(FACTS, byte_level_bos())
    with torch.no_grad():
        model.lm_head.weight[3, 0] = float("nan")
    with pytest.raises(UserError, match="not numbers"):
        recall(model, tokens)
