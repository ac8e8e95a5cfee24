"""The table of sites says what resolving and a forward pass find."""

import pytest
import torch

from mechunlearn.site_table import site_table
from mechunlearn.sites import available, resolve

from .pairs import before


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "mixtral", "gemma2"])
def test_every_site_that_there_is_with_its_layers_and_shapes(architecture):
    model = before(architecture)
    table = site_table(model).set_index("site")
    assert list(table.index) == [name for name, there in available(model).items() if there]
    _, cache = model.run_with_cache(torch.ones(1, 3, dtype=torch.long))
    for name, row in table.iterrows():
        site = resolve(str(name), model)
        assert row["kind"] == site.kind
        layers = site.layers()
        assert row["layers"] == (f"{layers[0]}–{layers[-1]}" if site.layered else "outside")
        if site.kind == "activation":
            assert row["shape"] == str(tuple(cache[site.hooks[0][0]].shape[2:]))
        elif "numbers" not in row["shape"]:
            assert all(str(tuple(slot.tensor.shape)) in row["shape"] for slot in site.slots[:1])
        else:
            here = [slot for slot in site.slots if slot.layer == 0 or not site.layered]
            assert f"{sum(slot.tensor.numel() for slot in here):,} numbers" in row["shape"]
        if row["indices"]:
            found = resolve(f"{name}[0-{row['indices'] - 1}]", model).select
            assert set(found.values()) == {tuple(range(row["indices"]))}
