"""The exceptions for what a user can mend."""


class UserError(ValueError):
    """Something given by the user cannot be used; the message says what, where, and how to mend it.

    The command line prints it as one line and exits with 2. Everything else that is raised is a defect of ours.
    """


class NotFiniteError(UserError):
    """A loss, a gradient or a logit is NaN or infinite."""
