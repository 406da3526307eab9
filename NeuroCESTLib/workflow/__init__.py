"""The whole way for many patients: a cohort's manifest, its workflow, and its results.

The modules are used as commands in processes of their own and through the files that they write.
"""
