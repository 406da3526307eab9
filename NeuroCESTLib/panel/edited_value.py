"""A value that a page lets the user edit in place, kept with the parameters of the panel and so with the scene."""

import json
from typing import Any

import slicer
from slicer.i18n import tr as _


class EditedValue:
    """JSON value in a text parameter, and the source that it was edited from.

    The parameter is empty as long as nothing was edited. What was edited is given up when another source, such as
    another file, is chosen.

    Args:
        name: Name of the text parameter.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._attribute, self._role = f"{name}EditedFrom", f"{name}EditedFor"

    def get(self, parameters: Any) -> Any:
        """Return the edited value; None where nothing was edited.

        Raises:
            ValueError: The scene holds something else.
        """
        text = getattr(parameters, self.name)
        try:
            return json.loads(text) if text else None
        except ValueError:
            raise ValueError(_("The scene holds damaged values: choose a file or preset again.")) from None

    def keep(self, parameters: Any, value: Any, source: str, node: Any = None) -> None:
        """Keep an edited value.

        Args:
            parameters: Parameter node of the panel.
            value: Value for JSON.
            source: What was chosen when it was edited, such as the path of a file.
            node: Node that was chosen when it was edited, whatever it is called later.
        """
        with slicer.util.NodeModify(parameters.parameterNode):
            parameters.parameterNode.SetAttribute(self._attribute, source)
            parameters.parameterNode.SetNodeReferenceID(self._role, node.GetID() if node else None)
            setattr(parameters, self.name, json.dumps(value))

    def given_up(self, parameters: Any, source: str, node: Any = None) -> bool:
        """Give the value up if another source has been chosen since; return whether that was so.

        Nothing is given up while a scene is loaded, in which the nodes that were chosen may still be missing.
        """
        if slicer.mrmlScene.IsBatchProcessing():
            return False
        stored = parameters.parameterNode
        start = stored.GetAttribute(self._attribute)
        if not getattr(parameters, self.name) or start is None:
            return False
        if "\n" in start:  # scenes of earlier versions name the node in front of the source
            same = start == f"{node.GetName() if node else ''}\n{source}"
        else:
            same = start == source and stored.GetNodeReference(self._role) is (node or None)
        if same:
            return False
        setattr(parameters, self.name, "")
        return True
