"""Fine-tune Llama Guard to report every privacy category a prompt violates, and measure it honestly."""

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

__version__ = "0.2.0"


def room(package: str, modules: Mapping[str, str]) -> tuple[Callable[[str], Any], list[str]]:
    """Lets a room hand on the names of its modules, each module imported when its first name is asked for.

    Args:
        package: The room's `__name__`.
        modules: Module of the room to the names that it hands on, parted by blanks.

    Returns:
        The room's `__getattr__` and `__all__`.
    """
    home = {name: module for module, names in modules.items() for name in names.split()}

    def getter(name: str) -> Any:
        if name not in home:
            raise AttributeError(f"{package} has no name {name!r}; it has {', '.join(sorted(home))}")
        return getattr(import_module(f"{package}.{home[name]}"), name)

    return getter, sorted(home)
