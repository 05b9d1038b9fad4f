"""What is shown of an object as HTML: sections of the report, which alone in a notebook are that object's ``_repr_html_``.

==============  ==========================================================================
``markup``      the templates, and a part of a page that needs nothing around it
``pictures``    arrays as images that stand in the page itself
``sections``    the data of the sections that report and notebook share
==============  ==========================================================================

``sections.html.jinja`` has a macro for each kind of section, ``sections.css`` its looks; all classes begin with ``lrp``, so
that neither a notebook's style nor this one reaches the other.
"""
