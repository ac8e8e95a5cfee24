"""The exceptions for what a user can mend, and the check that every count and every seed goes through."""

from numbers import Integral


class UserError(ValueError):
    """Something given by the user cannot be used; the message says what, where, and how to mend it.

    The command line prints it as one line and exits with 2. Everything else that is raised is a defect of ours.
    """


def first_line(error: Exception) -> str:
    """What an error of somebody else's says, as a part of a line; its kind, where it says nothing."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def check_whole(name: str, value: object, least: int, most: int = 2**63 - 1) -> None:
    """Raises UserError: not a whole number from `least` to `most`."""
    if not isinstance(value, Integral) or isinstance(value, bool):
        raise UserError(f"{name} must be a whole number, not {value!r:.60}")
    if int(value) < least:
        raise UserError(f"{name} must be at least {least}, not {value}")
    if int(value) > most:
        raise UserError(f"{name} must be at most {most}, not {value}")


class NotFiniteError(UserError):
    """A loss, a gradient or a logit is NaN or infinite."""
