"""Running trials and keeping what they say.

Imports ``spaces`` and ``blocks``; ``cli`` alone, the composition root, also calls ``reports``.
Start reading at ``study`` (opening and running one) and ``engine`` (ask, evaluate, record, tell; on
``held_study``, ``keeping`` and ``deciding``), then ``worker`` and ``trial`` (what one process does
with one candidate) and ``records``, ``reading`` and ``store`` (what is kept, and how).
"""
