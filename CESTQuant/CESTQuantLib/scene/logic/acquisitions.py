"""Acquisitions in the scene: scanner files, and the protocol that an acquisition carries."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from NeuroCESTLib.core.progress import Progress, silent
from NeuroCESTLib.scene.messages import called

from ..scanner import ImportedScan, import_scan, keep_protocol, kept_protocol
from ..study import carried_protocol, carry_protocol, knows_its_offsets, offsets_of_index


class AcquisitionsLogic:
    """Import of scanner files, and the protocols of acquisitions."""

    def importScan(
        self,
        source: str | Path,
        *,
        scan: str | int | None = None,
        offsets: Any = None,
        name: str = "",
        progress: Progress | None = None,
    ) -> ImportedScan:
        """Read scanner files into the scene: a sequence with geometry and offsets that carries its protocol.

        Args:
            source: Folder of a Bruker ParaVision study, of a scan, or of a reconstruction (``pdata/N``); folder or
                file of DICOM images; or a NIfTI file with its JSON file, or a folder with such files.
            scan: Number of the scan or series, or name of the NIfTI file; None for the only one, or the only one with
                saturation offsets.
            offsets: Offsets in ppm (a list, a text file or, for DICOM, a pulseq ``.seq``), of all measurements or of
                one repetition, instead of those that the files say.
            name: Name of the node; by default that of the scan.
            progress: Called with the fraction done and a message; may raise to cancel.

        Returns:
            The node, the protocol with None for what the files do not say, and what is to be filled in.

        Raises:
            ValueError: There is no such scan, or a file is missing, damaged or contradicts another one; one sentence
                that names it.
        """
        return import_scan(source, scan, offsets, name, progress or silent)

    def openValues(self, signalNode: Any) -> dict[str, str]:
        """Return what the protocol of an imported scan does not say: the heading of every such value, by its key."""
        from ...tables.open_values import open_keys
        from ...tables.protocols import title_of

        protocol = kept_protocol(signalNode)
        return {} if protocol is None else {key: title_of(key) for key in open_keys(protocol)}

    def fillIn(self, signalNode: Any, key: str, text: str) -> None:
        """Give a value that the files of an imported scan do not say; it is kept with the acquisition.

        Args:
            signalNode: Sequence node of :meth:`importScan`.
            key: Key of the protocol, one of :meth:`openValues`.
            text: The value as a user types it; offsets as numbers and ranges, such as ``-300, -6:0.25:6``.

        Raises:
            ValueError: The node has no such value to fill in, or the text cannot be used for it.
        """
        from ...tables.open_values import filled_in

        protocol = kept_protocol(signalNode)
        if protocol is None or key not in self.openValues(signalNode):
            raise ValueError(f"{called(signalNode)} has no value {key} that is to be filled in")
        keep_protocol(signalNode, filled_in(protocol, key, text, signalNode.GetNumberOfDataNodes()))

    def hasProtocol(self, signalNode: Any) -> bool:
        """Whether the acquisition says how it was made: by its protocol, as the sample data, or by offsets in ppm."""
        return signalNode is not None and knows_its_offsets(signalNode)

    def protocolOf(self, signalNode: Any) -> dict[str, Any] | None:
        """Return the protocol that an acquisition carries, as the keys of a ``protocol.json``; None without one.

        Raises:
            ValueError: What it carries is no JSON.
        """
        return carried_protocol(signalNode)

    def offsetsOf(self, signalNode: Any) -> list[float] | None:
        """Return the offsets in ppm that are the index of an acquisition; None where its index is something else."""
        return offsets_of_index(signalNode)

    def setProtocol(self, signalNode: Any, protocol: Any) -> None:
        """Let an acquisition carry a protocol, which is saved with the scene and used where none is given.

        Args:
            signalNode: Sequence node.
            protocol: Path, dictionary or ``Protocol``.

        Raises:
            ValueError: The protocol cannot be used, or is that of another number of measurements.
        """
        carry_protocol(signalNode, protocol)
