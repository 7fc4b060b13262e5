"""Running trials and keeping what they say.

Imports ``spaces`` and ``blocks``; ``cli`` alone, the composition root, also calls ``reports``.
Start reading at ``study`` (opening and running one) and ``engine`` (ask, evaluate, record, tell),
then ``worker`` and ``trial`` (what one process does with one candidate) and ``store`` (what is
kept).
"""
