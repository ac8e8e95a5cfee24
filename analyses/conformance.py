"""Is what the package says right on every kind of language model? Each is tried, and compared with plain passes.

    python analyses/conformance.py                # all of conformance_models.RECIPES, some ten minutes on two cores
    python analyses/conformance.py mixtral gpt2   # only these, printed

Of every recipe two random models are made: the second has a change planted in the MLP's last matrix (all experts',
where there are experts) of the middle block. The package dissects the pair with its default sites, then with every
named site that it says the architecture has. Right means, for every patch, row and site: the squared distance of
logits is the one that plain passes give, one fact at a time and unpadded (parameters: the weights put into the
transformers module and the module run; activations: TransformerLens' own hooks over the whole pass), to 1e-3 of the
distance between the models; the planted change is found (block and MLP output bring back everything at the middle
block), and coefficients, which stand before the changed matrix, bring back nothing there.

Writes analyses/results/conformance.csv, one row a recipe, and conformance.md.
"""  # fmt: skip

from __future__ import annotations

import datetime
import re
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from conformance_models import MIDDLE, RECIPES, VOCABULARY, build
from studies import RESULTS
from tokenizers import Tokenizer, models, pre_tokenizers
from transformer_lens.model_bridge import TransformerBridge
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase, PreTrainedTokenizerFast
from transformers.utils import logging

import mechunlearn as mu
from mechunlearn.errors import UserError
from mechunlearn.facts import tokenize
from mechunlearn.models import hf, slots
from mechunlearn.runs import versions
from mechunlearn.sites import Site, available, default, resolve

FACTS = [("w5 w6 w7", "w8"), ("w15 w16", "w17 w18"), ("w25 w26 w27 w28 w29 w30 w31", "w29"), ("w40", "w41 w42 w43")]
PLANTED = {  # what each site brings back of a change in the last matrix of one MLP
    "block": 1.0, "mlp_output": 1.0, "expert_value_vectors": 1.0,
    "mlp_coefficients": 0.0, "mlp_keys": 0.0, "expert_keys": 0.0, "router": 0.0,
}  # fmt: skip
ALLOWED = 1e-3  # of the distance between the models
RIGHT, NAMED, REFUSED, WRONG = "right with defaults", "right with named sites", "named error", "WRONG"


def main(names: list[str]) -> None:
    warnings.filterwarnings("ignore")
    logging.set_verbosity_error()
    rows = []
    for name in names or RECIPES:
        rows.append({"model": name, **tried(name)})
        print(*rows[-1].values(), sep=" | ", flush=True)
    if not names:
        write(pd.DataFrame(rows))


def tried(name: str) -> dict[str, object]:
    """What came of one recipe: the class, the result, the largest error, which sites were checked, and the message."""
    words = _words()
    plain = build(name), _planted(name)
    found: dict[str, object] = {
        "class": type(plain[0]).__name__,
        "result": WRONG,
        "error": float("nan"),
        "sites": "",
        "message": "",
    }
    facts = mu.Facts([mu.Fact(prompt, answer) for prompt, answer in FACTS])
    try:
        before, after = (mu.load(model, tokenizer=words) for model in plain)
        has = [site for site, there in available(after).items() if there]
    except UserError as error:
        return found | {"result": REFUSED, "message": str(error)}
    except Exception as error:  # a traceback is a result here
        return found | {"message": f"{type(error).__name__}: {error}"}

    result, message = RIGHT, ""
    for attempt in (default, lambda _: has):
        try:
            both = list(dict.fromkeys([*attempt(after), *has]))
            dissected = mu.dissect(before, after, facts, sites=both, windows="single", progress=False)
            sites = both
            break
        except UserError as error:
            result, message = NAMED, str(error)
        except Exception as error:
            return found | {"message": f"{type(error).__name__}: {error}"}
    else:
        return found | {"result": REFUSED, "message": message}
    worst, fault = _compared(dissected.frame, sites, before, after, plain, facts)
    found |= {"error": worst, "sites": ", ".join(sites)}
    return found | ({"message": fault} if fault else {"result": result, "message": message})


def _planted(name: str) -> PreTrainedModel:
    """The same model with a change in the last matrix of the middle block's MLP."""
    changed = build(name)
    draw = torch.Generator().manual_seed(7)
    places = [(path, p) for path, p in changed.named_parameters()
              if re.search(RECIPES[name].down, path) and re.search(rf"\.{MIDDLE}\.", path) and p.dim() > 1]  # fmt: skip
    assert places, f"{name}: no parameter to plant the change in"
    with torch.no_grad():
        for _, parameter in places:
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=draw))
    return changed


