"""Parameters of one model in another, for the time of a block."""

import pytest

from mechunlearn.models import compare, slots
from mechunlearn.models.swapping import parameters_of

from ..pairs import before, changed, snapshot


def test_an_interrupt_inside_a_swap_puts_the_parameters_back():
    donor, model = before("llama"), changed(before("llama"), lambda _: True)
    state = snapshot(model)
    theirs = {slot.path: slot for slot in slots(donor)}
    with pytest.raises(KeyboardInterrupt), parameters_of(theirs, slots(model)):
        assert compare(donor, model).different == frozenset()
        raise KeyboardInterrupt
    assert snapshot(model) == state
