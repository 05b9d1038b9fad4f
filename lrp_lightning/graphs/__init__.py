"""Relevance graphs: nodes are neurons, edges the relevance propagated from one neuron to another.

===============  ============================================================
``arrays``       a graph's edges as arrays
``build``        the graph of a trace, summed over its batch
``class_graph``  the record of a class's graph that is shown
``class_mean``   the mean graph of a class over a loader
``paths``        the chains of neurons that carry the most
``prune``        the part of a graph that matters for the output
``diff``         what changed between two graphs
``layout``       the positions of a graph's neurons in a picture
``shapes``       a graph as lines and circles, for a page
===============  ============================================================
"""
