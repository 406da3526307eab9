"""Stand-in for ``slicer.i18n``, in which texts stay in English."""


def translate(context: str, text: str) -> str:
    """Return the text itself, as there is no translation here."""
    return text


def tr(text: str) -> str:
    """Return the text itself, as there is no translation here."""
    return text
