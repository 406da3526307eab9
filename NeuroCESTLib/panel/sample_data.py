"""Digital phantoms as sample data: descriptions that come with the modules and from which the phantoms are computed.

The Sample Data module offers them with a picture. From the console ``SampleData.downloadSample(name)`` "downloads" the
description and has it read like any other file, which is what the readers of the modules are for.
"""

import logging
import os

import slicer
from slicer.i18n import tr as _


def registerPhantom(modulePath, description, sampleName, nodeName, downloader):
    """Offer a phantom in the Sample Data module; nothing is downloaded.

    Args:
        modulePath: File of the module.
        description: Name of the description in the module's ``Resources/SampleData``.
        sampleName: Name of the sample.
        nodeName: Name of the first node.
        downloader: Function that makes the phantom after a click on its picture.
    """
    try:
        import SampleData
    except ImportError:  # an application can be built without that module
        return
    import hashlib
    import pathlib

    module = pathlib.Path(modulePath).resolve()
    file = module.parent / "Resources" / "SampleData" / description
    SampleData.SampleDataLogic.registerCustomSampleDataSource(
        category="NeuroCEST",
        sampleName=sampleName,
        thumbnailFileName=str(module.parent / "Resources" / "Icons" / f"{module.stem}.png"),
        uris=[file.as_uri()],
        fileNames=[description],
        nodeNames=[nodeName],
        loadFileType=[file.suffix.removeprefix(".")],
        checksums=[f"SHA256:{hashlib.sha256(file.read_bytes()).hexdigest()}"],
        customDownloader=downloader,
    )


class PhantomFileReader:
    """Reader of a phantom's description, which the application finds by its name ``<module>FileReader``.

    Attributes:
        DESCRIPTION: What the files hold, for the dialogue that opens files.
        SUFFIX: Suffix of the files, which is also their type.
        SETTINGS: Names of the settings that a file may hold.
    """

    DESCRIPTION = ""
    SUFFIX = ""
    SETTINGS = ()

    def __init__(self, parent):
        self.parent = parent

    def description(self):
        """Return what the files hold."""
        return self.DESCRIPTION

    def fileType(self):
        """Return the type of the files."""
        return self.SUFFIX

    def extensions(self):
        """Return the endings of the files."""
        return [f"{self.DESCRIPTION} (*.{self.SUFFIX})"]

    def canLoadFile(self, filePath):
        """Whether this reader is for a file."""
        return os.path.splitext(filePath)[1] == f".{self.SUFFIX}"

    def load(self, properties):
        """Make the phantom that a file describes; return whether this succeeded."""
        from NeuroCESTLib.core.checked_json import check_keys, read_json

        path = properties["fileName"]
        try:
            nodes = self.makePhantom(check_keys(read_json(path), self.SETTINGS, path))
        except Exception as error:  # the application asks for a bool; its log gets the reason
            logging.error(_("The phantom of {path} could not be made: {reason}").format(path=path, reason=error))
            return False
        self.parent.loadedNodes = [node.GetID() for node in nodes]
        return True

    def makePhantom(self, settings):
        """Add the phantom to the scene and return its nodes.

        Args:
            settings: Settings by name, as the file gives them.
        """
        raise NotImplementedError


def withProgressDialog(text, work, libraries):
    """Do some work while a dialogue shows its progress and offers to cancel it.

    Args:
        text: What is done.
        work: Function of the progress to report to.
        libraries: Python modules that the work needs.

    Returns:
        What ``work`` returns.

    Raises:
        Cancelled: The user cancelled the work.
    """
    from NeuroCESTLib.core.background import InteractiveProgress, load_libraries
    from NeuroCESTLib.core.progress import Cancelled

    dialog = slicer.util.createProgressDialog(labelText=text, windowTitle=_("NeuroCEST"))

    def report(fraction, message=""):
        dialog.value = round(100 * fraction)
        slicer.app.processEvents()
        if dialog.wasCanceled:
            raise Cancelled

    try:
        progress = InteractiveProgress(report)
        load_libraries(libraries, progress)
        return work(progress)
    finally:
        dialog.close()
