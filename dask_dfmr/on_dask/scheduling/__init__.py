"""Running tasks on a local scheduler or a cluster whose workers may die.

Nothing here is about mixtures: tasks, results and errors only::

    builder  tasks with names and keys that no other fit uses
    scheduler  one value for who computes: submit, hold, fetch
    cluster  waiting on a cluster: which workers are gone, which results are missing
    trusted_workers  which workers may run which tasks
    timeouts, threads  limits on time and on threads inside of a task
"""
