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

A TransformerLens hook name (`blocks.{l}.attn.hook_q` for every layer, `blocks.3.attn.hook_q` for one) is an activation
site; anything else is a regular expression over parameter names.

`[0,3-5]` behind a site chooses some of its places in every layer, `[3:17,5:0-99]` place 17 of layer 3 and 0 to 99 of
layer 5 (`site_names`): indices along the last axis of an activation (neurons; heads for `head_output`), or value
vectors. A window patches the chosen places of its layers; one whose layers hold none patches nothing, and is left out.

`a+b` patches activation sites together, each with places of its own where it has some: in the layers that have all of
them. A part whose places name their layers is not asked for elsewhere: it adds these places, in these layers, to what
the other parts patch in theirs. Parameters are not joined: they are put back before a pass, not written during it.

A site of your own gets a name in `ACTIVATIONS` (hooks, joined with +) or `PARAMETERS` (roles, or a regular expression):

    ACTIVATIONS["attention_keys"] = "blocks.{l}.attn.hook_k"
    PARAMETERS["early_mlps"] = "blocks.[0-2].mlp"
"""  # fmt: skip

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from transformer_lens.model_bridge import TransformerBridge

from .checking import checked, shown
from .errors import UserError
from .models import Slot, slots
from .models.meaning import faults
from .site_names import Part, chosen, matches, ranges, split

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
    `select` picks indices along the last axis (neurons, heads, value vectors) of a hook, by its name, or of a
    parameter, by its path; all of what is not named there.
    """

    name: str
    kind: str  # "activation" | "parameters"
    hooks: dict[int, tuple[str, ...]]
    slots: tuple[Slot, ...]
    layered: bool
    select: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    def layers(self) -> tuple[int, ...]:
        """The layers that the site exists in."""
        found = self.hooks if self.kind == "activation" else {slot.layer for slot in self.slots}
        return tuple(sorted(layer for layer in found if layer >= 0))


@checked
def resolve(name: str, model: TransformerBridge) -> Site:
    """The site of that name in this model: `value_vectors`, `head_output[2:0,4:1-3]`, `mlp_output+head_output[0]`.

    Raises:
        UserError: the architecture has no such site, a layer or an index lies outside it, or it cannot be joined.
    """
    if not name.strip():
        raise UserError("the name of a site is empty")
    written = split(name)
    bases = [base for base, _ in written]
    if all(map(_is_activation, bases)):
        return _activation(name, [_part(name, *one) for one in written], model)
    if all(base in PARAMETERS or _is_activation(base) for base in bases):
        if len(bases) > 1:
            raise UserError(
                f"site {shown(name)}: + joins activations alone; parameters are put back before a pass, not written "
                "during it, so give them as sites of their own (or as one regular expression over their names)"
            )
        return _parameters(name, _part(name, *written[0]), model)
    return _parameters(name, Part(name), model)  # brackets and + are the regular expression's


def _is_activation(base: str) -> bool:
    return base in ACTIVATIONS or "hook_" in base


def _part(name: str, base: str, text: str | None) -> Part:
    return Part(base) if text is None else Part(base, ranges(name, text))


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


def _activation(name: str, parts: list[Part], model: TransformerBridge) -> Site:
    joined: dict[int, dict[str, tuple[int, ...] | None]] = {}  # by layer and hook the places; None: all
    everywhere = [part for part in parts if not part.by_layer]
    common = _common(name, [_hooks(part.base, model) for part in everywhere], model) if everywhere else set()
    for part in parts:
        hooks = _hooks(part.base, model)
        places = _places(name, part, hooks, model)
        for layer in places if part.by_layer else common:
            here = joined.setdefault(layer, {})
            here |= {hook: _both(here.get(hook, ()), places.get(layer)) for hook in hooks[layer]}
    hooks = {layer: tuple(joined[layer]) for layer in sorted(joined)}
    select = {hook: found for here in joined.values() for hook, found in here.items() if found is not None}
    return Site(name, "activation", hooks, (), layered=True, select=select)


def _both(one: tuple[int, ...] | None, other: tuple[int, ...] | None) -> tuple[int, ...] | None:
    """The places of either, in their order; None is all."""
    return None if one is None or other is None else tuple(sorted({*one, *other}))


def _common(name: str, found: Sequence[Collection[int]], model: TransformerBridge) -> set[int]:
    """The layers that have all of these."""
    common = set(found[0]).intersection(*found)
    if not common:
        raise UserError(f"site {name!r}: no layer of {_architecture(model)} has all of it")
    return common


def _places(name: str, part: Part, found: Collection[int], model: TransformerBridge) -> dict[int, tuple[int, ...]]:
    """The places that a part chooses, by layer, of the layers that it was found in; {} where it is meant whole."""
    if not part.ranges:
        return {}
    known = widths(model)
    if part.base not in known:
        raise UserError(f"site {name!r}: indices can be given for {', '.join(known)} only")
    return chosen(name, part, known[part.base], found, model.cfg.n_layers)


def _hooks(base: str, model: TransformerBridge) -> dict[int, tuple[str, ...]]:
    """The hooks of a site of ACTIVATIONS, or the one of that name, in each layer that has them all."""
    meant = {hook: site for site, hook in ACTIVATIONS.items()}
    found = [_hook(part, meant.get(part, part), model) for part in ACTIVATIONS.get(base, base).split("+")]
    common = _common(base, found, model)
    return {layer: tuple(hooks[layer] for hooks in found) for layer in sorted(common)}


def _hook(part: str, name: str, model: TransformerBridge) -> dict[int, str]:
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


def _parameters(name: str, part: Part, model: TransformerBridge) -> Site:
    wanted = PARAMETERS.get(part.base, part.base)
    given = _by_name(name, wanted, model) if isinstance(wanted, str) else _by_role(name, wanted, model)
    layered = all(slot.layer >= 0 for slot in given) if isinstance(wanted, str) else part.base not in OUTSIDE_BLOCKS
    places = _places(name, part, {slot.layer for slot in given}, model)
    if places:
        given = tuple(slot for slot in given if slot.layer in places)
    return Site(name, "parameters", {}, given, layered, {slot.path: places[slot.layer] for slot in given if places})


def _by_role(name: str, roles: tuple[str, ...], model: TransformerBridge) -> tuple[Slot, ...]:
    found = tuple(slot for slot in slots(model) if set(slot.roles) & set(roles))
    if not found:
        raise UserError(f"site {name!r}: {_architecture(model)} has no such parameters")
    return found


def _by_name(name: str, pattern: str, model: TransformerBridge) -> tuple[Slot, ...]:
    every = slots(model)
    found = tuple(slot for slot in every if matches(pattern, slot.name, name) or matches(pattern, slot.path, name))
    if not found:
        raise UserError(
            f"site {shown(name)}: no such site, and as a regular expression it matches no parameter of "
            f"{_architecture(model)}; sites are {', '.join((*ACTIVATIONS, *PARAMETERS))}; parameters look like "
            f"{every[1].name}"
        )
    return found


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


def _architecture(model: TransformerBridge) -> str:
    return type(model.original_model).__name__
