"""Hand-made rows of both schemas."""

import json
import re
from pathlib import Path
from typing import Any

Row = dict[str, Any]


def row_200k(marked: str, number: int = 1, **more: Any) -> Row:
    """Makes a row of the 200k schema from text with `<LABEL|value>` marks."""
    text, mask, done = "", [], 0
    for mark in re.finditer(r"<(\w+)\|([^>]*)>", marked):
        text += marked[done : mark.start()]
        mask.append({"value": mark[2], "start": len(text), "end": len(text) + len(mark[2]), "label": mark[1]})
        text, done = text + mark[2], mark.end()
    target = re.sub(r"<(\w+)\|[^>]*>", r"[\1]", marked)
    row = {"source_text": text + marked[done:], "target_text": target, "privacy_mask": mask}
    return row | {"language": "en", "id": str(number)} | more


def row_65k(**changes: Any) -> Row:
    """Makes a row of the 65k schema."""
    return {
        "unmasked_text": "Ask Zoë Brandl on 555-0101.",
        "masked_text": "Ask [FULLNAME_1] on [PHONE_NUMBER_1].",
        "tokenised_unmasked_text": ["ask", "zoe", "bran", "##dl", "on", "555", "-", "0101", "."],
        "token_entity_labels": [
            *("O", "B-FULLNAME", "I-FULLNAME", "I-FULLNAME", "O"),
            *("B-PHONE_NUMBER", "I-PHONE_NUMBER", "I-PHONE_NUMBER", "O"),
        ],
    } | changes


def write_jsonl(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def assert_exact(row: Row) -> None:
    """The spans of a row of the 200k schema stand in order at their offsets, and its target text masks just them."""
    text, masked, end = row["source_text"], "", 0
    assert text and text == text.strip()
    for span in row["privacy_mask"]:
        assert end <= span["start"] < span["end"] <= len(text), "in order, none empty, none overlapping"
        assert text[span["start"] : span["end"]] == span["value"]
        masked += f"{text[end : span['start']]}[{span['label']}]"
        end = span["end"]
    assert row["target_text"] == masked + text[end:]
