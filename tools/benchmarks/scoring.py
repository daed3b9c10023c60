"""Prompts a second: the reference's loop (one prompt, greedy `generate`) against exact scoring of every verdict.

    python -m tools.benchmarks.scoring --profile laptop --part independent

Same model, same prompts, same machine, one run; the answers are compared. Run notebook 03 first. The ratio depends on
the length of the texts: `--part test` takes the longer ones of the embedded corpus.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import torch
from tqdm.auto import tqdm

from guard_utils.data import load_splits
from guard_utils.policy import ParseFailure, Verdict, parse
from guard_utils.profiles import resolve
from guard_utils.prompt import GuardPrompt
from guard_utils.scoring import GuardScorer, load_model
from guard_utils.training import checkpoint
from tools.benchmarks.figures import write_benchmark


def reference_loop(model: Any, tokenizer: Any, prompt: GuardPrompt, texts: list[str]) -> list[Verdict | ParseFailure]:
    """Answers one prompt after another with greedy decoding, as the reference tutorial does."""
    answers = []
    for text in tqdm(texts, desc="reference loop"):
        ids = torch.tensor([prompt.segments(text).ids], device=model.device)
        with torch.inference_mode():
            output = model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=100,
                do_sample=False,
                eos_token_id=prompt.end_id,
                pad_token_id=prompt.end_id,
            )
        answers.append(parse(tokenizer.decode(output[0, ids.shape[1] :], skip_special_tokens=True), prompt.policy))
    return answers


def main() -> None:
    """Times both ways and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", default="laptop")
    parser.add_argument("--part", choices=["independent", "test"], default="independent", help="texts to score")
    parser.add_argument("--rows", type=int, default=128)
    parser.add_argument("--dtype", choices=["fp32", "bf16"], help="default: the profile's")
    parser.add_argument("--output", type=Path, help="write the figures to this JSON file")
    arguments = parser.parse_args()
    run = resolve(arguments.profile)
    dtype = arguments.dtype or run.dtype
    model, tokenizer = load_model(checkpoint(run), dtype=dtype, device=run.device)
    prompt = GuardPrompt(run.policy, tokenizer)
    texts = [example.text for example in getattr(load_splits(run), arguments.part)[: arguments.rows]]
    GuardScorer(model, prompt).score(texts[:4], progress=False)  # warms both up
    reference_loop(model, tokenizer, prompt, texts[:1])

    start = time.perf_counter()
    scores = GuardScorer(model, prompt).score(texts)
    ours = len(texts) / (time.perf_counter() - start)
    start = time.perf_counter()
    answers = reference_loop(model, tokenizer, prompt, texts)
    reference = len(texts) / (time.perf_counter() - start)

    parsed = [(a, b) for a, b in zip(answers, scores.best, strict=True) if isinstance(a, Verdict)]
    figures = {
        "part": arguments.part,
        "rows": len(texts),
        "tokens_of_a_text": round(sum(len(prompt.segments(text).conversation_ids) for text in texts) / len(texts), 1),
        "reference_prompts_per_second": reference,
        "ours_prompts_per_second": ours,
        "ratio": ours / reference,
        "reference_parse_failures": len(texts) - len(parsed),
        "equal_verdicts": sum(a == b for a, b in parsed),
        "dtype": dtype,
        "device": run.device,
        "threads": torch.get_num_threads(),
    }
    write_benchmark(figures, arguments.output)


if __name__ == "__main__":
    main()
