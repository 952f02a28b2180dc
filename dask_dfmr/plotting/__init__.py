"""Pictures of results, after scikit-learn's Display classes. Every number that is drawn is an attribute of the display.

matplotlib is imported when something is drawn, not before. Text from data is never read as a formula::

    axes                axes to draw on, colors and markers, names that fit
    found               the mixture and the decision of whatever a user hands over
    mixture_display     ellipses of the components over the counted rows
    partition_display   the distance of each partition, and what sampling explains
    drift_display       one component in every partition, or over time
    selection_display   criteria over the number of components
    breakdown_display   errors over the share of bad sources
"""
