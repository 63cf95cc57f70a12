"""Command-line options of the whole run."""

_resume = False


def set_resume(value: bool) -> None:
    """Called once by ``run.py``: whether ``--resume`` was given."""
    global _resume
    _resume = value


def resume_requested() -> bool:
    """Whether unfinished output of an earlier run is to be continued instead of started again."""
    return _resume
