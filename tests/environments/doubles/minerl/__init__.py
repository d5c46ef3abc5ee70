"""NOT MineRL: a double of the parts that `environments.minecraft.minerl` uses, see `minecraft_double`."""
