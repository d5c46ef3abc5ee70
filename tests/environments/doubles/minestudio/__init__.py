"""NOT MineStudio: a double of the parts that `environments.minecraft.minestudio` uses, see `minecraft_double`."""
