"""Installation of optional packages in the application, after asking."""

from __future__ import annotations

from typing import TYPE_CHECKING

import slicer
from slicer.i18n import tr as _

if TYPE_CHECKING:
    from NeuroCESTLib.core.packages import MissingPackage


def install(missing: MissingPackage, module: str) -> bool:
    """Offer to install a package; nothing is installed without the user's consent.

    Args:
        missing: The package, and what needs it.
        module: Name of the module, which the question mentions.

    Returns:
        Whether the package can be imported now.
    """
    import importlib
    import importlib.util

    if slicer.app.testingEnabled():  # tests do not change the installation that they run in
        return False
    if importlib.util.find_spec("slicer.packaging"):  # Slicer 5.11 and later, which asks by itself
        packaging = importlib.import_module("slicer.packaging")
        try:
            packaging.pip_ensure(missing.requirement, requester=module)
        except RuntimeError:  # the user declined
            return False
    else:
        question = _("{need}.\n\nInstall {package} now?").format(need=missing, package=missing.requirement)
        if not slicer.util.confirmOkCancelDisplay(question):
            return False
        slicer.util.pip_install(missing.requirement)
    importlib.invalidate_caches()
    return importlib.util.find_spec(missing.package) is not None
