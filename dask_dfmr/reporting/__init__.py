"""A page about a result: one HTML file that needs no network, and numbers for a notebook.

Everything that comes from data is escaped where it enters the page: by the template, as JSON, or by matplotlib::

    verdict      the result in a sentence
    facts        parameters, versions, data and digest
    tables       rows of the mixture, of the partitions and of their explanations
    pictures     displays as SVG
    page         all of these in the template -> a file
    reprs        the result in a notebook or a terminal
"""
