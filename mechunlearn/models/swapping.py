"""Parameters of one model in another for a time, without a copy of a matrix."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from ..undoing import undone
from .anatomy import Slot


@contextmanager
def parameters_of(
    donor: Mapping[str, Slot], slots: Iterable[Slot], select: Mapping[str, tuple[int, ...]] | None = None
) -> Iterator[None]:
    """Let these parameters of the recipient hold the donor's values, and put their own back whatever happens.

    No matrix is copied: the parameter's storage is exchanged. Of those whose path is in `select`, only these rows of
    the input axis (value vectors) are the donor's, in a copy of the one matrix.
    """
    own: list[tuple[nn.Parameter, Tensor]] = []

    def back() -> None:
        for parameter, data in own:
            parameter.data = data

    with undone(back):
        for slot in slots:
            own.append((slot.tensor, slot.tensor.data))
            slot.tensor.data = donor_value(donor[slot.path], slot, (select or {}).get(slot.path, ()))
        yield


def donor_value(donor: Slot, own: Slot, select: tuple[int, ...] = ()) -> Tensor:
    """The donor's values for a parameter; with `select`, mixed into the recipient's own. Biases have no rows."""
    if not select:
        return donor.tensor.data
    value = own.tensor.data.clone()
    if value.dim() > 1:
        index = torch.tensor(select, device=value.device)
        value.index_copy_(own.features, index, donor.tensor.data.index_select(own.features, index))
    return value
