"""The synthetic studies of Layered Unlearning: exact facts of their tasks, stacked training, resumption, structure."""

import importlib
import itertools
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from mechunlearn.errors import UserError

ANALYSES = Path(__file__).parents[2] / "analyses"


@pytest.fixture(scope="module")
def studies():
    """The scripts, imported as they import each other: from their own folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ANALYSES))
        yield {name: importlib.import_module(name) for name in ("layered", "layered_logistic", "layered_bigram")}


@pytest.fixture
def layered(studies):
    return studies["layered"]


@pytest.fixture
def logistic(studies):
    return studies["layered_logistic"]


@pytest.fixture
def bigram(studies):
    return studies["layered_bigram"]


def test_features_are_bumps_on_the_grid_and_a_bias(logistic):
    points = torch.tensor([[0.0, 0.0], [-60.0, 60.0], [13.0, -41.5]])
    found = logistic.features(points)
    assert found.shape == (3, 145)
    centres = list(itertools.product(np.linspace(-60, 60, 12), repeat=2))
    for point, row in zip(points.tolist(), found.tolist(), strict=True):
        wanted = [math.exp(-((point[0] - x) ** 2 + (point[1] - y) ** 2) / (2 * 8**2)) for x, y in centres]
        np.testing.assert_allclose(row, [*wanted, 1.0], atol=1e-5)


def test_the_logistic_model_has_145_parameters(logistic):
    task = logistic.Task("rings", [0, 1], logistic.QUICK)
    assert task.fresh().shape == (2, 145)
    assert task.fresh().abs().max() <= 1 / 12


def test_points_come_from_the_published_mixtures(logistic):
    null, a, b, r = logistic.points_of("rings", 0, 4000)
    assert null.abs().max() <= 60
    for pool, radius in ((a, 5), (b, 20), (r, 40)):
        # Noise of covariance 4·1 + 0.1·UᵀU about a ring: E‖x‖² = radius² + 8 + 0.1·‖U‖², about 0.4 more.
        assert pool.square().sum(dim=1).mean().item() == pytest.approx(radius**2 + 8.4, rel=0.04, abs=0.4)
    assert logistic.means_of("random", torch.Generator().manual_seed(0)).shape == (3, 5, 2)


def test_k_means_gives_three_tight_clusters_of_five(logistic):
    rng = torch.Generator().manual_seed(3)
    means = logistic.means_of("k-means", rng)
    assert means.shape == (3, 5, 2)
    assert len(means.flatten(0, 1).unique(dim=0)) == 15
    pooled = means.flatten(0, 1)
    shuffled = pooled[torch.randperm(15, generator=rng)].view(3, 5, 2)

    def spread(clusters):
        return (clusters - clusters.mean(dim=1, keepdim=True)).square().sum()

    assert spread(means) < 0.7 * spread(shuffled)
    assert len(logistic.equal_splits()) == math.factorial(15) // math.factorial(5) ** 3 // math.factorial(3)


def test_moving_to_another_depth_keeps_the_rest(logistic):
    task = logistic.Task("random", [0, 1], logistic.QUICK)
    rng = torch.Generator().manual_seed(0)
    one, other = torch.randn(2, 2, 145, generator=rng)
    moved = task.at_depth_of(one, other)

    def means(weights):
        return torch.stack([(x @ w).mean(dim=1) for x, w in zip(task.x, weights, strict=True)])

    torch.testing.assert_close(means(moved)[:, 1:3], means(other)[:, 1:3], atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(means(moved)[:, [0, 3]], means(one)[:, [0, 3]], atol=1e-3, rtol=1e-3)


def test_the_language_model_has_4288_parameters(bigram):
    assert sum(weight[0].numel() for weight in bigram.fresh([0, 1]).values()) == 4288


def test_bigrams_are_the_published_rows(bigram):
    for a, b in itertools.product((True, False), repeat=2):
        torch.testing.assert_close(bigram.matrix(a, b).sum(dim=1), torch.ones(3))
    torch.testing.assert_close(bigram.matrix(True, False)[0], torch.tensor([0.05, 0.05, 0.9]))
    torch.testing.assert_close(bigram.matrix(True, False)[1], torch.full((3,), 1 / 3))
    torch.testing.assert_close(bigram.matrix(False, False)[2], torch.tensor([0.475, 0.475, 0.05]))


def test_positions_begin_with_zeros(bigram):
    found = bigram.positions(8, 16)
    assert found.shape == (8, 16)
    assert not found[0].any()
    for place, j in itertools.product(range(1, 8), range(16)):
        angle = place / 10_000 ** (2 * j / 16)
        wanted = math.cos(angle) if j % 2 else math.sin(angle)
        assert found[place, j].item() == pytest.approx(wanted, abs=1e-6)


def test_sequences_follow_their_bigrams(bigram):
    bigrams = bigram.matrix(True, False)
    tokens = bigram.sequences(bigrams, 20_000, torch.Generator().manual_seed(0))
    assert tokens.shape == (20_000, 8)
    for source in range(3):
        following = tokens[:, 1:][tokens[:, :-1] == source]
        share = torch.bincount(following, minlength=3) / len(following)
        torch.testing.assert_close(share, bigrams[source], atol=0.01, rtol=0)


def test_the_forward_pass_equals_attention_written_out(bigram):
    weights = bigram.fresh([0, 1, 2])
    tokens = torch.randint(3, (3, 2, 8), generator=torch.Generator().manual_seed(0))
    found = bigram.forward(weights, tokens)
    model, row = 2, 1
    w = {name: weight[model].double().numpy() for name, weight in weights.items()}
    x = w["W_E"][tokens[model, row].numpy()]
    place = bigram.positions(8, 16).double().numpy()
    mixed = np.zeros((8, 32))
    for head in range(2):
        part = slice(16 * head, 16 * head + 16)
        q, k, v = x @ w["W_Q"][:, part] + place, x @ w["W_K"][:, part] + place, x @ w["W_V"][:, part]
        for at in range(8):
            look = np.exp(q[at] @ k[: at + 1].T / 4)
            mixed[at, part] = look @ v[: at + 1] / look.sum()
    wanted = (x + mixed @ w["W_O"]) @ w["W_U"]
    np.testing.assert_allclose(found[model, row].numpy(), wanted, atol=1e-5)


def test_patching_a_model_with_itself_changes_nothing_and_sites_add_up(bigram):
    one, other = bigram.fresh([0]), bigram.fresh([1])
    tokens = bigram.prefixes()[0][None, ::97]
    for site in ("pattern", "values", "attention output"):
        torch.testing.assert_close(bigram.patched(one, one, site, tokens), bigram.forward(one, tokens))
        assert not torch.allclose(bigram.patched(one, other, site, tokens), bigram.forward(one, tokens), atol=1e-3)
    outer = {**other, "W_E": one["W_E"], "W_U": one["W_U"]}
    swapped = bigram.swap(one, other, "110")
    torch.testing.assert_close(bigram.forward(swapped, tokens), bigram.forward(outer, tokens))
    assert all(swapped[name] is one[name] for name in ("W_E", "W_U"))


def test_a_measure_is_exact_for_a_model_that_knows_the_bigrams(bigram):
    tokens, chances = bigram.prefixes()
    assert tokens.shape == (3**7, 7)
    assert chances.sum().item() == pytest.approx(1, abs=1e-5)
    logits = bigram.matrix(True, False).log()[tokens][None]
    found = bigram.measure(logits, [0]).iloc[0]
    assert (found["A"], found["B"], found["R"]) == pytest.approx((0.9, 1 / 3, 0), abs=1e-4)


def test_alike_is_one_for_tokens_that_share_their_embedding(bigram):
    weights = bigram.fresh([0])
    apart = bigram.alike(weights)
    weights["W_E"][:, 1] = weights["W_E"][:, 0]
    # Swapping a and b now changes nothing, and they are equally frequent but for their order after r.
    together = bigram.alike(weights)
    assert together["alike_OV"][0] > 0.99 > apart["alike_OV"][0]


def test_stacked_training_equals_training_alone(layered, logistic):
    task = logistic.Task("random", [0, 1, 2], logistic.Settings(points=40, epochs=2))
    labels = {"null": 0, "A": 1, "R": 1}
    found = task.stage(task.fresh(), labels, "here")[1]
    x = torch.cat([task.x[1, logistic.POOLS.index(pool)] for pool in labels])
    y = torch.tensor([0.0] * 40 + [1.0] * 80)
    line = nn.Linear(145, 1, bias=False)
    line.weight.data = task.fresh()[1:2].clone()
    optimizer = torch.optim.AdamW(line.parameters(), lr=1e-2, weight_decay=0.01)
    order = layered.generator("random", 1, "here")
    for _ in range(2):
        for picked in torch.randperm(120, generator=order).split(32):
            optimizer.zero_grad()
            nn.functional.binary_cross_entropy_with_logits(line(x[picked]).squeeze(-1), y[picked]).backward()
            optimizer.step()
    torch.testing.assert_close(found, line.weight[0].detach(), atol=1e-5, rtol=1e-4)


def test_relearning_one_task_scores_only_its_token(bigram, layered):
    settings = bigram.Settings(sequences=64, epochs=1)
    start = bigram.fresh([0])
    after = bigram.relearn(start, "A", [0], settings)
    rows = bigram.evaluate(after, [0]).iloc[0], bigram.evaluate(start, [0]).iloc[0]
    assert rows[0]["A"] > rows[1]["A"]
    masked = bigram.train_stage(start, layered.Stage(None, None), "masked", [0], settings)
    assert not torch.equal(masked["W_E"][0, 2], start["W_E"][0, 2])


@pytest.mark.parametrize(("study", "lost"), [("layered_logistic", "rings"), ("layered_bigram", "more-2-2")])
def test_a_resumed_study_equals_an_uninterrupted_one(studies, study, lost, tmp_path):
    script = studies[study]
    whole = script.run(tmp_path, script.QUICK)
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "units").iterdir() if path.stem != lost}
    (tmp_path / "units" / f"{lost}.parquet").unlink()
    pd.testing.assert_frame_equal(script.run(tmp_path, script.QUICK), whole)
    assert kept
    assert all(path.stat().st_mtime_ns == written for path, written in kept.items())
    with pytest.raises(UserError, match="other settings"):
        script.run(tmp_path, script.Settings())
    arms = whole[whole["experiment"] == "arm"] if "experiment" in whole else whole
    assert set(studies["layered"].ARMS) <= set(arms["model"])
    assert set(arms["relearned"]) == {"none", "A", "B"}
    assert whole[["A", "B", "R"]].notna().all(axis=None)
    assert "| within 2 sd" in script.page(whole, script.QUICK.seeds)


def test_a_comparison_says_what_is_apart(layered):
    frame = pd.DataFrame({"model": "U", "relearned": "A", "B": [0.5, 0.6, 0.7], "seed": range(3)})
    cells = [layered.Cell("U", "A", "B", 0.78), layered.Cell("U", "A", "B", 0.78, 0.01)]
    assert layered.compare(frame, cells)["within 2 sd"].tolist() == ["yes", "**no**, 0.18 apart"]
