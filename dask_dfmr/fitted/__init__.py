"""What an estimator has learned, and the ways to it besides a fit: a file, a mixture, an aggregate.

The estimator holds parameters and one value, :class:`~dask_dfmr.fitted.learned.Learned`, from which its attributes
follow::

    learned   of a fit, of an aggregate or of a mixture -> Learned, and the parameters that go with it
    file      parameters and Learned <-> one file, which is that of the aggregate with more in it
"""
