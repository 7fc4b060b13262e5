"""The checks of the conformance suite, by what they look at.

Each is a function of a subject (``blocks.subject``) that raises ``ConformanceError`` where it
fails, ``NotCheckedError`` where the check cannot be made here, and else returns a remark. The
table of them is ``blocks.conformance``.
"""
