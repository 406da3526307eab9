"""What the self-test of CESTQuant does, page by page; the module file puts the pages together."""

from .inputs import InputsTest
from .maps import MapsTest
from .pools import PoolsTest
from .protocol import ProtocolTest
from .spectrum import SpectrumTest

__all__ = ["InputsTest", "MapsTest", "PoolsTest", "ProtocolTest", "SpectrumTest"]
