"""Minecraft as OpenAI's VPT contractors recorded it: actions, tasks, dimensions, segments.

Imports what `sources` imports, and its logs and episodes. Knows no LeRobot.
"""
