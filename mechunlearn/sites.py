"""Sites: the places where one model's values can be put into the other.

An activation site names TransformerLens hooks, a parameter site names roles of parameters (see models.anatomy).

    name                             kind         what
    mlp_coefficients                 activation   blocks.l.mlp.hook_post, the input of the down-projection
    attention_output                 activation   blocks.l.hook_attn_out, what attention adds to the residual
    mlp_output                       activation   blocks.l.hook_mlp_out
    residual                         activation   blocks.l.hook_resid_pre
    head_output                      activation   blocks.l.attn.hook_z, all heads or head_output[0,3]
    value_vectors                    parameters   down-projection and its bias (rows: value_vectors[17])
    mlp_keys                         parameters   gate and up projection
    expert_value_vectors, expert_keys, router
                                     parameters   the same of all experts of a mixture (shared ones too), and what
                                                  sends tokens to them
    attention_qk / _ov / attention   parameters   query and key / value and output / all of them
    norms, block                     parameters   a block's norms / all of a block
    embedding, unembedding, final_norm, everything

`a+b` patches activation sites together; a TransformerLens hook name (`blocks.{l}.attn.hook_q` for every layer,
`blocks.3.attn.hook_q` for one) is an activation site; anything else is a regular expression over parameter names.
`[i,j]` selects along the last axis (neurons; heads for `head_output`) of an activation, or value vectors by index.

A site of your own gets a name in `ACTIVATIONS` (hooks, joined with +) or `PARAMETERS` (roles, or a regular expression):

    ACTIVATIONS["attention_keys"] = "blocks.{l}.attn.hook_k"
    PARAMETERS["early_mlps"] = "blocks.[0-2].mlp"
"""  # fmt: skip

from __future__ import annotations

import re
from dataclasses import dataclass, replace

import regex
from transformer_lens.model_bridge import TransformerBridge

from .checking import checked, shown
from .errors import UserError
from .models import Slot, slots
from .models.meaning import faults

MOST_PLACES = 10**7  # neurons of a layer that an index may speak of
SECONDS = 1.0  # that a regular expression may take for one name
ACTIVATIONS = {
    "mlp_coefficients": "blocks.{l}.mlp.hook_post",
    "attention_output": "blocks.{l}.hook_attn_out",
    "mlp_output": "blocks.{l}.hook_mlp_out",
    "residual": "blocks.{l}.hook_resid_pre",
    "head_output": "blocks.{l}.attn.hook_z",
}
BLOCK_ROLES = (
    "value_vectors", "mlp_keys", "expert_value_vectors", "expert_keys", "router",
    "attention_qk", "attention_ov", "norms", "other",
)  # fmt: skip
PARAMETERS: dict[str, tuple[str, ...] | str] = {
    "value_vectors": ("value_vectors",),
    "mlp_keys": ("mlp_keys",),
    "expert_value_vectors": ("expert_value_vectors",),
    "expert_keys": ("expert_keys",),
    "router": ("router",),
    "attention_qk": ("attention_qk",),
    "attention_ov": ("attention_ov",),
    "attention": ("attention_qk", "attention_ov"),
    "norms": ("norms",),
    "block": BLOCK_ROLES,
    "embedding": ("embedding",),
    "unembedding": ("unembedding",),
    "final_norm": ("final_norm",),
    "everything": (*BLOCK_ROLES, "embedding", "unembedding", "final_norm"),
}
OUTSIDE_BLOCKS = ("embedding", "unembedding", "final_norm", "everything")
DEFAULT = (
    "mlp_coefficients", "attention_output", "mlp_coefficients+attention_output",
    "value_vectors", "mlp_keys", "attention", "embedding", "unembedding",
)  # fmt: skip
IN_MIXTURES = {  # what stands in for a site of DEFAULT where the MLPs are mixtures of experts
    "mlp_coefficients": ("mlp_output",),
    "mlp_coefficients+attention_output": ("mlp_output+attention_output",),
    "value_vectors": ("expert_value_vectors",),
    "mlp_keys": ("expert_keys", "router"),
}


