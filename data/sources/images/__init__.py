"""Folders of pictures that follow each other, and files of moving pictures that are no video.

Imports what `sources` imports, and its logs and declarations. Knows no arrays.
"""
