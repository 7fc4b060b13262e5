"""What may vary: space files, their validation, and drawing candidates from them.

Imports ``blocks`` alone, and never torch. Start reading at ``space`` (what a space is and how its
file is read), then ``drawing`` (from suggestions to canonical candidates). The shipped spaces are
the ``*.yaml`` files beside this one.
"""
