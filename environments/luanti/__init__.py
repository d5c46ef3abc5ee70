"""Luanti (Minetest) with minetest_game: a world like Minecraft's, played by keys and mouse from pixels in lock step."""
