"""The small acquisition on which the tests work."""

import os

from NeuroCESTLib.panel.self_test import PanelTest


class SampleTest(PanelTest):
    """What the tests of all pages share."""

    MODULE = "CESTQuant"

    def addSampleNodes(self):
        """Add a small acquisition: 256 voxels, lines of water and amide, M0 of 1000."""
        import numpy as np

        from NeuroCESTLib.scene.geometry import Geometry
        from NeuroCESTLib.scene.sequences import array_to_sequence
        from NeuroCESTLib.scene.volumes import add_volume

        offsets = np.linspace(-5.0, 5.0, 21)
        spectrum = 1.0 - 0.9 / (1 + (offsets / 0.7) ** 2) - 0.06 / (1 + ((offsets - 3.5) / 0.5) ** 2)
        self.offsets, self.spectrum = offsets, spectrum
        self.expectedAsymmetry = spectrum[offsets == -3.5][0] - spectrum[offsets == 3.5][0]
        geometry = Geometry.from_spacing((4, 8, 8), (2.0, 2.0, 5.0))
        signal = 1000.0 * np.tile(spectrum[:, None, None, None], (1, *geometry.shape)).astype(np.float32)
        self.signal = array_to_sequence(signal, geometry, "cest", offsets.tolist())
        self.reference = add_volume(np.full(geometry.shape, 1000.0, np.float32), geometry, "m0")
        self.protocolPath = self.writeOffsets("offsets.txt", offsets)

    def writeOffsets(self, name, offsets):
        path = os.path.join(self.directory, name)
        with open(path, "w") as file:
            file.writelines(f"{offset:g}\n" for offset in offsets)
        return path

    def chooseInputs(self, method="mtrasym"):
        """Choose what a user chooses before Apply."""
        self.ui.signalSelector.setCurrentNode(self.signal)
        self.ui.referenceSelector.setCurrentNode(self.reference)
        self.ui.protocolPathLineEdit.currentPath = self.protocolPath
        self.ui.methodComboBox.currentIndex = self.ui.methodComboBox.findData(method)

    def trainNetwork(self):
        """Train a small network for 21 offsets at 7 T, in seconds; return the paths of network and protocol."""
        import json

        from CESTQuantLib.formats.protocol_json import protocol_to_dict
        from CESTQuantLib.networks.config import config_from_dict
        from CESTQuantLib.networks.files import save_network
        from CESTQuantLib.networks.fixed_protocol import train_from_config

        pool = {"name": "amide", "T1_s": 1.0, "T2_s": 0.05, "dw_ppm": 3.5, "k_Hz": 100.0}
        config = config_from_dict(
            {
                "protocol": {
                    "field_strength_T": 7.0,
                    "offsets_ppm": [-5.0 + 0.5 * i for i in range(21)],
                    "b1_uT": 1.0,
                    "saturation_time_s": 2.0,
                },
                "tissue": {
                    "water": {"T1_s": {"uniform": [1.0, 2.0]}, "T2_s": 0.05},
                    "solutes": [{**pool, "fraction": {"uniform": [0.0005, 0.003]}}],
                },
                "targets": ["amide.fraction"],
                "samples": 1000,
                "epochs": 3,
                "network": {"width": 32},
            }
        )
        network = os.path.join(self.directory, "network.pt")
        save_network(train_from_config(config)[0], network)
        protocol = os.path.join(self.directory, "protocol.json")
        with open(protocol, "w") as file:
            json.dump(protocol_to_dict(config.protocol), file)
        return network, protocol
