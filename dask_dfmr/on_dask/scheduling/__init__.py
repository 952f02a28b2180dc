"""Running tasks on a local scheduler or a cluster whose workers may die.

Nothing here is about mixtures: tasks, results and errors only::

    builder          tasks with names and keys that no other fit uses
    scheduler        the scheduler as one value: it submits, holds and fetches, and tries again what died with a worker
    cluster          waiting on a cluster: which workers are gone, which results are missing
    trusted_workers  which workers may run which tasks
    timeouts         a task is given up after some seconds
    passing          errors in a task that are no outcome of its partition
    threads          BLAS is limited to one thread inside of a task
"""
