"""Hooks for the time of a block: everybody's own, and nobody else's."""

import torch

from mechunlearn.models.hooks import hook_point, hooked

from ..pairs import before, rows

NAME = "blocks.1.mlp.hook_post"


def counting(seen: list[str], name: str):
    def count(tensor, *, hook):
        seen.append(name)

    return count


@torch.no_grad()
def test_an_inner_block_takes_away_its_own_hooks_and_leaves_the_outer_ones():
    model, tokens, seen = before("llama"), rows(), []
    user = hook_point(model, NAME)
    user.add_hook(counting(seen, "user"))
    try:
        with hooked(model, [(NAME, counting(seen, "outer"))]):
            with hooked(model, [(NAME, counting(seen, "inner"))]):
                model(tokens.ids)
            assert sorted(seen) == ["inner", "outer", "user"]
            seen.clear()
            model(tokens.ids)
            assert sorted(seen) == ["outer", "user"]
        seen.clear()
        model(tokens.ids)
        assert seen == ["user"]
    finally:
        user.remove_hooks()


@torch.no_grad()
def test_blocks_that_end_in_another_order_than_they_began_keep_theirs():
    model, tokens, seen = before("llama"), rows(), []
    first, second = hooked(model, [(NAME, counting(seen, "first"))]), hooked(model, [(NAME, counting(seen, "second"))])
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    model(tokens.ids)
    assert seen == ["second"]
    second.__exit__(None, None, None)
    model(tokens.ids)
    assert seen == ["second"]
