"""The tab *Relevance* of TensorBoard: what is logged (``schema``, ``summary``), what serves it (``plugin``, ``static/``)."""
