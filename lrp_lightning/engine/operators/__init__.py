"""What each operator does: its result, and what is known of it, ``(result, facts)``.

Only three kinds of operator need a backward of their own: affine maps, activations, products of two signals. For all others
autograd's own backward is the LRP rule, and their row says what becomes of what is known about their input.

``affine.py``          linear layers, convolutions, batch norm
``contractions.py``    products that sum: by a weight they are linear layers, of two signals attention and the like
``activations.py``     element-wise functions: relevance passes unchanged
``moves.py``           data movement, each with its plan: what it does to an axis
``writes.py``          several tensors brought into one, and what is written in place
``reductions.py``      sums, means, choices, statistics
``pooling.py``         what mixes or chooses among the values of one channel
``sums.py``            sums: each signal gets its contribution
``products.py``        element-wise products: gates are constants, of several signals each gets an equal share
``normalisations.py``  layer, group and instance norm: the standard deviation is a constant
``attention.py``       scaled dot products and multi-head attention
``table.py``           the table of them, and how to add to it
"""
