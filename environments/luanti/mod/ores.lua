-- Ores about where Minecraft has them: iron right below the ground, diamonds at the depth of an hour's episode. The
-- game's own begin at -128 and -1024.

local function scatter(ore, scarcity, number, highest, lowest)
	minetest.register_ore({
		ore_type = "scatter",
		ore = ore,
		wherein = "default:stone",
		clust_scarcity = scarcity ^ 3,
		clust_num_ores = number,
		clust_size = 3,
		y_max = highest,
		y_min = lowest,
	})
end

scatter("default:stone_with_iron", 7, 5, 8, -127)
scatter("default:stone_with_diamond", 15, 4, -48, -1023)
