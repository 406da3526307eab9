"""VTK's warnings and errors, which go to standard error past Python."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator


@contextlib.contextmanager
def quiet_vtk() -> Iterator[None]:
    """Silence VTK's warnings and errors while the block runs; the caller reports failures in its own words."""
    import vtk

    shown = vtk.vtkObject.GetGlobalWarningDisplay()
    vtk.vtkObject.GlobalWarningDisplayOff()
    try:
        yield
    finally:
        vtk.vtkObject.SetGlobalWarningDisplay(shown)
