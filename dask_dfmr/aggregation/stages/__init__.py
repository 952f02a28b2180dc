"""The stages of an aggregation: functions from blocks of estimates to small values.

A stage takes what earlier stages returned and returns a value that can travel between tasks. Stages do not know
whether they are called at once or by a Dask worker. The path of the data::

    intake     estimates -> blocks, and who takes part
    center     blocks -> distances -> the estimate in the middle
    keep       the center -> who is near it
    consensus  who is near -> the consensus, the null law, and who is kept
    hardened   who is kept where estimates may collude
    reduce     kept estimates -> one mixture
    componentwise  all of this component by component

A new reason for exclusion is decided in ``keep``, ``consensus`` or ``hardened``.
"""
