"""Sphinx's configuration of the book, which `make book` makes of the committed notebooks and pages where they stand.

Launch links are there once ADDRESS in tools/notebooks.py names the place where the series is published.
"""

import json
import shutil
from typing import Any

from tools.notebooks import ADDRESS

project = html_title = "Fine-tuning Llama Guard with torchtune"
extensions = ["myst_nb", "sphinx.ext.githubpages"]
author = "the authors of guard-utils"
root_doc = "README"
include_patterns = ["*.md", "notebooks/*.ipynb", "notebooks/*.md", "notebooks/data/*.md", "notebooks/models/*/*.md"]
exclude_patterns = [".*", "artifacts", "guard_utils", "tests", "tools"]
nb_execution_mode = "off"
myst_heading_anchors = 3
myst_heading_slug_func = "tools.book.conf.anchor"
html_theme = "sphinx_book_theme"
html_use_index = False
html_context = {"default_mode": "auto"}
html_theme_options: dict[str, Any] = {"use_fullscreen_button": False, "navbar_persistent": []}
if "{" not in ADDRESS:
    launch = {"colab_url": "https://colab.research.google.com", "binderhub_url": "https://mybinder.org"}
    html_theme_options |= {"repository_url": ADDRESS, "repository_branch": "HEAD", "launch_buttons": launch}
CONTENTS = "\n\n```{toctree}\n:hidden:\n:glob:\n\nnotebooks/0*\nnotebooks/**\nGPU\n**\n```\n"


def anchor(title: str) -> str:
    """The anchor of a heading, as Jupyter makes it."""
    return title.replace(" ", "-")


def prepare(_: Any, name: str, text: list[str]) -> None:
    """Adds the contents to the README; in a notebook, leaves out the setup and keeps the alt texts of figures."""
    if name == root_doc:
        text[0] += CONTENTS
    elif text[0].startswith("{"):
        notebook = json.loads(text[0])
        for cell in notebook["cells"]:
            if "setup" in (tags := cell["metadata"].get("tags", [])):
                tags.append("remove-cell")
            for output in cell.get("outputs", []):
                if image := output.get("metadata", {}).get("image/png"):
                    cell["metadata"]["mystnb"] = {"image": image}
        text[0] = json.dumps(notebook)


def setup(app: Any) -> None:
    """Called by Sphinx. The README becomes the first page of the site."""
    app.connect("source-read", prepare)
    app.connect("build-finished", lambda app, _: shutil.copy(app.outdir / "README.html", app.outdir / "index.html"))
