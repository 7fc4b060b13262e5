"""Where blocks go in each family of networks: one adapter per family.

An adapter is a generator of points, given a network; it may import torch and timm, and is itself
imported when a network of its family is built. Start reading at ``residual``.
"""
