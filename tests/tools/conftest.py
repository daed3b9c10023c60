"""Notebooks of a test run share a kernel: Python's imports are most of what they take."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest
from jupyter_core.utils import run_sync
from nbclient import NotebookClient

from tools import notebooks


@pytest.fixture(scope="session")
def one_kernel() -> Callable[..., AbstractContextManager[None]]:
    """Makes `execute` take one kernel, with these variables in its environment, which forgets all names in between."""

    @contextmanager
    def share(**environment: str) -> Iterator[None]:
        first = NotebookClient(notebooks.build(notebooks.sources()[0], "smoke"), kernel_name="python3")
        manager = first.create_kernel_manager()

        def client(*given: Any, **options: Any) -> NotebookClient:
            made = NotebookClient(*given, km=manager, **options)
            forget = "get_ipython().reset(new_session=True)"
            made.on_notebook_start = lambda notebook: made.kc.execute(forget, silent=True)
            return made

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(notebooks, "NotebookClient", client)
            for name, value in environment.items():
                patch.setenv(name, value)
            try:
                yield
            finally:
                run_sync(manager.shutdown_kernel)(now=True)

    return share
