"""What a model is made of: every parameter that its forward pass reads, with its layer and its role.

Roles are the parameter sites of the house. They partition the parameters, so that what one site does not restore
another does, and "restore everything" leaves nothing behind.

Some checkpoints store query, key and value (or gate and up) as one fused matrix. TransformerLens splits it when it
wraps the model and computes with the parts; the fused original stays behind unread. Only the parts count here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import nn
from transformer_lens.model_bridge import TransformerBridge

ATTENTION_ROLES = {
    "q": "attention_qk", "k": "attention_qk", "q_norm": "attention_qk", "k_norm": "attention_qk",
    "v": "attention_ov", "o": "attention_ov",
}  # fmt: skip
MLP_ROLES = {"gate": "mlp_keys", "in": "mlp_keys", "out": "value_vectors"}
OUTER_ROLES = {
    "embed": "embedding", "pos_embed": "embedding", "ln_final": "final_norm", "unembed": "unembedding",
}  # fmt: skip
# Of a mixture of experts, by the end of the Hugging Face name: matrices may be stacked (experts x in x out), and the
# experts that see every token (shared ones) are experts too.
EXPERT_ROLES = {
    "router": r"(\.(router|gate|shared_expert_gate)\.|expert_bias$|correction_bias$)",
    "expert_value_vectors": r"\.(down_proj|down_proj_bias|w2|fc2|c_proj|output_linear)(\.(weight|bias))?$|mlp\.bias$",
    "expert_keys": r"\.((gate_up|gate|up)_proj|gate_up_proj_bias|w1|w3|fc1|c_fc|input_linear)(\.(weight|bias))?$",
}
DENSE_ROLES = {"expert_keys": "mlp_keys", "expert_value_vectors": "value_vectors"}
# Roles of parameters that TransformerLens has no name for, by a regular expression over their Hugging Face names: where
# an MLP has another shape than keys and one matrix of value vectors, say which is what. Nobody else needs to know.
NAMED_ROLES: dict[str, str] = {}
FUSED = ("qkv", "gate_up")


@dataclass(frozen=True)
class Slot:
    """One parameter that the forward pass reads.

    `path` is its TransformerLens name (`blocks.3.mlp.out.weight`), `name` the one of the Hugging Face module
    (`model.layers.3.mlp.down_proj.weight`). `layer` is -1 outside the blocks. `roles` holds one role, or two where
    embedding and unembedding are tied to one tensor. `features` is the axis that the parameter's input runs along.
    """

    path: str
    name: str
    layer: int
    roles: tuple[str, ...]
    tensor: nn.Parameter
    features: int


def slots(model: TransformerBridge) -> tuple[Slot, ...]:
    """Every parameter that the forward pass reads, once, in the order of the model."""
    named: dict[int, Slot] = {}
    for path, layer, role, parameter, features in _walk(model):
        known = named.get(id(parameter))
        roles = (*known.roles, role) if known and role not in known.roles else (role,)
        first = known or Slot(path, path, layer, roles, parameter, features)
        named[id(parameter)] = Slot(first.path, first.name, first.layer, roles, parameter, first.features)

    unread = {id(parameter) for parameter in fused_parameters(model)}
    mixtures = {id(p): block for block in model.blocks if _mixture(block) for p in block.mlp.parameters()}
    found = []
    for raw, parameter in model.original_model.named_parameters():
        name = raw.replace("._original_component", "")
        if id(parameter) in named:
            slot = named[id(parameter)]
            found.append(Slot(slot.path, name, slot.layer, slot.roles, parameter, slot.features))
        elif id(parameter) not in unread:
            layer = re.search(r"\.(\d+)\.", name)
            role = next((role for pattern, role in NAMED_ROLES.items() if re.search(pattern, name)), None)
            if role is None and id(parameter) in mixtures:
                role = _role_in_mixture(name, mixtures[id(parameter)])
            number = int(layer[1]) if layer else -1
            found.append(
                Slot(name, name, number, (role or "other",), parameter, _features(parameter, model.cfg.d_model, role))
            )
    return tuple(found)


def _mixture(block: Any) -> bool:
    """Whether TransformerLens takes the block's MLP for a mixture of experts, and so names none of its matrices."""
    return type(block.submodules.get("mlp")).__name__.endswith("MoEBridge")


def _role_in_mixture(name: str, block: Any) -> str | None:
    """The role of a parameter of such an MLP. Some layers of a mixture model are dense (Qwen-MoE, DeepSeek)."""
    role = next((role for role, pattern in EXPERT_ROLES.items() if re.search(pattern, name)), None)
    sparse = any("experts" in part or "router" in part for part, _ in block.mlp.named_parameters()) or (
        "gate" in block.mlp.submodules
    )
    return role if sparse or role is None else DENSE_ROLES.get(role, role)


def _features(parameter: nn.Parameter, d_model: int, role: str | None) -> int:
    """Along which axis the input of a parameter runs; experts' stacked matrices lie either way (gpt-oss, Llama 4)."""
    if parameter.dim() != 3:
        return -1
    last = parameter.shape[-1] == d_model
    return -1 if last == (role == "expert_keys") else 1


def _walk(model: TransformerBridge) -> Iterator[tuple[str, int, str, nn.Parameter, int]]:
    for name, role in OUTER_ROLES.items():
        if name in model._modules:
            yield from _parameters(model._modules[name], name, -1, role)
    for layer, block in enumerate(model.blocks):
        for name, component in block.submodules.items():
            path = f"blocks.{layer}.{name}"
            if name.startswith("ln"):
                yield from _parameters(component, path, layer, "norms")
                continue
            if name == "mlp" and _mixture(block):
                continue
            roles = {"attn": ATTENTION_ROLES, "mlp": MLP_ROLES}.get(name, {})
            for part, sub in component.submodules.items():
                if part in roles:
                    yield from _parameters(sub, f"{path}.{part}", layer, roles[part])


def _parameters(
    component: nn.Module | None, path: str, layer: int, role: str
) -> Iterator[tuple[str, int, str, nn.Parameter, int]]:
    original = getattr(component, "original_component", None)
    if original is None:
        return
    # GPT-2's Conv1D keeps its weight as [in, out], every other linear layer as [out, in].
    features = 0 if type(original).__name__ == "Conv1D" else -1
    for leaf, parameter in original.named_parameters():
        yield f"{path}.{leaf}", layer, role, parameter, features


def fused_modules(model: TransformerBridge) -> Iterator[tuple[nn.Module, nn.Module, dict[str, nn.Module]]]:
    """(container, fused linear module, part name -> split linear module) for every fused projection."""
    for block in model.blocks:
        attention, mlp = block.submodules.get("attn"), block.submodules.get("mlp")
        if attention is not None and "qkv" in attention.submodules:
            fused = attention.submodules["qkv"].original_component
            yield attention, fused, {part: attention.submodules[part].original_component for part in "qkv"}
        if mlp is not None and hasattr(mlp, "split_gate_up_matrix"):
            fused = getattr(mlp.original_component, mlp.fused_attr)
            fused = getattr(fused, "original_component", fused)
            yield mlp, fused, {part: mlp.submodules[part].original_component for part in ("gate", "in")}


def fused_parameters(model: TransformerBridge) -> Iterator[nn.Parameter]:
    """The fused originals, which the forward pass no longer reads."""
    for _, fused, _ in fused_modules(model):
        yield from fused.parameters()
