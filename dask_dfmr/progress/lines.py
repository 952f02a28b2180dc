"""Progress as lines of text: where there is no terminal, or no rich."""

from __future__ import annotations

import sys

from dask_dfmr.progress.stages import Stage

LEAST_TIME_SHOWN = 0.5
"""Seconds that a stage must take to be worth a line, and a computation to be worth a bar. Below it a bar would only
flicker: people take up to half a second for immediate."""


class Lines:
    """A line on stderr for each stage that takes some time, when it ends and every ten seconds."""

    def open(self) -> None: ...

    def show(self, stage: Stage) -> None: ...

    def tell(self, stage: Stage) -> None:
        if stage.elapsed >= LEAST_TIME_SHOWN:
            self.say(str(stage))

    def close(self) -> None: ...

    def say(self, text: str) -> None:
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()
