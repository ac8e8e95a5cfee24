"""The sentence on patched states: does the answer come back, or only a distance close? The two are not the same."""

from __future__ import annotations

from collections.abc import Callable

from ..dissection.peaks import PART, Peak, amount, decimal
from ..dissection.plotting.styles import site_words
from ..dissection.said import BACK, Said

ONLY_MOST = (
    "Only windows of more than half of the layers were patched, which replaces most of the model and points nowhere"
)
Answers = Callable[[Peak], Said | None]  # what is answered under the patch at a site's peak


def on_states(states: list[Peak], distance: str, answers: Answers, most: tuple[Peak, Said] | None) -> str:
    """What patched states bring back, first in answers, then as a share of the distance.

    Args:
        states: the peaks of sites that can be part of a cause.
        distance: the distance in words.
        answers: what is answered under each peak; None where the dissection does not tell.
        most: the patch of these sites, of all that hold at most half of the layers, under which most is answered right.
    """
    parts = [peak for peak in states if not peak.most]
    best = max(parts or states, key=lambda peak: peak.value)
    if best.most and best.value >= PART:
        return _only_most(best, distance, answers)
    said = answers(best)
    undone = f"{amount(best.value)} of the {distance} is undone ({decimal(best.value)})"
    given = f"given the before model's {site_words(best.site)} in {best.where}"
    if best.value < PART and most is not None and most[1].back:
        peak, told = most
        return (
            f"The answer can be put back while most of the distance stays: given the before model's "
            f"{site_words(peak.site)} in {peak.where}, the after model answers {counts(told)}{likely(told)}; "
            f"no patched state undoes more than {decimal(best.value)} of the {distance} in any window of at most half "
            "of the layers."
        )
    if best.value < PART:
        return _little(states, best, distance, said)
    if said is None:
        return f"{_capital(undone)} when the after model is {given}; what it answers then was not recorded."
    return " ".join(filter(None, [_closed(said, given, undone, best.value), _elsewhere(most, said)]))


def on_damage(best: Peak, distance: str, said: Said | None) -> str:
    """What the after model's states or parameters do to the before model: to its answers, then to the distance."""
    place = "" if best.first_layer < 0 else f" in {best.where}"
    given = f"given the after model's {site_words(best.site)}{place}"
    taken = f"the before model takes on {amount(best.value)} of the {distance} ({decimal(best.value)})"
    if said is None:
        return f"{_capital(given)}, {taken}; what it answers then was not recorded."
    if said.back:
        return f"The damage can be carried over: {given}, the before model answers {counts(said)}; {taken}."
    if said.back is False and best.value >= PART:
        return f"The predictions move and the answers withstand: {given}, {taken}, but answers {counts(said)}."
    return f"{_capital(given)}, {taken} and answers {counts(said)}{likely(said)}."


def _closed(said: Said, given: str, undone: str, value: float) -> str:
    """A patch that undoes a part of the distance or more: whether the answer comes with it."""
    if said.alike:
        return (
            f"{_capital(undone)} when the after model is {given}; {counts(said)}{likely(said)}: the answers themselves "
            "hardly differ."
        )
    if said.back:
        likelihood = likely(said) if said.returned is None else ""
        return f"The answer can be put back: {given}, the after model answers {counts(said)}{likelihood}; {undone}."
    if said.back is None:
        return (
            f"Answers and their probability part: {given}, the after model answers {counts(said)}{likely(said)}; "
            f"{undone}."
        )
    ways = [way for way in (said.returned, said.likelier) if way is not None]
    away = "the answer stays away" if max(ways) < PART else "most answers stay away"
    closes = "The distance closes" if value >= BACK else "A part of the distance closes"
    return (
        f"{closes} and {away}: {given}, {undone}, but the model answers {counts(said)}"
        f"{likely(said)}. What is left of the difference still hides the answer."
    )


def _only_most(best: Peak, distance: str, answers: Answers) -> str:
    said = answers(best)
    told = "" if said is None else f" and answers {counts(said)}{likely(said)}"
    return (
        f"{ONLY_MOST}: given the before model's {site_words(best.site)} in {best.where}, the after model undoes "
        f"{decimal(best.value)} of the {distance}{told}."
    )


def counts(said: Said) -> str:
    """How many are answered right under the patch, and by the two models."""
    interval = "" if said.low != said.low else f" [{said.low:.0%}, {said.high:.0%}]"
    return f"{said.right:.0%} right{interval} (before {said.before:.0%}, after {said.after:.0%})"


def likely(said: Said) -> str:
    """The answer's probability and rank in absolute terms, where they are known."""
    if said.probability is None or said.rank is None:
        return ""
    (before, after, under), rank = said.probability, said.rank
    return (
        f"; an answer token has the probability {under:.2g} (before {before:.2g}, after {after:.2g}) and the mean rank "
        f"{rank[2]:.3g} (before {rank[0]:.3g}, after {rank[1]:.3g})"
    )


def _little(states: list[Peak], best: Peak, distance: str, said: Said | None) -> str:
    text = (
        f"No patched state undoes more than {decimal(best.value)} of the {distance} in any window "
        f"({site_words(best.site)} in {best.where})"
    )
    told = "" if said is None else f" Under it the after model answers {counts(said)}."
    everywhere = [peak for peak in states if peak.all_layers is not None and peak.all_layers >= PART]
    if not everywhere:
        return f"{text}.{told}"
    most = max(everywhere, key=lambda peak: peak.all_layers or 0.0)
    return (
        f"{text} of at most half of the layers; {site_words(most.site)} in all layers at once undo "
        f"{decimal(most.all_layers or 0.0)}: the change is spread over more layers than a window holds.{told}"
    )


def _elsewhere(most: tuple[Peak, Said] | None, said: Said | None) -> str:
    """Another patch that brings answers back where the one that closes most of the distance does not."""
    if most is None or said is None:
        return ""
    peak, best = most
    if said.back or not best.back or best.right <= said.right:
        return ""
    return (
        f"Yet the answer can be put back: given the before model's {site_words(peak.site)} in {peak.where}, the after "
        f"model answers {counts(best)}."
    )


def _capital(sentence: str) -> str:
    return sentence[:1].upper() + sentence[1:]
