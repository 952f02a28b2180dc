"""What is shown of a computation while it runs: stages by name, tasks done of how many, and times.

A scheduler carries one :class:`~dask_dfmr.progress.stages.Progress` and tells it how many tasks of each stage there are
and how many are done. Nothing here knows what a task does::

    stages  Progress: counts and times by stage; SILENT, which costs nothing; Display, what shows them
    lines   a line of text for each stage, in logs and without rich
    bars    bars in a terminal or a notebook, by rich
    choice  verbose -> the Progress of a computation
"""
