"""Checkpoints and chat templates that are broken: name, and what makes it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bad_files import (
    DEEP,
    Make,
    adapter,
    chat,
    config,
    cut,
    file_of_model,
    model,
    nothing,
    safetensors,
    taken,
    tokenizer,
    weights,
    write,
)

BIG = 1_000_000
CONFIGS: dict[str, dict[str, Any]] = {
    "layers-million": {"num_hidden_layers": BIG}, "layers-negative": {"num_hidden_layers": -1},
    "layers-zero": {"num_hidden_layers": 0}, "layers-more": {"num_hidden_layers": 8},
    "layers-fewer": {"num_hidden_layers": 4},
    "layers-text": {"num_hidden_layers": "six"}, "layers-half": {"num_hidden_layers": 2.5},
    "hidden-zero": {"hidden_size": 0}, "hidden-negative": {"hidden_size": -128}, "hidden-huge": {"hidden_size": BIG},
    "hidden-text": {"hidden_size": "128"}, "hidden-other": {"hidden_size": 64}, "hidden-list": {"hidden_size": [128]},
    "heads-odd": {"num_attention_heads": 3}, "heads-zero": {"num_attention_heads": 0},
    "heads-text": {"num_attention_heads": "x"},
    "kv-zero": {"num_key_value_heads": 0}, "kv-odd": {"num_key_value_heads": 3}, "kv-more": {"num_key_value_heads": 8},
    "head-dim-zero": {"head_dim": 0}, "head-dim-odd": {"head_dim": 31}, "head-dim-negative": {"head_dim": -32},
    "vocab-zero": {"vocab_size": 0}, "vocab-huge": {"vocab_size": 10**10}, "vocab-less": {"vocab_size": 1000},
    "vocab-negative": {"vocab_size": -5}, "mlp-zero": {"intermediate_size": 0},
    "mlp-huge": {"intermediate_size": 10**9},
    "eps-text": {"rms_norm_eps": "x"}, "eps-negative": {"rms_norm_eps": -5.0}, "eps-huge": {"rms_norm_eps": 1e300},
    "type-unknown": {"model_type": "nope"}, "type-number": {"model_type": 7}, "type-list": {"model_type": ["llama"]},
    "type-other": {"model_type": "gpt2"}, "type-encoder": {"model_type": "bert", "architectures": ["BertModel"]},
    "type-speech": {"model_type": "whisper", "architectures": ["WhisperForConditionalGeneration"]},
    "type-remote": {"model_type": "mine",
    "auto_map": {"AutoConfig": "mine.Config", "AutoModelForCausalLM": "mine.Model"}},
    "theta-zero": {"rope_parameters": {"rope_theta": 0, "rope_type": "default"}},
    "theta-text": {"rope_parameters": {"rope_theta": "x", "rope_type": "default"}},
    "theta-negative": {"rope_parameters": {"rope_theta": -10.0, "rope_type": "default"}},
    "rope-unknown": {"rope_parameters": {"rope_theta": 10000.0, "rope_type": "nope"}},
    "rope-list": {"rope_parameters": [1]}, "rope-text": {"rope_parameters": "x"},
    "rope-yarn-without-factor": {"rope_parameters": {"rope_theta": 10000.0, "rope_type": "yarn"}},
    "activation-unknown": {"hidden_act": "nope"}, "activation-number": {"hidden_act": 5},
    "context-zero": {"max_position_embeddings": 0}, "context-negative": {"max_position_embeddings": -1},
    "context-text": {"max_position_embeddings": "x"}, "context-tiny": {"max_position_embeddings": 3},
    "tied-text": {"tie_word_embeddings": "x"}, "tied-with-head": {"tie_word_embeddings": True},
    "bias": {"attention_bias": True}, "mlp-bias": {"mlp_bias": True}, "pad-outside": {"pad_token_id": 99999},
    "pad-negative": {"pad_token_id": -7}, "dtype-unknown": {"dtype": "float3"}, "dtype-number": {"dtype": 5},
    "architecture-unknown": {"architectures": ["Nope"], "model_type": None},
    "architectures-text": {"architectures": "x"},
    "quantised-bitsandbytes": {"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}},
    "quantised-gptq": {"quantization_config": {"quant_method": "gptq", "bits": 4, "group_size": 128}},
    "quantised-awq": {"quantization_config": {"quant_method": "awq", "bits": 4}},
    "quantised-fp8": {"quantization_config": {"quant_method": "fp8"}},
    "quantised-compressed": {"quantization_config": {"quant_method": "compressed-tensors"}},
    "quantised-unknown": {"quantization_config": {"quant_method": "nope"}},
    "quantised-no-method": {"quantization_config": {"bits": 4}}, "quantised-list": {"quantization_config": [4]},
    "quantised-text": {"quantization_config": "4bit"},
    "quantised-empty": {"quantization_config": {"quant_method": None}},
}  # fmt: skip


def _every(tensors: dict[str, Any], change: Callable[[Any], Any]) -> None:
    tensors.update({name: change(tensor) for name, tensor in tensors.items()})


NORM, DOWN, HEAD = "model.norm.weight", "model.layers.3.mlp.down_proj.weight", "lm_head.weight"
HEADER = b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}'
MODELS: dict[str, Make] = {f"config-{name}": config(**values) for name, values in CONFIGS.items()}
MODELS |= {
    f"config-{name}": file_of_model("config.json", content)
    for name, content in {
        "empty": "", "cut": '{"model_type": "llama",', "list": "[]", "null": "null", "number": "5", "text": '"llama"',
        "empty-object": "{}", "binary": b"\xff\xfe\0\1", "utf-16": '{"model_type": "llama"}'.encode("utf-16"),
        "deep": '{"model_type": "llama", "x": ' + "[" * DEEP + "]" * DEEP + "}", "nul": b"\0" * 50,
        "long-number": '{"model_type": "llama", "x": ' + "9" * 5000 + "}",
        "half": '{"model_type": "llama\\ud800"}', "nan": '{"model_type": "llama", "hidden_size": NaN}',
    }.items()
}  # fmt: skip
MODELS |= {
    f"weights-{name}": file_of_model("model.safetensors", content)
    for name, content in {
        "empty": b"", "random": bytes(range(256)) * 40, "html": b"<html>404</html>", "short": b"\0" * 4,
        "lfs-pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5747104\n",
        "header-huge": safetensors(HEADER, length=2**62), "header-cut": safetensors(HEADER, length=len(HEADER) + 50),
        "header-list": safetensors(b"[]"), "header-text": safetensors(b"not json at all"),
        "header-deep": safetensors(b"[" * DEEP),
        "header-no-tensor": safetensors(b"{}"), "body-missing": safetensors(HEADER),
        "body-short": safetensors(HEADER, b"\0" * 4),
        "shape-huge": safetensors(b'{"a":{"dtype":"F32","shape":[9999999999,9999999999],"data_offsets":[0,8]}}',
        b"\0" * 8),
        "dtype-unknown": safetensors(b'{"a":{"dtype":"X9","shape":[2],"data_offsets":[0,8]}}', b"\0" * 8),
    }.items()
}  # fmt: skip
MODELS |= {
    "weights-cut": model(lambda: cut("broken/model.safetensors")),
    "weights-folder": model(lambda: (Path("broken/model.safetensors").unlink(),
    Path("broken/model.safetensors").mkdir())),
    "weights-fifo": model(lambda: (Path("broken/model.safetensors").unlink(), os.mkfifo("broken/model.safetensors"))),
    "weights-missing-tensor": weights(lambda held: held.pop(DOWN)),
    "weights-extra-tensor": weights(lambda held: held.update(extra=held[NORM].clone())),
    "weights-nan": weights(lambda held: held[DOWN].fill_(float("nan"))),
    "weights-one-infinite": weights(lambda held: held[DOWN][0].fill_(float("inf"))),
    "weights-huge": weights(lambda held: _every(held, lambda tensor: tensor * 1e38)),
    "weights-other-shape": weights(lambda held: held.update({DOWN: held[DOWN][:, :100].clone()})),
    "weights-transposed": weights(lambda held: held.update({DOWN: held[DOWN].T.contiguous()})),
    "weights-flat": weights(lambda held: held.update({NORM: held[NORM][None].clone()})),
    "weights-scalar": weights(lambda held: held.update({NORM: held[NORM].sum()})),
    "weights-empty-tensor": weights(lambda held: held.update({NORM: held[NORM][:0].clone()})),
    "weights-peft-names": weights(
        lambda held: [held.update({f"base_model.model.{name}": held.pop(name)}) for name in list(held)]
    ),
    "weights-lora": weights(lambda held: held.update({DOWN.replace("weight", "lora_A.weight"): held[DOWN].clone()})),
    "weights-head-of-other-vocabulary": weights(lambda held: held.update({HEAD: held[HEAD][:1000].clone()})),
    "weights-pickled": model(lambda: Path("broken/model.safetensors").rename("broken/pytorch_model.bin")),
    "weights-none": model(lambda: Path("broken/model.safetensors").unlink()),
    "index-broken": model(write("broken/model.safetensors.index.json", "{"),
    lambda: Path("broken/model.safetensors").unlink()),
    "index-missing-shard": model(
        write("broken/model.safetensors.index.json", json.dumps({"weight_map": {NORM: "gone.safetensors"}})),
        lambda: Path("broken/model.safetensors").rename("broken/other.safetensors"),
    ),
    "index-list": model(
        write("broken/model.safetensors.index.json", "[]"),
        lambda: Path("broken/model.safetensors").rename("broken/other.safetensors"),
    ),
    "tokenizer-none": model(
        lambda: [Path(f"broken/{name}").unlink() for name in ("tokenizer.json", "tokenizer_config.json")]
    ),
    "tokenizer-config-alone": model(lambda: Path("broken/tokenizer.json").unlink()),
    "tokenizer-model-null": tokenizer(lambda held: held.update(model=None)),
    "tokenizer-vocab-empty": tokenizer(lambda held: held["model"].update(vocab={})),
    "tokenizer-vocab-list": tokenizer(lambda held: held["model"].update(vocab=[])),
    "tokenizer-ids-negative": tokenizer(lambda held: held["model"]["vocab"].update(Zz=-1)),
    "tokenizer-ids-huge": tokenizer(lambda held: held["model"]["vocab"].update(Zz=2**40)),
    "tokenizer-larger": tokenizer(
        lambda held: held["model"].update(vocab={word: (at + 5000 if at > 20 else at) for word,
        at in held["model"]["vocab"].items()})
    ),
    "tokenizer-added-outside": tokenizer(lambda held: held["added_tokens"].append(dict(held["added_tokens"][0], id=9000,
    content=" is"))),
    "tokenizer-merges-broken": tokenizer(lambda held: held["model"].update(merges=[["a"], 5])),
    "tokenizer-type-unknown": tokenizer(lambda held: held["model"].update(type="Nope")),
    "tokenizer-max-length-zero": tokenizer(lambda held: held.update(model_max_length=0, truncation_side="x"),
    "tokenizer_config.json"),
    "tokenizer-class-unknown": tokenizer(lambda held: held.update(tokenizer_class=["x"]), "tokenizer_config.json"),
    "tokenizer-side-unknown": tokenizer(lambda held: held.update(padding_side="up"), "tokenizer_config.json"),
    "tokenizer-bos-number": tokenizer(lambda held: held.update(bos_token=5), "tokenizer_config.json"),
    "tokenizer-bos-object": tokenizer(lambda held: held.update(bos_token={"x": 1}), "tokenizer_config.json"),
    "empty-folder": lambda: Path("broken").mkdir(),
    "a-file": write("broken", "x"),
    "missing": nothing,
    "fifo": lambda: os.mkfifo("broken"),
    "loop-of-links": lambda: Path("broken").symlink_to("broken"),
    "config-folder": model(lambda: (Path("broken/config.json").unlink(), Path("broken/config.json").mkdir())),
    "config-fifo": model(lambda: (Path("broken/config.json").unlink(), os.mkfifo("broken/config.json"))),
    "config-missing": model(lambda: Path("broken/config.json").unlink()),
    "generation-config-broken": file_of_model("generation_config.json", "{"),
    "generation-config-list": file_of_model("generation_config.json", "[]"),
    "run-folder": taken("unlearning", name="broken"),
    "gguf-alone": lambda: (Path("broken").mkdir(), write("broken/model.gguf", "GGUF")()),
}  # fmt: skip
MODELS |= {
    f"tokenizer-file-{name}": file_of_model("tokenizer.json", content)
    for name, content in {"empty": "", "cut": '{"version": "1.0"', "list": "[]", "null": "null", "binary": b"\xff\0",
                          "deep": "[" * DEEP + "]" * DEEP, "empty-object": "{}"}.items()
}  # fmt: skip
MODELS |= {
    f"tokenizer-config-{name}": file_of_model("tokenizer_config.json", content)
    for name, content in {"cut": "{", "list": "[]", "null": "null", "deep": '{"x": ' + "[" * DEEP + "]" * DEEP + "}",
                          "binary": b"\xff\0", "long-number": '{"x": ' + "9" * 5000 + "}"}.items()
}  # fmt: skip
MODELS |= {
    f"adapter-{name}": adapter(content, with_weights=with_weights)
    for name, content, with_weights in (
        ("empty", "", False), ("list", "[]", False), ("no-base", "{}", False),
        ("base-null", '{"base_model_name_or_path": null}', False),
        ("base-list", '{"base_model_name_or_path": [1]}', False),
        ("base-gone", '{"base_model_name_or_path": "gone"}', True),
        ("good-base", '{"base_model_name_or_path": "organism"}', True), ("deep", "[" * DEEP + "]" * DEEP, False),
        ("half", '{"base_model_name_or_path": "\\ud800"}', False), ("long-number", '{"x": ' + "9" * 5000 + "}", False),
    )
}  # fmt: skip

LOOP = "".join(f"{{% for {name} in range(99999) %}}" for name in "ijk") + "{% endfor %}" * 3
CHATS: dict[str, Make] = {
    name: chat(template, **more)
    for name, template, more in (
        ("raises", "{{ raise_exception('no system turns here') }}", {}), ("syntax", "{% if %}", {}),
        ("open", "{{ messages", {}),
        ("undefined", "{{ messages[7].content.nope.nope }}", {}), ("empty", "", {}), ("constant", "hello", {}),
        ("no-prompt", "{{ messages[1].content }}", {}), ("no-answer", "{{ messages[0].content }}", {}),
        ("twice", "{% for m in messages %}{{ m.content }}{{ m.content }}{% endfor %}", {}),
        ("capitals", "{% for m in messages %}{{ m.content|upper }}{% endfor %}", {}),
        ("cut-answer", "{{ messages[0].content }}{{ messages[1].content[:3] }}", {}), ("loop", LOOP, {}),
        ("range", "{% for i in range(10**12) %}{% endfor %}", {}), ("large", "{{ 'x' * 10**10 }}", {}),
        ("larger", "{{ ('x' * 10**9) * 10**9 }}", {}), ("power", "{{ 10**10**9 }}", {}),
        ("doubling", "{% set ns = namespace(s='x' * 1000) %}"
         "{% for i in range(60) %}{% set ns.s = ns.s + ns.s %}{% endfor %}{{ ns.s }}", {}),
        ("unsafe", "{{ ().__class__.__base__.__subclasses__() }}", {}), ("division", "{{ 1 / 0 }}", {}), ("recursion",
         "{% macro m(n) %}{{ m(n + 1) }}{% endmacro %}{{ m(0) }}", {}), ("include", "{% include 'x' %}", {}),
        ("half", "{{ messages[0].content }}{{ '\\ud800' }}{{ messages[1].content }}", {}),
        ("deep", "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}", {}),
        ("padding", "{{ '%2000000000d' % 5 }}{{ messages[0].content }}", {}),
        ("binary-filter", "{{ messages|tojson|nope }}", {}),
        ("arguments", "{{ messages[0].content }}{{ messages[1].content }}", {"arguments": {"tokenize": True}}),
        ("arguments-own", "{{ messages[0].content }}{{ messages[1].content }}", {"arguments": {"messages": 5}}),
    )
}  # fmt: skip
