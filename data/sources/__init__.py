"""Everything that becomes shards: videos, logs, recorded episodes; VPT and LeRobot in rooms of their own.

Imports files, video, shards; `corpus` and `staging` also the inner rooms, which import the rest. Knows no loader.
"""
