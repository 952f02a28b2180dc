"""Print the oldest versions that ``pyproject.toml`` allows, as pip requirements of the package and its tests."""

import re
import tomllib
from pathlib import Path

PROJECT = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())["project"]
EXTRAS = ("cli", "fast", "plots", "tests")

requirements = [
    *PROJECT["dependencies"],
    *(r for extra in EXTRAS for r in PROJECT["optional-dependencies"][extra]),
]
for requirement in requirements:
    if not requirement.startswith("dask-dfmr"):
        print(re.sub(r">=([\d.]+)$", r"==\1.*", requirement))
