"""The word for a study that was asked to stop."""


class Interrupted(Exception):  # noqa: N818 - a way of ending, not an error
    """A study was asked to stop; what had finished is kept."""