@dataclass(frozen=True)
class Site:
    """A place to intervene, resolved against a model.

    `hooks` maps a layer to the hook names written there (activation sites); `slots` are the parameters put back
    (parameter sites). `layered` is False for sites that lie outside the blocks: those have one patch and no window.
    `select` picks indices along the last axis (neurons, heads, value vectors); empty means all.
    """

    name: str
    kind: str  # "activation" | "parameters"
    hooks: dict[int, tuple[str, ...]]
    slots: tuple[Slot, ...]
    layered: bool
    select: tuple[int, ...] = ()

    def layers(self) -> tuple[int, ...]:
        """The layers that the site exists in."""
        found = self.hooks if self.kind == "activation" else {slot.layer for slot in self.slots}
        return tuple(sorted(layer for layer in found if layer >= 0))


@checked
def resolve(name: str, model: TransformerBridge) -> Site:
    """The site of that name in this model. Behind a named site some of its places: `head_output[0,3]`, `[0-99,120]`.

    Raises:
        UserError: the architecture has no such site, or an index lies outside it.
    """
    if not name.strip():
        raise UserError("the name of a site is empty")
    match = re.fullmatch(r"(?P<base>[^\[\]]+)\[(?P<index>[0-9,\s-]+)\]", name)
    if match and not _is_named(match["base"]):  # the end of a regular expression
        match = None
    base = match["base"] if match else name
    select = _indices(name, match["index"]) if match else ()
    site = _activation(base, model) if _is_activation(base) else _parameters(base, model)
    return replace(site, name=name, select=_checked(name, base, select, model)) if select else site


def _is_activation(name: str) -> bool:
    return all(part in ACTIVATIONS or "hook_" in part for part in name.split("+"))


def _is_named(name: str) -> bool:
    return name in PARAMETERS or _is_activation(name)


def _indices(name: str, text: str) -> tuple[int, ...]:
    """Places and ranges of them, both ends included, each place once: "0,3", "0-99,120"."""
    found: dict[int, None] = {}
    for part in text.split(","):
        ends = re.fullmatch(r"\s*(\d+)(?:\s*-\s*(\d+))?\s*", part)
        if ends is None:
            raise UserError(f"site {shown(name)}: {part!r} is no place and no range of places; write [0,3] or [0-99]")
        if len(part) > 40 or (first := int(ends[1])) > MOST_PLACES or (last := int(ends[2] or first)) > MOST_PLACES:
            raise UserError(f"site {shown(name)}: an index beyond what any model has")
        if last < first:
            raise UserError(f"site {shown(name)}: the range {part.strip()} ends before it begins")
        found |= dict.fromkeys(range(first, last + 1))
    return tuple(found)


def default(model: TransformerBridge) -> tuple[str, ...]:
    """The sites of DEFAULT, and of experts what stands in for them where the model has experts.

    Raises:
        UserError: the architecture lacks one of them.
    """
    names: dict[str, None] = {}
    experts = {role for slot in slots(model) for role in slot.roles} & {"expert_value_vectors"}
    for name in DEFAULT:
        try:
            resolve(name, model)
            names[name] = None
        except UserError:
            if not experts or name not in IN_MIXTURES:
                raise
        if experts:
            names |= dict.fromkeys(IN_MIXTURES.get(name, ()))
    return tuple(names)


@checked
def available(model: TransformerBridge) -> dict[str, bool]:
    """Every named site, and whether this architecture has it."""
    found = {}
    for name in (*ACTIVATIONS, *PARAMETERS):
        try:
            resolve(name, model)
            found[name] = True
        except UserError:
            found[name] = False
    return found


def _activation(name: str, model: TransformerBridge) -> Site:
    hooks: dict[int, tuple[str, ...]] = {}
    parts = "+".join(ACTIVATIONS.get(part, part) for part in name.split("+")).split("+")
    meant = {hook: part for part, hook in ACTIVATIONS.items()}
    for number, part in enumerate(parts):
        here = _hooks(part, meant.get(part, part), model)
        joined = number and not set(hooks).isdisjoint(here)
        if number and not joined:
            raise UserError(f"site {name!r}: no layer of {_architecture(model)} has all of it")
        hooks = {layer: (*hooks.get(layer, ()), hook) for layer, hook in here.items() if not number or layer in hooks}
    return Site(name, "activation", hooks, (), layered=True)


