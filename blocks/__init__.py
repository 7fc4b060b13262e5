"""What a network is made of: attention blocks, sites, backbones, exact costs.

The lowest folder of the house: it imports nothing of ``spaces``, ``search`` or ``reports``.
Importing a torch-free module of it (``registry``, ``architecture``, ``formulas``, ``site``) does
not load torch; ``build``, ``cost`` and the block files do.

Start reading at ``registry`` (which blocks there are), then ``architecture`` (what a network is)
and ``build`` (the only place where modules are joined).
"""
