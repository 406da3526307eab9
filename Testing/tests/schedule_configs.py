"""A small schedule to optimise: an amine pool at 9.4 T, six measurements of which everything is trained."""

from __future__ import annotations

from typing import Any

from CESTQuantLib.schedules.limits import TRAINABLE

AMINE_TISSUE: dict[str, Any] = {
    "water": {"T1_s": {"uniform": [2.5, 3.3]}, "T2_s": {"uniform": [0.4, 1.2]}},
    "solutes": [
        {
            "name": "amine",
            "protons": 3,
            "dw_ppm": 3.0,
            "T1_s": 2.8,
            "T2_s": 0.04,
            "fraction": {"uniform": [0.00027, 0.0033]},
            "k_Hz": {"log_uniform": [100, 1500]},
        }
    ],
    "b0_shift_ppm": {"normal": [0, 0.1]},
    "b1_relative": {"normal": [1, 0.07]},
}
SCHEDULE_CONFIG: dict[str, Any] = {
    "protocol": {
        "field_strength_T": 9.4,
        "offsets_ppm": [2.5, 3.0, 3.5, 2.0, 4.0, 3.0],
        "b1_uT": [1, 2, 3, 4, 2, 0.5],
        "saturation_time_s": 1.2,
        "recovery_time_s": 0.5,
        "readout_flip_angle_deg": 60,
        "magnetisation_carried_over": True,
        "signal_normalisation": "l2",
    },
    "tissue": AMINE_TISSUE,
    "targets": ["amine.fraction", "amine.k_Hz"],
    "noise_sd": [0.002, 0.006],
    "samples": 640,
    "epochs": 3,
    "seed": 1,
    "network": {"width": 24},
    "trainable": list(TRAINABLE),
    "limits": {"b1_peak_uT": 6, "b1_rms_uT": 3, "total_time_s": 12},
    "crlb": {"steps": 20, "starts": 2, "first_steps": 10, "voxels": 64},
    "held_out": 500,
    "batch_size": 64,
}
