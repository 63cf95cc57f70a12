"""Command-line options of the whole run."""

_resume = False
_imports_allowed = False


def set_resume(value: bool) -> None:
    """Called once by ``run.py``: whether ``--resume`` was given."""
    global _resume
    _resume = value


def resume_requested() -> bool:
    """Whether unfinished output of an earlier run is to be continued instead of started again."""
    return _resume


def set_imports_allowed(value: bool) -> None:
    """Called once by ``run.py``: whether ``--allow-imports`` was given."""
    global _imports_allowed
    _imports_allowed = value


def imports_allowed() -> bool:
    """Whether configs may import modules, also in the runs that this one starts."""
    return _imports_allowed
