"""One kernel for several notebooks: Python's imports are most of what a small run takes."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from jupyter_core.utils import run_sync
from nbclient import NotebookClient

from tools import notebooks


@contextmanager
def one_kernel(**environment: str) -> Iterator[None]:
    """Lets `execute` take one kernel, with these variables in its environment, which forgets all names in between."""
    manager = NotebookClient(notebooks.build(notebooks.sources()[0], "smoke")).create_kernel_manager()

    def client(*given: Any, **options: Any) -> NotebookClient:
        made = NotebookClient(*given, km=manager, **options)
        made.on_notebook_start = lambda notebook: made.kc.execute("get_ipython().reset(new_session=True)", silent=True)
        return made

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(notebooks, "NotebookClient", client)
        for name, value in environment.items():
            patch.setenv(name, value)
        try:
            yield
        finally:
            run_sync(manager.shutdown_kernel)(now=True)