def _hooks(part: str, name: str, model: TransformerBridge) -> dict[int, str]:
    """The hook of each layer in which the architecture has it and it means what its name says."""
    fixed = re.match(r"blocks\.(\d+)\.", part)
    if not fixed and "{l}" not in part:
        raise UserError(f"site {part!r}: not a hook inside a block; write it as blocks.{{l}}.… or blocks.3.…")
    layers = [int(fixed[1])] if fixed else range(model.cfg.n_layers)
    named = {layer: part.replace("{l}", str(layer)) for layer in layers}
    there = {layer: hook for layer, hook in named.items() if hook in model.hook_dict}
    if not there:
        raise UserError(f"site {name!r}: {_architecture(model)} has no {next(iter(named.values()))}")
    wrong = {layer: reason for (site, layer), reason in faults(model).items() if site == name}
    right = {layer: hook for layer, hook in there.items() if layer not in wrong}
    if not right:
        layer = min(wrong)
        raise UserError(
            f"site {name!r}: in {_architecture(model)} {there[layer]} is not what the name says: {wrong[layer]}; "
            "sites.available(model) says which sites there are"
        )
    return right


def _parameters(name: str, model: TransformerBridge) -> Site:
    everything = slots(model)
    found = PARAMETERS.get(name, name)
    if not isinstance(found, str):
        chosen = tuple(slot for slot in everything if set(slot.roles) & set(found))
        if not chosen:
            raise UserError(f"site {name!r}: {_architecture(model)} has no such parameters")
        return Site(name, "parameters", {}, chosen, layered=name not in OUTSIDE_BLOCKS)
    chosen = tuple(slot for slot in everything if _matches(found, slot.name, name) or _matches(found, slot.path, name))
    if not chosen:
        raise UserError(
            f"site {shown(name)}: no such site, and as a regular expression it matches no parameter of "
            f"{_architecture(model)}; sites are {', '.join((*ACTIVATIONS, *PARAMETERS))}; parameters look like "
            f"{everything[1].name}"
        )
    inside = {slot.layer >= 0 for slot in chosen}
    return Site(name, "parameters", {}, chosen, layered=inside == {True})


def _matches(pattern: str, text: str, name: str) -> bool:
    """Whether the regular expression is found in the text; some would be looked for until the end of the world."""
    try:
        return regex.search(pattern, text, timeout=SECONDS) is not None
    except TimeoutError:
        raise UserError(
            f"site {shown(name)}: as a regular expression it takes more than {SECONDS:g} s for one name; write it "
            "without repetitions inside repetitions"
        ) from None
    except (regex.error, OverflowError, RecursionError, MemoryError) as error:
        reason = str(error) or "too deep"
        raise UserError(
            f"site {shown(name)}: neither a site, a hook name nor a regular expression ({reason})"
        ) from error


def widths(model: TransformerBridge) -> dict[str, int]:
    """The sites of which some places can be chosen, and how many there are."""
    found = {
        "mlp_coefficients": model.cfg.d_mlp,
        "value_vectors": model.cfg.d_mlp,
        "head_output": model.cfg.n_heads,
        "attention_output": model.cfg.d_model,
        "mlp_output": model.cfg.d_model,
        "residual": model.cfg.d_model,
    }
    return {name: width for name, width in found.items() if width is not None}


def _checked(name: str, base: str, select: tuple[int, ...], model: TransformerBridge) -> tuple[int, ...]:
    known = widths(model)
    if base not in known:
        raise UserError(f"site {name!r}: indices can be given for {', '.join(known)} only")
    if max(select) >= known[base]:
        raise UserError(f"site {name!r}: index {max(select)} lies outside; {base} has 0 to {known[base] - 1}")
    return select


def _architecture(model: TransformerBridge) -> str:
    return type(model.original_model).__name__
