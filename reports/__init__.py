"""What the records say: tidy data frames, and one HTML file that opens offline.

May import ``search.store`` and its neighbours that read, ``spaces`` and ``blocks``; nothing of
``search`` imports it except ``search.cli``. No torch. Start reading at ``page`` (what the file
consists of), then ``findings`` (what is said), ``charts`` (what is shown) and ``frame`` (the same
records for pandas).
"""
