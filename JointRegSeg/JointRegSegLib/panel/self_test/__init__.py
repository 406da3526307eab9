"""What the self-test of JointRegSeg does, page by page; the module file puts the pages together."""

from .compare import CompareTest
from .inputs import InputsTest
from .prediction import PredictionTest
from .runs import RunsTest
from .training import TrainingTest

__all__ = ["CompareTest", "InputsTest", "PredictionTest", "RunsTest", "TrainingTest"]
