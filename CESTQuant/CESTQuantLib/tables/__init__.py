"""Models and protocols as tables that can be edited in place: texts of single values, rows, columns and changes."""
