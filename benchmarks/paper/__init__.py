"""The evidence of the paper, measured again with this package: Zhang, Tan & Chen, JRSS-B 2026, sections 5 and 6.

    python benchmarks/paper/simulation.py    # its simulation grid: 75 CPU minutes, resumable
    python benchmarks/paper/digits.py        # handwritten digits: 7 CPU minutes
    python benchmarks/paper/separation.py    # bad machines from inside the noise to far away: 6 CPU minutes

::

    populations     a cell of the grid, its population and its rows, all by seed
    local_fits      the rows of all machines -> their local estimates
    methods         local estimates, some of them bad -> the mixture of each method
    measures        how far a mixture is from the truth
    grid            the cells as one lazy graph; a file for each cell that is done
    tables, figures what ``simulation.py`` prints and draws
    images          digits, and images that are none
"""
