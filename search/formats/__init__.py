"""Reading the file formats in which data sets are published.

One module a format: it turns files that were found into ``search.data.Parts``, or says which file
is not as it should be, what was found in it, what is needed, and the cure. Nothing that is read is
run.
"""
