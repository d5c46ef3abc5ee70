"""LeRobot datasets: the meta folder, actions, rows.

Imports what `sources` imports, and its logs, tables and declarations. Knows no Minecraft.
"""