@torch.no_grad()
def _compared(
    frame: pd.DataFrame,
    sites: list[str],
    before: TransformerBridge,
    after: TransformerBridge,
    plain: tuple[PreTrainedModel, PreTrainedModel],
    facts: mu.Facts,
) -> tuple[float, str]:
    """The largest difference from plain passes, as a share of the models' distance, and what is wrong, if anything."""
    told = frame[frame["metric"] == "mse"]
    places = zip(told["site"], told["first_layer"], told["fact"], strict=True)
    distance = dict(zip(places, told["distance"].astype(float), strict=True))
    rows = [tokenize(mu.Facts([fact]), before.tokenizer) for fact in facts]
    given = [_logits(plain[0], row) for row in rows]
    apart = [float((_logits(plain[1], row) - want).pow(2).mean()) for row, want in zip(rows, given, strict=True)]
    worst, middle = 0.0, {}
    for name in sites:
        site = resolve(name, after)
        for layer, computed in _patched(site, before, after, plain, rows):
            for fact, logits, want, far in zip(facts, computed, given, apart, strict=True):
                error = abs(distance[name, layer, fact.id] - float((logits - want).pow(2).mean())) / far
                worst = max(worst, error)
                if not error <= ALLOWED:
                    return worst, f"{name}, block {layer}: off by {error:.2g} of the models' distance"
            if layer == MIDDLE:
                middle[name] = 1 - sum(distance[name, layer, fact.id] for fact in facts) / sum(apart)
    for name, right in PLANTED.items():
        if name in middle and abs(middle[name] - right) > ALLOWED:
            return worst, f"{name} brings back {middle[name]:.3f} of the planted change, not {right:g}"
    return worst, ""


def _patched(
    site: Site,
    before: TransformerBridge,
    after: TransformerBridge,
    plain: tuple[PreTrainedModel, PreTrainedModel],
    rows: list,
) -> Iterator[tuple[int, list[torch.Tensor]]]:
    """For every window of one block, each fact's logits under the patch, from plain passes."""
    for layer in site.layers() if site.layered else (-1,):
        if site.kind == "activation":
            yield layer, [_hooked(before, after, site.hooks[layer], row) for row in rows]
            continue
        names = [slot.name for slot in site.slots if not site.layered or slot.layer == layer]
        donor, recipient = (dict(model.named_parameters()) for model in plain)
        run = plain[1]
        if not set(names) <= set(recipient):  # a part of a fused matrix, which only the bridge has by itself
            donor, recipient = ({slot.name: slot.tensor for slot in slots(model)} for model in (before, after))
            run = hf(after)
        kept = {name: recipient[name].clone() for name in names}
        for name in names:
            recipient[name].copy_(donor[name])
        yield layer, [_logits(run, row) for row in rows]
        for name, tensor in kept.items():
            recipient[name].copy_(tensor)


def _hooked(before: TransformerBridge, after: TransformerBridge, hooks: tuple[str, ...], row) -> torch.Tensor:
    _, cache = before.run_with_cache(row.ids, names_filter=list(hooks))
    writes: Any = [(name, lambda _, hook: cache[hook.name]) for name in hooks]
    return after.run_with_hooks(row.ids, fwd_hooks=writes)[row.predicts].double()


def _logits(model: PreTrainedModel, row) -> torch.Tensor:
    return model(input_ids=row.ids, use_cache=False).logits[row.predicts].double()


def _words() -> PreTrainedTokenizerBase:
    """One token a word."""
    entries = {
        word: number for number, word in enumerate(["<pad>", "<s>", "</s>", *(f"w{i}" for i in range(3, VOCABULARY))])
    }
    core = Tokenizer(models.WordLevel(entries, unk_token="<pad>"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    with tempfile.TemporaryDirectory() as folder:
        PreTrainedTokenizerFast(
            tokenizer_object=core, bos_token="<s>", eos_token="</s>", pad_token="<pad>", unk_token="<pad>"
        ).save_pretrained(folder)
        return AutoTokenizer.from_pretrained(folder)


def write(rows: pd.DataFrame) -> None:
    rows.to_csv(RESULTS / "conformance.csv", index=False)
    counts = rows["result"].value_counts()
    said = ", ".join(f"{counts.get(result, 0)} {result}" for result in (RIGHT, NAMED, REFUSED, WRONG))
    used = ", ".join(f"{name} {version}" for name, version in versions().items())
    table = rows.drop(columns=["sites"]).assign(
        error=rows["error"].map(lambda e: "" if pd.isna(e) else f"{e:.0e}"),
        message=rows["message"].fillna("").map(lambda text: str(text).replace("|", "/").replace("\n", " ")[:160]),
    )
    text = PAGE.format(
        n=len(rows), said=said, date=datetime.date.today().isoformat(), used=used, table=table.to_markdown(index=False)
    )
    Path(RESULTS / "conformance.md").write_text(text, encoding="utf-8")


PAGE = """# Which architectures it holds on

`python analyses/conformance.py`, {date} ({used}). {n} tiny configurations: {said}.

*Right* is meant literally: every patch of every site gives the logits of a plain pass, and a change planted in the last
matrix of the middle block's MLP is found there; how, says the script. `error` is the largest difference from the plain
pass, as a share of the distance between the models. *Named error*: the package refuses with the message beside.

{table}
"""

if __name__ == "__main__":
    main(sys.argv[1:])
