"""What the self-test of CESTQuant does, page by page; the module file puts the pages together."""

from .compartments import CompartmentsTest
from .fields import FieldsTest
from .importer import ImporterTest
from .inputs import InputsTest
from .maps import MapsTest
from .pools import PoolsTest
from .preparation import PreparationTest
from .protocol import ProtocolTest
from .spectrum import SpectrumTest
from .training import TrainingTest

__all__ = [
    "CompartmentsTest",
    "FieldsTest",
    "ImporterTest",
    "InputsTest",
    "MapsTest",
    "PoolsTest",
    "PreparationTest",
    "ProtocolTest",
    "SpectrumTest",
    "TrainingTest",
]
