"""The stages of an aggregation: functions from blocks of estimates to small values.

The arguments of a stage are results of earlier stages, and its result can travel between tasks. A stage computes the
same whether it is called at once or by a Dask worker. The flow of the data::

    intake     messages -> blocks of estimates, and the participants
    center     blocks -> distances -> the center
    keep       the center -> the estimates near it, and which are kept
    consensus  the estimates near the center -> the consensus, its null law, and which are kept
    hardened   which are kept if estimates may collude
    reduce     kept estimates -> one mixture
    componentwise  all of this component by component

A new reason for exclusion is decided in ``keep``, ``consensus`` or ``hardened``, and worded in
:mod:`dask_dfmr.aggregation.reasons`.
"""
