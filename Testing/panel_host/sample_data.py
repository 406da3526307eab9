"""Stand-in for the application's module ``SampleData``: the part that registers samples and loads them by name.

As in the application, ``downloadSample`` knows nothing of ``customDownloader``, which only the buttons of the module
call: it goes through the addresses, copies each file into the cache, and has it read by the reader of its type.
"""

from __future__ import annotations

import hashlib
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import slicer
import vtk


@dataclass
class SampleDataSource:
    """A sample with its addresses, file names, node names, types and checksums, one of each per file."""

    sampleName: str
    uris: Sequence[str]
    fileNames: Sequence[str]
    nodeNames: Sequence[str]
    loadFileType: Sequence[str]
    checksums: Sequence[str]
    customDownloader: Callable[[Any], Any] | None = None
    thumbnailFileName: str | None = None

    def __post_init__(self) -> None:
        counts = {len(self.uris), len(self.fileNames), len(self.nodeNames), len(self.loadFileType)}
        if counts != {len(self.checksums)}:
            raise ValueError("All fields of sample data source must have the same length")


class SampleDataLogic:
    """Registry and loader of samples."""

    @staticmethod
    def registerCustomSampleDataSource(category: str = "Custom", **source: Any) -> None:
        """Add a sample to a category."""
        if not hasattr(slicer.modules, "sampleDataSources"):
            slicer.modules.sampleDataSources = {}
        slicer.modules.sampleDataSources.setdefault(category, []).append(SampleDataSource(**source))

    def sourceForSampleName(self, sampleName: str) -> SampleDataSource | None:
        """Return the sample of a name, or None."""
        sources = [source for group in slicer.modules.sampleDataSources.values() for source in group]
        return next((source for source in sources if source.sampleName == sampleName), None)

    def downloadSamples(self, sampleName: str) -> list:
        """Load all files of a sample and return their nodes."""
        source = self.sourceForSampleName(sampleName)
        return self.downloadFromSource(source) if source else []

    def downloadFromSource(self, source: SampleDataSource) -> list:
        """Load all files of a sample and return their nodes."""
        files = zip(source.uris, source.fileNames, source.nodeNames, source.loadFileType, source.checksums, strict=True)
        nodes = []
        for uri, file_name, node_name, file_type, checksum in files:
            path = Path(slicer.mrmlScene.GetCacheManager().GetRemoteCacheDirectory()) / file_name
            urllib.request.urlretrieve(uri, path)
            if checksum != f"SHA256:{hashlib.sha256(path.read_bytes()).hexdigest()}":
                raise ValueError(f"wrong checksum of {path}")
            loaded = vtk.vtkCollection()
            properties = {"fileName": str(path), "name": node_name}
            if slicer.app.coreIOManager().loadNodes(file_type, properties, loaded) and loaded.GetNumberOfItems():
                nodes.append(loaded.GetItemAsObject(0))
        return nodes


def downloadSample(sampleName: str) -> Any:
    """Load a sample and return its first node."""
    return SampleDataLogic().downloadSamples(sampleName)[0]
