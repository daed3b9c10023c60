"""Faults of a torchtune config that show without its files and its machine: keys, components, arguments, values.

What a config may say is read from where it is decided: a recipe's keys, and what it passes to a component, from the
recipe's source; a component's arguments from its signature; the kinds of other values from the configs that torchtune
ships. `guard_utils.training.preflight` is the door.
"""

from __future__ import annotations

import ast
import importlib.util
import inspect
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path
from types import NoneType
from typing import Any, NamedTuple

import torchtune
from omegaconf import OmegaConf
from torchtune._recipe_registry import get_all_recipes
from torchtune.config._utils import _get_component_from_path

UNSET: Any = object()
"""Stands in a config for a value that is not filled in."""
# Keys that no recipe reads: the launcher does, or other values of the config refer to them.
_LAUNCHER_KEYS = frozenset({"recipe", "model_dir", "train_file"})
_OURS = "guard_utils/training/recipe.py"
_ROOT = Path(torchtune.__file__).parents[1] / "recipes"
_STOCK = {recipe.name: recipe for recipe in get_all_recipes()}
_KINDS: dict[Any, str] = {bool: "True or False", str: "text", int: "a number", float: "a number"}
_KINDS |= {list: "a list", tuple: "a list", dict: "a block"}
_COUNTS = {"batch_size", "epochs", "gradient_accumulation_steps", "max_steps_per_epoch", "log_every_n_steps"}
_COUNTS |= {"save_every_n_steps", "threads", "model.lora_rank"}
_ABOVE_0_TO = {"optimizer.lr": 1.0, "clip_grad_norm": float("inf"), "model.lora_alpha": float("inf")}

Passed = tuple[int, frozenset[str]]
"""What a recipe passes to a component: how many arguments by position, and which by name."""


class Fault(NamedTuple):
    """A key's path (`optimizer.lr`), its value as shown, what is wrong with it, and what to do."""

    key: str
    value: str
    wrong: str
    fix: str

    def __str__(self) -> str:
        return f"{self.key} = {self.value}: {self.wrong}; {self.fix}"


class _Reads(NamedTuple):
    required: frozenset[str]
    optional: frozenset[str]
    passes: dict[str, Passed]


@lru_cache
def _reads(path: Path) -> _Reads:
    """The keys that a recipe's source reads from `cfg`, and the blocks that it instantiates."""
    required, optional, passes = set(), {"get"}, {}
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        match node:
            case ast.Attribute(value=ast.Name(id="cfg"), attr=key):
                required.add(key)
            case (
                ast.Call(ast.Attribute(value=ast.Name(id="cfg"), attr="get"), [ast.Constant(value=str(key)), *_])
                | ast.Compare(left=ast.Constant(value=str(key)), comparators=[ast.Name(id="cfg")])
            ):
                optional.add(key)
            case ast.Call(func=ast.Attribute(attr="instantiate"), args=[block, *given], keywords=named):
                # cfg.loss, cfg_optimizer, single_cfg_dataset
                if found := re.fullmatch(r"(?:single_)?cfg[._](\w+)", ast.unparse(block)):
                    passes[found[1]] = (len(given), frozenset(str(keyword.arg) for keyword in named))
    return _Reads(frozenset(required - optional), frozenset(optional - {"get"}), passes)


def _recipe_file(name: Any) -> Path | None:
    """The file that `tune run` finds for a recipe given as a path, of which it makes a module's name."""
    try:
        spec = importlib.util.find_spec(os.path.splitext(name)[0].replace("/", "."))
    except (ImportError, TypeError, ValueError):
        return None
    return Path(spec.origin) if spec and spec.origin else None


def _stock_names(config: Mapping[str, Any]) -> list[str]:
    """Of torchtune's recipes, the one a config names, or those that a recipe of ours stands on."""
    if config.get("recipe") in list(_STOCK):
        return [config["recipe"]]
    kind = "lora" if "lora_rank" in str(config.get("model")) else "full"
    return [f"{kind}_finetune_single_device", f"{kind}_finetune_distributed"]


def _all_reads(config: Mapping[str, Any]) -> _Reads:
    """What a config's recipe reads; one of ours, with all that stands beside it and the recipes beneath it."""
    names = _stock_names(config)
    stock = [_reads(_ROOT / _STOCK[name].file_path) for name in names]
    path = None if config.get("recipe") in names else _recipe_file(config.get("recipe")) or _recipe_file(_OURS)
    ours = [_reads(module) for module in sorted(path.parent.glob("*.py"))] if path else []
    required = frozenset.intersection(*(reads.required for reads in stock))
    known = frozenset().union(*(reads.required | reads.optional for reads in [*stock, *ours]))
    return _Reads(required, known - required, {key: given for reads in stock for key, given in reads.passes.items()})


@lru_cache
def _shipped_kinds(recipe: str) -> dict[str, set[type]]:
    """Types of each top-level key's values in the configs that torchtune ships for a recipe."""
    seen: dict[str, set[type]] = {}
    paths = [_ROOT / "configs" / shipped.file_path for shipped in _STOCK[recipe].configs]
    for path in filter(Path.exists, paths):  # torchtune registers some that it does not ship
        for key, value in OmegaConf.to_container(OmegaConf.load(path)).items():  # type: ignore[union-attr]
            seen.setdefault(str(key), set()).add(type(value))
    return seen


