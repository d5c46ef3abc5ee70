"""Minecraft itself, through MineRL and MineStudio, behind the action space of `data.minecraft`."""
