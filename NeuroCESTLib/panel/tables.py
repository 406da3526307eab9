"""Tables of a panel."""


def fitHeight(table):
    """Give a table the height of its rows and headings, and of its scroll bar where it has one, whatever it shows."""
    import qt

    table.setSizeAdjustPolicy(qt.QAbstractScrollArea.AdjustToContents)
    table.setSizePolicy(qt.QSizePolicy.Ignored, qt.QSizePolicy.Fixed)
