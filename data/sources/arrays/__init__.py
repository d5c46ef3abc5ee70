"""Episodes that lie in arrays: HDF5 of any layout, Minari datasets, npz episodes.

Imports what `sources` imports, and its logs, tables and declarations. Knows no videos.
"""
