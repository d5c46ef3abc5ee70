"""The one exception type for mistakes a user can fix."""


class UserError(ValueError):
    """One sentence naming the file, the field and the fix; the command line prints it without a traceback."""
