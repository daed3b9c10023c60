"""Fixtures that several test files share; models and tokenizers are made or loaded once a session."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from guard_utils.files import fetch

LONGEST = [f"test_{name}" for name in "notebook_runs rehearsal resume own_policy distributed committed scorer".split()]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts the files that take longest first, so that two workers end together."""
    items.sort(key=lambda item: LONGEST.index(item.path.stem) if item.path.stem in LONGEST else len(LONGEST))


@pytest.fixture(scope="session")
def smoke_folder() -> Path:
    """The tiny random model with SmolLM2's tokenizer."""
    return fetch("smoke")


@pytest.fixture(scope="session")
def smol_tokenizer(smoke_folder: Path) -> Any:
    """SmolLM2's tokenizer (ChatML)."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(smoke_folder)


@pytest.fixture(scope="session")
def llama3_tokenizer() -> Any:
    """The tokenizer of Llama 3, from its original file, as Llama Guard's repository has it."""
    from transformers import PreTrainedTokenizerFast
    from transformers.convert_slow_tokenizer import TikTokenConverter

    special = {0: "begin_of_text", 1: "end_of_text", 6: "start_header_id", 7: "end_header_id", 9: "eot_id"}
    names = [f"<|{special.get(i, f'reserved_special_token_{i}')}|>" for i in range(256)]
    file = fetch("llama3-tokenizer") / "tokenizer.model"
    converter = TikTokenConverter(str(file), extra_special_tokens=names)  # its pattern is Llama 3's
    return PreTrainedTokenizerFast(tokenizer_object=converter.converted())


@pytest.fixture(scope="session")
def tiny_torchtune() -> Callable[..., Any]:
    """Makes a torchtune Llama of two layers in fp32, full or with LoRA; the same weights at each call.

    LoRA's B matrices, zero at first, are drawn too: otherwise A would have no gradient to compare.
    """
    import torch
    from torchtune.models.llama3_2 import llama3_2, lora_llama3_2
    from torchtune.modules.peft import get_adapter_params, set_trainable_params

    shape: dict[str, Any] = {"vocab_size": 96, "num_layers": 2, "num_heads": 4, "num_kv_heads": 2, "embed_dim": 32}
    shape |= {"max_seq_len": 1024, "intermediate_dim": 64, "scale_factor": 1}

    def make(*, lora: bool = False, **overrides: Any) -> Any:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            if not lora:
                return llama3_2(**shape | overrides)
            modules = ["q_proj", "k_proj", "v_proj", "output_proj"]
            model = lora_llama3_2(modules, apply_lora_to_mlp=True, lora_rank=4, lora_alpha=8, **shape | overrides)
            adapter = get_adapter_params(model)
            for parameter in adapter.values():
                torch.nn.init.normal_(parameter, std=0.3)
            set_trainable_params(model, adapter)
            return model

    return make
