"""The rows of operators: the result of each, and facts about it, ``(result, facts)``.

Only three kinds of operators need a backward of their own: affine maps, activations, and products of two signals. For all
others autograd's backward is the LRP rule, and their row derives the facts of the result from those of the input.

``affine.py``          linear layers, convolutions, batch norm
``contractions.py``    products with a sum: with a weight they are linear layers, with two signals such as attention
``activations.py``     element-wise functions: relevance passes unchanged
``moves.py``           data movement, each operator with its plan: its effect on an axis
``writes.py``          several tensors joined into one, and in-place writes
``reductions.py``      sums, means, choices, statistics
``pooling.py``         operators that mix or choose among the values of one channel
``sums.py``            sums: each signal gets its contribution
``products.py``        element-wise products: gates are constants, several signals get equal shares
``normalisations.py``  layer, group and instance norm: the standard deviation is a constant
``attention.py``       scaled dot products and multi-head attention
``table.py``           the table of rows, and how to add to it
"""
