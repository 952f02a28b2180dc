"""How Sphinx makes the documentation site of this repository: ``sphinx-build -W -c docs . site``.

The source folder is the repository, so that a link from one page to another is the same file in both: a page can be
read where it lies, and pages beside the package (examples, benchmarks, security) are part of the site.
"""

from __future__ import annotations

import sys
from pathlib import Path

import dask_dfmr

sys.modules["dask_dfmr.metrics"] = dask_dfmr.metrics  # a module under its public name, for autodoc

project = "dask-dfmr"
author = "The dask-dfmr developers"
version = release = dask_dfmr.__version__
html_title = project

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "numpydoc",
]
root_doc = "docs/index"
include_patterns = [
    *("docs/**.md", "docs/reference/generated/*.rst", "examples/README.md", "benchmarks/README.md"),
    *("benchmarks/results/*.md", "benchmarks/data/README.md"),
    *("CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "examples/data/NOTICE.md"),
]

myst_heading_anchors = 4
myst_enable_extensions = ["dollarmath"]

templates_path = [
    str(Path(__file__).parent / "_templates")
]  # autosummary looks in the source folder
autodoc_typehints = "none"  # numpydoc has the types in words
autosummary_generate = True
numpydoc_class_members_toctree = False
numpydoc_show_class_members = False
numpydoc_xref_param_type = False

html_theme = "pydata_sphinx_theme"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_extra_path = ["root"]  # a page at the top that leads to docs/index.html
html_show_sourcelink = False
html_theme_options = {
    "navigation_with_keys": False,
    "show_toc_level": 2,
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": [],
}
copyright = "The dask-dfmr developers, BSD-3-Clause"
