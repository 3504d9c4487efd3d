"""Why a tool call has no effect."""


class ToolRefused(Exception):
    """A tool call that cannot be. The text is a sentence for the model, in the lead's language, and never for the lead."""
