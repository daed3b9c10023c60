"""Policies and rows of one's own: what is read, and what is refused with file, row, field and fix."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from guard_utils.data.examples import Span
from guard_utils.data.labels import LabelMap, LabelRule
from guard_utils.data.own_rows import own_examples
from guard_utils.data.rows import DataError
from guard_utils.data.splits import load_splits
from guard_utils.policy import find_policy
from guard_utils.profiles import PROFILES, ProfileError, repository, resolve

PETS = "name: pets\ncategories:\n  - name: Cat\n    description: A cat.\n  - name: Dog\n"
MAP = LabelMap("pets", (LabelRule("CAT", "S1", ""), LabelRule("FISH", None, "")))


def write(path: Path, content: str | list[dict[str, Any]]) -> Path:
    text = content if isinstance(content, str) else "".join(f"{json.dumps(row)}\n" for row in content)
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    return path


@pytest.fixture
def pets(tmp_path: Path) -> Any:
    return find_policy(write(tmp_path / "pets.yaml", PETS))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- a\n- b\n", "give 'name' and 'categories'"),
        ("name: pii\ncategories: [{name: Cat}]\n", "field 'name' is 'pii'; give a text of your own"),
        ("name: pets\ncategories: []\n", "field 'categories' is ..; give a list of 1 to 30"),
        (
            f"name: pets\ncategories: {[{'name': f'c{i}'} for i in range(31)]}\n",
            "'categories' is .*; give a list of 1 to 30",
        ),
        (f"{PETS}  - name: Cat\n", "category 3, field 'name' is 'Cat'; another has it"),
        (f"{PETS}  - description: A fish.\n", "category 3 is {'description': 'A fish.'}; give a 'name'"),
        (f'{PETS}  - name: "a\\nb"\n', "category 3, field 'name' is .*; give one line"),
        (f"{PETS}    description: A {{dog}}.\n", "category 2, field 'description' is 'A {dog}.'; give one line"),
        (f"{PETS}    description: <|eot_id|> dog\n", r"is '<\|eot_id\|> dog'; give one line"),
        ("name: [\n", "not YAML in UTF-8"),
    ],
)
def test_a_faulty_policy_is_refused_with_file_category_field_and_fix(tmp_path, text, message):
    with pytest.raises(ValueError, match=message) as refused:
        find_policy(write(tmp_path / "mine.yaml", text))
    assert str(tmp_path / "mine.yaml") in str(refused.value)
    with pytest.raises(FileNotFoundError, match="no policy 'pi'; give one of pii, llama-guard-3, or a YAML file"):
        find_policy("pi")


def test_rows_are_the_same_from_each_kind_of_file(tmp_path, pets):
    plain = [{"text": "a cat,\nold", "codes": ["S1"]}, {"text": "a cat and a dog", "codes": ["S1", "S2"]}]
    plain.append({"text": "a fish", "codes": []})
    pd.DataFrame(plain).to_parquet(tmp_path / "rows.parquet")
    files = [write(tmp_path / "rows.jsonl", plain), tmp_path / "rows.parquet"]
    # A byte-order mark, line breaks of Windows, a quoted one, no last line break.
    csv = '\ufefftext,codes\r\n"a cat,\nold",S1\r\na cat and a dog,"S2, S1"\r\na fish,'
    files.append(write(tmp_path / "rows.csv", csv))
    read = [own_examples(file, pets) for file in files]
    assert read[0] == read[1] == read[2]
    assert [example.codes for example in read[0]] == [("S1",), ("S1", "S2"), ()]
    assert len({example.template_id for example in read[0]}) == 3


def test_an_empty_cell_of_labels_is_safe(tmp_path, pets):
    file = write(tmp_path / "rows.csv", 'text,labels\na cat,"CAT,FISH"\na stone,\n')
    assert [example.codes for example in own_examples(file, pets, MAP)] == [("S1",), ()]
    file = write(tmp_path / "rows.jsonl", [{"text": "a cat", "labels": [[2, 5, "CAT"], "FISH"]}])
    assert own_examples(file, pets, MAP)[0].spans == (Span(2, 5, "CAT", "S1"), Span(-1, -1, "FISH", None))


def test_labels_responses_and_turns(tmp_path, pets):
    rows = [{"text": "Which pet?", "response": "a cat", "labels": ["CAT"]}]
    rows.append({"turns": [["User", "hi"], ["Agent", "yes?"], ["User", "hm"], ["Agent", "fish"]], "labels": ["FISH"]})
    file = write(tmp_path / "rows.jsonl", rows)
    first, second = own_examples(file, pets, MAP, role="Agent")
    assert first.conversation == (("User", "Which pet?"), ("Agent", "a cat")) and first.codes == ("S1",)
    assert second.text == "fish" and len(second.conversation) == 4 and second.codes == ()
    with pytest.raises(DataError, match=r"row 1, field 'response': roles are .* end with 'User'"):
        own_examples(file, pets, MAP)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", [{"text": "x", "codes": "S1,S2"}], "row 1, field 'codes': 'S1,S2'; write a list"),
        ("a.jsonl", [{"text": "x", "codes": ["S3"]}], "'codes': .'S3'. are not in policy 'pets', which has S1, S2"),
        ("a.jsonl", [{"text": "x"}], "field 'labels': a row needs 'codes' or 'labels'"),
        ("a.jsonl", [{"text": "x", "codes": [], "labels": ["CAT"]}], "one of them"),
        ("a.jsonl", [{"text": "x", "labels": ["BIRD"]}], "'labels': 'BIRD' is not in label map 'pets'"),
        ("a.jsonl", [{"text": "a cat", "labels": [[2, 9, "CAT"]]}], "CAT stands at 2 to 9 of a text of 5 characters"),
        ("a.jsonl", [{"text": " ", "codes": []}], "field 'text': ' '; give text"),
        ("a.jsonl", [{"text": "x" * 9000, "codes": []}], "9,000 characters"),
        ("a.jsonl", [{"text": 7, "codes": []}], "field 'text': 7; give text"),
        ("a.jsonl", [{"turns": "hi", "codes": []}, {"text": "x", "codes": []}], "'hi'; give a list of .role, text."),
        ("a.jsonl", [{"id": 1, "text": "x", "codes": []}] * 2, "row 2, field 'id': '1' is the id of row 1 too"),
        ("a.jsonl", "{}\n", "no column 'text' but ; give"),
        ("a.jsonl", '{"text": "x", "codes": []}\nnope\n', "row 2, field '': 'nope.n' is no JSON object"),
        ("a.csv", "text;codes\nx;S1\n", "but text;codes; part columns by commas"),
        ("a.csv", 'text,codes\n"x,S1\n', "after line 1: unexpected end of data; close or double"),
        ("a.csv", "text,codes\nf\udcfcr,S1\n", "row 1, field 'text': .* is not UTF-8"),
        ("a.xlsx", "PK", "is no .jsonl, .csv or .parquet file; save it as one of them, from Excel"),
        ("a.parquet", "PAR1", "can't be read .* write it again"),
    ],
)
def test_rows_that_cannot_be_used_are_named_with_the_fix(tmp_path, pets, name, content, message):
    file = write(tmp_path / name, content)
    with pytest.raises(DataError, match=message) as refused:
        own_examples(file, pets, MAP)
    assert str(file) in str(refused.value)


def test_a_profile_of_your_own_finds_its_files(tmp_path, monkeypatch):
    monkeypatch.setenv("GUARD_ARTIFACTS", str(tmp_path))
    rows = [{"text": f"a cat number {i} of street {i * 7}", "codes": ["S1"]} for i in range(200)]
    mine, policy = write(tmp_path / "mine.jsonl", rows), write(tmp_path / "pets.yaml", PETS)
    profile = replace(PROFILES["smoke"], name="mine", config="smoke", policy=str(policy), train_data=str(mine))
    run = resolve(profile)
    splits = load_splits(run)
    assert run.policy.name == "pets" and run.config_path.name == "smoke.yaml"
    assert len(splits.train) == 96 and 10 < len(splits.validation) < 40 and 10 < len(splits.test) < 40
    assert load_splits(run) == splits
    numbers = [int(example.text.split()[3]) for example in splits.train]
    assert numbers != sorted(numbers) and max(numbers) > 150, "a file may be sorted: its rows are drawn, in any order"
    other = write(tmp_path / "other.jsonl", [{"text": "a dog", "codes": ["S2"]}])
    assert [e.text for e in load_splits(resolve(replace(profile, test_data=str(other)))).test] == ["a dog"]
    with pytest.raises(ProfileError, match="no file .*gone.jsonl: correct its name"):
        resolve(replace(profile, train_data="gone.jsonl"))


def test_the_four_categories_of_notebook_07_stand_in_files():
    folder = repository() / "notebooks" / "data" / "own"
    policy = find_policy(folder / "policy.yaml")
    for part in ("train", "test"):
        rows = own_examples(folder / f"{part}.jsonl", policy, LabelMap.from_csv(folder / "labels.csv", name="own"))
        assert {code for example in rows for code in example.codes} == set(policy.codes)
