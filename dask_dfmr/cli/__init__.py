"""The command line ``dask-dfmr``.

A command reads its arguments, calls the public functions of the package, and shows the result. What takes time to
import is imported by the command that needs it, so that ``dask-dfmr --help`` answers at once::

    app       the commands by name, and what becomes of an error
    exits     exit codes, and which one an error or a result has
    run       one run of a command: warnings, results as text or as one JSON object, files to write
    schema    the keys of the JSON objects
    options   options that several commands share; those of a fit come from the table of parameters
    data      DATA -> a Dask DataFrame
    scheduler --scheduler and --workers
    fitting, using, checking, federated, stress   the commands
"""
