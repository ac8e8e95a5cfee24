"""Sizes and ranks of weight changes against plain linear algebra, and what is drawn of them."""

import math

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings, strategies as st

from mechunlearn.diagnostics import change_spectra, plot_changes, weight_changes
from mechunlearn.diagnostics.weights import COLUMNS, singular_values
from mechunlearn.errors import UserError
from mechunlearn.models import clone, slots

from ..architectures import NAMES
from ..pairs import before, changed


def plain(delta: np.ndarray, weight: np.ndarray) -> dict[str, float]:
    """Written out from the definitions, by another library's decomposition."""
    sigma = np.linalg.svd(delta, compute_uv=False)
    share = [s / sum(sigma) for s in sigma if s > 0]
    return {
        "change": math.sqrt((delta**2).sum()),
        "relative_change": math.sqrt((delta**2).sum() / (weight**2).sum()),
        "spectral_norm": sigma[0],
        "relative_spectral_norm": sigma[0] / np.linalg.svd(weight, compute_uv=False)[0],
        "stable_rank": (delta**2).sum() / sigma[0] ** 2,
        "effective_rank": math.exp(-sum(p * math.log(p) for p in share)),
    }


@pytest.mark.parametrize("name", NAMES)
def test_every_matrix_that_differs_and_no_vector(name):
    model = before(name)
    after = changed(model, lambda slot: slot.layer in (-1, 1, 2), 0.05)
    table = weight_changes(model, after)
    ours, theirs = ({s.name: s for s in slots(m)} for m in (model, after))
    expected = [s.name for s in slots(model) if s.layer in (-1, 1, 2) and s.tensor.dim() == 2]
    assert list(table["name"]) == expected and list(table.columns) == list(COLUMNS)
    for row in table.to_dict("records"):
        slot = ours[row["name"]]
        a, b = (m[row["name"]].tensor.detach().double().numpy() for m in (ours, theirs))
        assert (row["layer"], row["role"]) == (slot.layer, "+".join(slot.roles))
        for column, value in plain(b - a, a).items():
            assert row[column] == pytest.approx(value, rel=1e-6), (row["name"], column)


def test_one_direction_has_rank_one_and_size_does_not_matter():
    model, after = before("llama"), clone(before("llama"))
    slot = next(slot for slot in slots(after) if slot.path == "blocks.2.mlp.out.weight")
    kept = slot.tensor.detach().clone()
    direction = torch.outer(torch.linspace(-1, 1, kept.shape[0]), torch.linspace(1, 2, kept.shape[1]))
    for scale in (1e-3, 1.0):
        slot.tensor.data = kept + scale * direction
        row = weight_changes(model, after).iloc[0]
        assert row["stable_rank"] == pytest.approx(1, rel=1e-3)
        assert row["effective_rank"] == pytest.approx(1, rel=2e-2)  # float32 weights round the direction


@settings(max_examples=30)
@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 2**31), st.floats(1e-4, 1e4))
def test_singular_values_are_those_of_the_matrix(rows, columns, seed, scale):
    matrix = scale * torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    expected = np.linalg.svd(matrix.numpy(), compute_uv=False)
    assert singular_values(matrix).numpy() == pytest.approx(expected, abs=1e-7 * expected[0])


def test_spectra_are_whole_and_sorted():
    after = changed(before("gpt2"), lambda slot: slot.layer == 1, 0.05)
    spectra, table = change_spectra(before("gpt2"), after), weight_changes(before("gpt2"), after)
    assert list(dict.fromkeys(spectra["name"])) == list(table["name"])
    for row in table.to_dict("records"):
        part = spectra[spectra["name"] == row["name"]]
        assert list(part["index"]) == list(range(32))
        assert (part["singular_value"].diff().dropna() <= 0).all()
        assert part["singular_value"].iloc[0] == row["spectral_norm"]
        assert math.sqrt((part["singular_value"] ** 2).sum()) == pytest.approx(row["change"])


def test_nothing_changed_gives_no_rows_and_no_picture():
    model = before("llama")
    assert weight_changes(model, clone(model)).empty and change_spectra(model, clone(model)).empty
    norms = changed(model, lambda slot: slot.roles == ("norms",))
    assert weight_changes(model, norms).empty
    with pytest.raises(UserError, match="no matrix differs"):
        plot_changes(weight_changes(model, norms))


def test_models_that_do_not_match_are_refused():
    with pytest.raises(UserError, match="cannot be compared"):
        weight_changes(before("llama"), before("mistral"))


def table(name: str = "llama") -> tuple[pd.DataFrame, pd.DataFrame]:
    after = changed(before(name), lambda slot: slot.layer != 0, 0.05)
    return weight_changes(before(name), after), change_spectra(before(name), after)


def test_lines_are_means_over_a_roles_matrices_and_hover_names_them():
    changes, _ = table()
    lines = {trace.name: trace for trace in plot_changes(changes, "stable_rank").data}
    rows = changes[(changes["role"] == "attention_qk") & (changes["layer"] == 2)]
    at = list(lines["attention_qk"].x).index(2)
    assert len(rows) == 2 and lines["attention_qk"].y[at] == pytest.approx(rows["stable_rank"].mean())
    assert "model.layers.2.self_attn.k_proj.weight" in lines["attention_qk"].customdata[at]
    assert min(lines["embedding"].x) > 3 and set(lines["value_vectors"].x) == {1, 2, 3}


def test_tied_embeddings_have_a_place():
    changes, spectra = table("gpt2")
    assert "embedding+unembedding" in plot_changes(changes).layout.xaxis.ticktext
    assert "embedding+unembedding" in [note.text for note in plot_changes(spectra).layout.annotations]


def test_spectra_have_a_panel_a_role_and_stay_small():
    _, spectra = table()
    figure = plot_changes(spectra, first=5)
    drawn = [trace for trace in figure.data if trace.mode == "lines"]
    assert len(drawn) == spectra["name"].nunique() and all(len(trace.x) == 5 for trace in drawn)
    first = spectra[spectra["name"] == spectra["name"].iloc[0]]
    assert list(drawn[0].y) == list(first["singular_value"][:5])


def test_hostile_names_are_text():
    for frame in table():
        hostile = "<img src=x onerror=alert(1)>"
        figure = plot_changes(frame.assign(name=hostile + frame["name"], role=hostile))
        assert "<img" not in str(figure.to_dict())


def test_what_cannot_be_drawn_says_why():
    changes, _ = table()
    with pytest.raises(UserError, match="no measure 'size': choose change, "):
        plot_changes(changes, "size")
    with pytest.raises(UserError, match="this is neither"):
        plot_changes(changes[["name"]])
