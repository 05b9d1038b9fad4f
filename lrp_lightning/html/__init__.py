"""Objects as HTML: sections of the report, each of which is also an object's ``_repr_html_`` in a notebook.

==============  ==========================================================================
``markup``      the templates, and self-contained parts of a page
``pictures``    arrays as images embedded in the page
``sections``    the data of the sections, for report and notebook
==============  ==========================================================================

``sections.html.jinja`` has a macro for each kind of section, ``sections.css`` its style. All CSS classes begin with ``lrp``,
so that this style and that of a notebook do not affect each other.
"""
