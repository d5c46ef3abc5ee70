-- Starts an episode: the player stands, with nothing or with what was asked for, at a fresh place with trees.
--
-- The map is divided into cells. Which cell, and which place in it, depends on the command alone, and a cell is long
-- enough that a player of one rarely sees another.

local CELL, CELLS_A_SIDE = 512, 100
local REACH = { x = 40, below = 16, above = 32 } -- what is generated around a place before it is judged
local TREES, ENOUGH_TREES = { "default:tree", "default:jungletree", "default:pine_tree" }, 24
local MORNING = 0.3

local function corner(cell)
	local half = CELLS_A_SIDE * CELL / 2
	return (cell % CELLS_A_SIDE) * CELL - half, math.floor(cell / CELLS_A_SIDE) * CELL - half
end

-- The next place of the cell that might do, a position at the height of the ground.
local function candidate(command, random)
	local x0, z0 = corner(command.cell)
	for _ = 1, 1000 do
		local x = x0 + random:next(CELL / 4, 3 * CELL / 4)
		local z = z0 + random:next(CELL / 4, 3 * CELL / 4)
		local y = minetest.get_spawn_level(x, z)
		if y then
			return vector.new(x, y, z)
		end
	end
	return nil
end

local function around(place)
	return vector.new(place.x - REACH.x, place.y - REACH.below, place.z - REACH.x),
		vector.new(place.x + REACH.x, place.y + REACH.above, place.z + REACH.x)
end

local function has_enough_trees(place)
	local low, high = around(place)
	return #minetest.find_nodes_in_area(low, high, TREES) >= ENOUGH_TREES
end

-- The air above the highest ground at a place, which a tree may have taken.
local function standing_room(place)
	for y = place.y + 2, place.y - REACH.below, -1 do
		local below = minetest.registered_nodes[minetest.get_node(vector.new(place.x, y - 1, place.z)).name]
		local here = minetest.get_node(vector.new(place.x, y, place.z)).name
		local above = minetest.get_node(vector.new(place.x, y + 1, place.z)).name
		if here == "air" and above == "air" and below and below.walkable then
			return vector.new(place.x, y - 0.5, place.z)
		end
	end
	return nil
end

local function furnish(player, command)
	local inventory = player:get_inventory()
	for _, list in ipairs({ "main", "craft", "craftpreview", "craftresult" }) do
		local size = inventory:get_size(list)
		inventory:set_list(list, {})
		inventory:set_size(list, size)
	end
	for _, item in ipairs(command.inventory) do
		inventory:add_item("main", item)
	end
end

local function begin(player, command, place)
	minetest.close_formspec(player:get_player_name(), "")
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
	reverie.reply = { place = { place.x, place.y, place.z } }
end

local prepare

local function prepared(player, command, random, place)
	local room = has_enough_trees(place) and standing_room(place)
	if room then
		begin(player, command, room)
	else
		prepare(player, command, random)
	end
end

prepare = function(player, command, random)
	local place = candidate(command, random)
	if not place then
		reverie.reply = { failed = "no dry land in this part of the map" }
		return
	end
	local low, high = around(place)
	minetest.emerge_area(low, high, function(_, _, remaining)
		if remaining == 0 then
			prepared(player, command, random, place)
		end
	end)
end

return function(player, command)
	prepare(player, command, PcgRandom(command.seed))
end
