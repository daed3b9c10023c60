"""A stand-in for Llama Guard 3 and ai4privacy's sets: in the form in which the hub has them, small and made here."""

import copy
import json
import re
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM

from tests.data.made import row_200k
from tools.corpus.compose import generate

ROPE = {"rope_type": "llama3", "low_freq_factor": 1.0, "high_freq_factor": 4.0}
ROPE["original_max_position_embeddings"] = 8192
PUBLISHED = {
    "meta-llama/Llama-Guard-3-8B": {"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32}
    | {"tie_word_embeddings": False, "rope_scaling": ROPE | {"factor": 8.0}},
    "meta-llama/Llama-Guard-3-1B": {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16}
    | {"tie_word_embeddings": True, "rope_scaling": ROPE | {"factor": 32.0}},
}
"""What the configs on the hub say of the two models."""
GUARD_3 = Path(__file__).with_name("llama_guard_3.jinja").read_text(encoding="utf-8")
TEMPLATES = {
    "meta-llama/Llama-Guard-3-8B": GUARD_3.replace("<|begin_of_text|>", " <|begin_of_text|>"),
    "meta-llama/Llama-Guard-3-1B": GUARD_3.replace("S14: Code Interpreter Abuse.\n", "{{ excluded_category_keys }}")
    .replace("<|eot_id|>", " <|eot_id|>")
    .replace("message.content.strip()", "message.content | map(attribute='text') | join | trim"),
}
"""What the chat templates on the hub make of a conversation: of texts with 8B, of lists of parts with 1B."""
SMALL = {"hidden_size": 128, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2}
LABELS_65K = {"PHONENUMBER": "PHONE_NUMBER", "COMPANYNAME": "COMPANY_NAME"}
ONLY_200K = {"AGE", "DOB", "EYECOLOR", "HEIGHT"}


def config_of(name: str, **other: Any) -> LlamaConfig:
    """The published config of a model, with other values."""
    fixed = {"vocab_size": 128256, "rope_theta": 500000.0, "rms_norm_eps": 1e-5, "max_position_embeddings": 131072}
    tokens = {"bos_token_id": 128000, "eos_token_id": 128009, "pad_token_id": None}
    heads = {"num_attention_heads": 32, "num_key_value_heads": 8}
    return LlamaConfig(**fixed | tokens | heads | PUBLISHED[name] | other)


def write_model(root: Path, name: str, tokenizer: Any) -> None:
    """Writes a small model of that name as the hub has it: 8B in four shards, 1B with a copy of its embedding."""
    # Weights in four bits come in blocks of 16,384, which a projection of fewer key heads would not fill.
    config = config_of(name, **SMALL, num_key_value_heads=2 if name.endswith("8B") else 1)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = LlamaForCausalLM(config).to(torch.bfloat16)
    folder = root / name
    if name.endswith("8B"):
        model.save_pretrained(folder, max_shard_size="300KB")
    else:
        model.save_pretrained(folder)
        weights = load_file(folder / "model.safetensors")
        weights["lm_head.weight"] = weights["model.embed_tokens.weight"].clone()
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    own = copy.copy(tokenizer)
    own.eos_token = "<|eot_id|>"
    own.chat_template = TEMPLATES[name]
    own.save_pretrained(folder)


def write_rows(root: Path, count: int) -> None:
    """Writes rows of both schemas with oddities of the wild.

    Pieces of words, brackets that are no label, placeholders side by side, labels cut off with their tokens, masks as
    JSON text, BOM, CRLF.
    """
    rows = list(generate(count, split="train", seed=11))
    for row in rows:
        row["language"] = "en"
        row["label_index"] = {}
    rows[0]["source_text"] += " [see note]"
    rows[0]["target_text"] += " [see note]"
    rows[1] |= row_200k("<FIRSTNAME|Ann><LASTNAME|Lee>")
    folder = root / "ai4privacy"
    folder.mkdir()
    short = [_in_65k(row) for row in rows]
    for name in ("tokenised_unmasked_text", "token_entity_labels"):
        short[2][name] = short[2][name][:-3]
    for row in rows[::3]:
        row["privacy_mask"] = json.dumps(row["privacy_mask"])
    for name, made in (("200k", rows), ("65k", short)):
        lines = "\r\n".join(json.dumps(row) for row in made)
        (folder / f"pii-masking-{name}.jsonl").write_text(lines + "\r\n", encoding="utf-8-sig", newline="")


def _in_65k(row: dict[str, Any]) -> dict[str, Any]:
    """A row of the 200k schema in that of 65k, whose values have tags of tokens in place of offsets."""
    text, tokens, tags, masked, done = row["source_text"], list[str](), list[str](), "", 0

    def add(part: str, label: str) -> None:
        for number, found in enumerate(re.finditer(r"((?<=\w))?\w{1,5}|[^\w\s]", part)):
            tokens.append(found[0] if found[1] is None else f"##{found[0]}")
            tags.append(f"{'I' if number else 'B'}-{label}" if label else "O")

    for mask in sorted(row["privacy_mask"], key=lambda mask: mask["start"]):
        label = LABELS_65K.get(mask["label"], mask["label"])
        if label in ONLY_200K:
            continue
        add(text[done : mask["start"]], "")
        add(mask["value"], label)
        masked += f"{text[done : mask['start']]}[{label}_1]"
        done = mask["end"]
    add(text[done:], "")
    return {
        "unmasked_text": text,
        "masked_text": masked + text[done:],
        "tokenised_unmasked_text": tokens,
        "token_entity_labels": tags,
    }
