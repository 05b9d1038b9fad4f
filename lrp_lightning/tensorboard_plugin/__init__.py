"""The tab *Relevance* of TensorBoard: the logged data (``schema``, ``summary``) and its server (``plugin``, ``static/``)."""
