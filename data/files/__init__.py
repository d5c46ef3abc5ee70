"""Bytes, wherever they lie: durable writing, places and URLs, copies from afar.

Imports only data's own files. Knows no format.
"""
