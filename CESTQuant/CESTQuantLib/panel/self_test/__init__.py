"""What the self-test of CESTQuant does, page by page; the module file puts the pages together."""

from .fields import FieldsTest
from .inputs import InputsTest
from .maps import MapsTest
from .pools import PoolsTest
from .protocol import ProtocolTest
from .spectrum import SpectrumTest

__all__ = ["FieldsTest", "InputsTest", "MapsTest", "PoolsTest", "ProtocolTest", "SpectrumTest"]
