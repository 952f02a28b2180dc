"""What a mixture is: families of components, mixture values, and their comparison, without Dask.

A family defines the mathematics of one kind of component (:mod:`~dask_dfmr.mixtures.family` is the contract,
:mod:`~dask_dfmr.mixtures.gaussian` the only family so far). Each family has a mixture value that derives from
:class:`~dask_dfmr.mixtures.mixture.FiniteMixture`; that of the Gaussians is the public ``Mixture``. Distances, the
Fisher information and white coordinates compare mixtures. The law of the density gives p-values of rows. An arrow
means "is used by"::

    family -> mixture      -> gaussian -> distances
              covariances                 information -> whitening, metrics
              engine -> compiled                density_law

:mod:`~dask_dfmr.mixtures.engine` chooses between NumPy and the kernels in :mod:`dask_dfmr.mixtures.compiled`.
:mod:`~dask_dfmr.mixtures.tails` and :mod:`~dask_dfmr.mixtures.assignment` stand for parts of SciPy that are slow to
import.

A new family, for example Poisson, is one new module here. A problem names its family
(``LocalProblem(family=...)``), so there is no register of families.
"""
