-- Starts an episode: the player stands, with nothing or with what was asked for, at a fresh place with trees.
--
-- The map is divided into cells. Which cell, and which place in it, depends on the command alone, and a cell is long
-- enough that a player of one rarely sees another. Where every leaf grows the game leaves to chance, so leaves decide
-- nothing here.

local CELL, CELLS_A_SIDE = 512, 100
local NEXT_CELL = 5003 -- a step through all cells, for those without a forest
local TRIES = 200 -- places looked at in a cell before another is taken
local CHUNK, FIRST, MIDDLE = 80, -32, 40 -- the map is made in cubes of 80 nodes, one of which begins at -32
local OFF_MIDDLE = 15 -- a place is so near the middle of its cube that REACH stays inside
local REACH = { aside = 24, below = 16, above = 20 } -- what is made around a place before it is judged
local FORESTS = { deciduous_forest = true, coniferous_forest = true, rainforest = true, taiga = true }
local ENOUGH_TREES = 20
local MORNING = 0.3

local function corner(cell)
	local half = CELLS_A_SIDE * CELL / 2
	return (cell % CELLS_A_SIDE) * CELL - half, math.floor(cell / CELLS_A_SIDE) * CELL - half
end

local function is_forest(place)
	local data = minetest.get_biome_data(place)
	return data and FORESTS[minetest.get_biome_name(data.biome)]
end

local function near_middle(value, random)
	local chunk = math.floor((value - FIRST) / CHUNK)
	return FIRST + chunk * CHUNK + MIDDLE + random:next(-OFF_MIDDLE, OFF_MIDDLE)
end

-- A place on dry land in a forest, about at the height of the ground; nil where the cell has none.
local function candidate(cell, random)
	local x0, z0 = corner(cell)
	for _ = 1, TRIES do
		local x = near_middle(x0 + random:next(CELL / 4, 3 * CELL / 4), random)
		local z = near_middle(z0 + random:next(CELL / 4, 3 * CELL / 4), random)
		local y = minetest.get_spawn_level(x, z)
		local place = y and vector.new(x, y, z)
		if place and is_forest(place) then
			return place
		end
	end
	return nil
end

local function around(place)
	return vector.offset(place, -REACH.aside, -REACH.below, -REACH.aside),
		vector.offset(place, REACH.aside, REACH.above, REACH.aside)
end

local function has_enough_trees(place)
	local low, high = around(place)
	return #minetest.find_nodes_in_area(low, high, { "group:tree" }) >= ENOUGH_TREES
end

local function is_ground(name)
	local definition = minetest.registered_nodes[name]
	return definition and definition.walkable and minetest.get_item_group(name, "leaves") == 0
end

-- Where the player stands: on the ground, which is no tree, with room that only leaves or plants have taken.
local function standing_room(place)
	for y = place.y + 4, place.y - 8, -1 do
		local name = minetest.get_node(vector.new(place.x, y, place.z)).name
		if minetest.get_item_group(name, "liquid") > 0 or minetest.get_item_group(name, "tree") > 0 then
			return nil
		end
		if is_ground(name) then
			return vector.new(place.x, y + 0.5, place.z)
		end
	end
	return nil
end

local function make_room(place)
	for above = 1, 2 do
		minetest.remove_node(vector.new(place.x, place.y - 0.5 + above, place.z))
	end
end

local function furnish(player, command)
	local inventory = player:get_inventory()
	for _, list in ipairs({ "main", "craft", "craftpreview", "craftresult" }) do
		inventory:set_list(list, {})
	end
	for _, item in ipairs(command.inventory) do
		inventory:add_item("main", item)
	end
end

local function begin(player, command, cell, place)
	minetest.close_formspec(player:get_player_name(), "")
	make_room(place)
	furnish(player, command)
	player:set_hp(player:get_properties().hp_max)
	player:set_breath(player:get_properties().breath_max)
	player:set_look_horizontal(0)
	player:set_look_vertical(0)
	player:set_pos(place)
	minetest.settings:set("time_speed", 0) -- until the command "clock"
	minetest.set_timeofday(MORNING)
	math.randomseed(command.seed)
	reverie.counts = {}
	reverie.reply = { cell = cell }
end

local function prepare(player, command, cell, random)
	local place = candidate(cell, random)
	if not place then
		local another = (cell + NEXT_CELL) % (CELLS_A_SIDE * CELLS_A_SIDE)
		minetest.after(0, prepare, player, command, another, random)
		return
	end
	local low, high = around(place)
	minetest.emerge_area(low, high, function(_, _, remaining)
		if remaining > 0 then
			return
		end
		local room = has_enough_trees(place) and standing_room(place)
		if room then
			begin(player, command, cell, room)
		else
			prepare(player, command, cell, random)
		end
	end)
end

return function(player, command)
	prepare(player, command, command.cell, PcgRandom(command.seed))
end
