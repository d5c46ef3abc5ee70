-- Tells a scripted player what lies around it: a box of nodes, one letter each.

local KINDS = {} -- content id -> letter
local NAMES = {
	["air"] = " ",
	["ignore"] = "?",
	["default:stone_with_coal"] = "C",
	["default:stone_with_iron"] = "I",
	["default:stone_with_diamond"] = "D",
	["default:furnace"] = "F",
	["default:furnace_active"] = "F",
}
local PLANTS = { { "tree", "T" }, { "leaves", "L" } }
local GROUND = { { "stone", "S" }, { "cracky", "H" }, { "falling_node", "G" }, { "crumbly", "E" } }

local function letter_of_group(name, groups)
	for _, entry in ipairs(groups) do
		if minetest.get_item_group(name, entry[1]) > 0 then
			return entry[2]
		end
	end
end

local function kind_of(name, definition)
	local known = NAMES[name] or letter_of_group(name, PLANTS)
	if known then
		return known
	end
	if definition.liquidtype ~= "none" then
		return minetest.get_item_group(name, "lava") > 0 and "X" or "W"
	end
	if not definition.walkable then
		return definition.pointable == false and " " or "."
	end
	return letter_of_group(name, GROUND) or "#"
end

minetest.register_on_mods_loaded(function()
	for name, definition in pairs(minetest.registered_nodes) do
		KINDS[minetest.get_content_id(name)] = kind_of(name, definition)
	end
end)

return function(player, command)
	local center = vector.round(player:get_pos())
	local low = vector.offset(center, -command.reach[1], -command.reach[2], -command.reach[3])
	local high = vector.offset(center, command.reach[1], command.reach[2], command.reach[3])
	local manip = minetest.get_voxel_manip()
	local least, most = manip:read_from_map(low, high)
	local area = VoxelArea:new({ MinEdge = least, MaxEdge = most })
	local data, letters = manip:get_data(), {}
	for index in area:iterp(low, high) do
		letters[#letters + 1] = KINDS[data[index]] or "?"
	end
	reverie.reply = { low = { low.x, low.y, low.z }, reach = command.reach, nodes = table.concat(letters) }
end
