"""The rows of the table of operators, by kind.

Only three kinds of operator need a backward of their own: affine maps, activations, products of two signals. For all others
autograd's own backward is the LRP rule, and their row says what becomes of what is known about their input.

``arguments.py``       reading an operator's arguments as the operator itself would; in-place forms
``affine.py``          linear layers, convolutions, batch norm
``elementwise.py``     activations: relevance passes unchanged
``movement.py``        data movement, choices, pooling, and linear operators without parameters
``products.py``        sums, and products of two signals: gates are constants, other products go half and half
``normalisations.py``  layer, group and instance norm: the standard deviation is a constant
``attention.py``       scaled dot products and multi-head attention
"""