def recipe_faults(config: Mapping[str, Any], processes: int) -> Iterator[Fault]:
    """Whether `tune run` finds the recipe, and whether it is one for so many processes."""
    name = config.get("recipe")
    if name is UNSET:
        return
    if name is None:
        yield Fault("recipe", "absent", "is required", f"add {_OURS}, or a name that `tune ls` lists")
    elif name not in list(_STOCK) and _recipe_file(name) is None:
        close = _matches(str(name), [*_STOCK, _OURS])
        fix = f"did you mean {close[0]!r}?" if close else f"give {_OURS}, or a name that `tune ls` lists"
        yield Fault("recipe", repr(name), "no such recipe", fix)
    elif ("distributed" in name) != (processes > 1):
        fix = f"take one with{'' if processes > 1 else 'out'} 'distributed' in its name, or launch another number"
        yield Fault("recipe", repr(name), f"does not fit the number of processes, {processes}", fix)


def key_faults(config: Mapping[str, Any]) -> Iterator[Fault]:
    """Unknown, misspelled and missing keys at every depth; dotpaths; values of the wrong kind or out of range."""
    reads = _all_reads(config)
    known = reads.required | reads.optional | reads.passes.keys() | _LAUNCHER_KEYS
    yield from _name_faults("", config, known, reads.required)
    shipped = [_shipped_kinds(name) for name in _stock_names(config)]
    for key, value in config.items():
        seen: set[type] = set().union(*(kinds.get(key, ()) for kinds in shipped))
        if value is UNSET or (value is None and (NoneType in seen or key in reads.optional)):
            continue
        yield from _component_faults(key, value, reads.passes.get(key))
        blocks = value if isinstance(value, list) else [value]
        if key == "collate_fn":
            yield from _find(key, value)[1]
        elif key not in reads.passes:
            yield from _value_faults(key, value, {_KINDS[kind] for kind in seen - {NoneType}})
        # The recipes themselves name the profiler's component where a config does not.
        elif key != "profiler" and not all(isinstance(block, dict) and "_component_" in block for block in blocks):
            yield Fault(key, _shown(value), "is no block with a _component_", "write one, as torchtune_configs/ do")


def _name_faults(at: str, given: Mapping[str, Any], known: frozenset[str], required: Iterable[str]) -> Iterator[Fault]:
    missing = set(required) - given.keys()
    for key in given:
        if key not in known:
            close = _matches(str(key), known - given.keys()) or _matches(str(key), known)
            missing -= set(close)  # the same fault once more
            fix = f"did you mean {close[0]!r}?" if close else "remove it, nothing reads it"
            yield Fault(f"{at}{key}", _shown(given[key]), "unknown key", fix)
    for key in sorted(missing):
        yield Fault(f"{at}{key}", "absent", "is required", "add it, as torchtune_configs/ do")


def _value_faults(key: str, value: Any, kinds: set[str]) -> Iterator[Fault]:
    if key in _COUNTS and not (type(value) is int and value >= 1):
        yield Fault(key, _shown(value), "is no whole number of at least 1", "give one")
    elif key in _ABOVE_0_TO:
        # torchtune takes a text here: "inf" only measures the norm.
        if value != "inf" and (type(value) not in (int, float) or not 0 < value < _ABOVE_0_TO[key]):
            yield Fault(key, _shown(value), f"is no number above 0 and below {_ABOVE_0_TO[key]:g}", "give one")
    elif kinds and _KINDS.get(type(value), *kinds) not in kinds:
        yield Fault(key, _shown(value), f"is {_KINDS[type(value)]}", f"give {' or '.join(sorted(kinds))}")


def _component_faults(at: str, value: Any, passed: Passed | None) -> Iterator[Fault]:
    if isinstance(value, list):
        for number, item in enumerate(value):
            yield from _component_faults(f"{at}.{number}", item, passed)
    elif isinstance(value, dict):
        for key, child in value.items():
            yield from _component_faults(f"{at}.{key}", child, None)
        if value.get("_component_", UNSET) is not UNSET:
            component, faults = _find(f"{at}._component_", value["_component_"])
            arguments = {key: argument for key, argument in value.items() if key != "_component_"}
            yield from faults or _argument_faults(at, component, arguments, passed)


def _argument_faults(at: str, component: Any, given: dict[str, Any], passed: Passed | None) -> Iterator[Fault]:
    parameters = inspect.signature(component).parameters.values()
    named = {p.name: p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    count, by_name = passed or (0, frozenset())
    free = frozenset(list(named)[count:])
    # Nobody says what a component within a component is passed.
    needed = {name for name in free - by_name if named[name].default is inspect.Parameter.empty} if passed else ()
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters)
    yield from _name_faults(f"{at}.", given, free | given.keys() if takes_any else free, needed)
    for key, value in given.items():
        if key in free and value is not None:
            kind = _KINDS.get(named[key].annotation) or _KINDS.get(type(named[key].default))
            yield from _value_faults(f"{at}.{key}", value, {kind} if kind else set())


def _find(key: str, dotpath: Any) -> tuple[Any, list[Fault]]:
    """What a dotpath names, or None and the fault."""
    found: Any = None
    parts = str(dotpath).split(".")
    for count, part in enumerate(parts, 1):
        try:
            found = _get_component_from_path(".".join(parts[:count]))
        except Exception as error:  # importing runs others' code
            why = str(error.__cause__ or error)
            close = _matches(part, dir(found) if found else ()) if part in why else []
            fix = f"did you mean {close[0]!r}?" if close else "correct its spelling, or install what is missing"
            return None, [Fault(key, _shown(dotpath), f"can't be imported ({why})", fix)]
    if callable(found):
        return found, []
    return None, [Fault(key, _shown(dotpath), "is no class or function", "name one that is in it")]


def _matches(name: str, known: Iterable[str]) -> list[str]:
    return get_close_matches(name, sorted(known), n=1)


def _shown(value: Any) -> str:
    return "???" if value is UNSET else f"{value!r:.80}"
