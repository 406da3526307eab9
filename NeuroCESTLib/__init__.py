"""What the modules of NeuroCEST share; see the packages below it."""

from NeuroCESTLib.scene import host

__all__ = ["host"]
