"""Frames out of video files and into them: decoding, encoding, resizing.

Imports only data's own files. Knows no logs and no shards.
"""
