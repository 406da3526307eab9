"""What the self-test of CESTQuant does, page by page; the module file puts the pages together."""

from .compartments import CompartmentsTest
from .fields import FieldsTest
from .inputs import InputsTest
from .maps import MapsTest
from .pools import PoolsTest
from .protocol import ProtocolTest
from .spectrum import SpectrumTest
from .training import TrainingTest

__all__ = [
    "CompartmentsTest",
    "FieldsTest",
    "InputsTest",
    "MapsTest",
    "PoolsTest",
    "ProtocolTest",
    "SpectrumTest",
    "TrainingTest",
]
