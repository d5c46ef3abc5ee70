-- Counts what players do, by the kinds of Minecraft's statistics and the names of this game's items.

local function count(kind, item, number)
	table.insert(reverie.counts, { kind, item, number or 1 })
end

local function is_player(thing)
	return thing and thing:is_player()
end

minetest.register_on_dignode(function(pos, node, digger)
	if not is_player(digger) then
		return
	end
	count("mine_block", node.name)
	local tool = digger:get_wielded_item():get_name()
	if minetest.registered_tools[tool] then
		count("use_item", tool)
	end
end)

minetest.register_on_placenode(function(pos, node, placer)
	if is_player(placer) then
		count("use_item", node.name)
	end
end)

minetest.register_on_craft(function(stack, player)
	count("craft_item", stack:get_name(), stack:get_count())
end)

minetest.register_on_item_eat(function(change, replacement, stack, user)
	if is_player(user) then
		count("use_item", stack:get_name())
	end
end)

-- What is dug goes straight into the inventory, so that is where it is picked up.
local handle_node_drops = minetest.handle_node_drops
function minetest.handle_node_drops(pos, drops, digger)
	if is_player(digger) then
		for _, drop in ipairs(drops) do
			local stack = ItemStack(drop)
			count("pickup", stack:get_name(), stack:get_count())
		end
	end
	return handle_node_drops(pos, drops, digger)
end

local item = minetest.registered_entities["__builtin:item"]
local on_punch = item.on_punch
function item:on_punch(puncher, ...)
	local stack = ItemStack(self.itemstring)
	if is_player(puncher) and not stack:is_empty() then
		count("pickup", stack:get_name(), stack:get_count())
	end
	return on_punch(self, puncher, ...)
end

local item_drop = minetest.item_drop
function minetest.item_drop(stack, dropper, pos)
	if is_player(dropper) then
		count("drop", stack:get_name(), stack:get_count())
	end
	return item_drop(stack, dropper, pos)
end

-- A client opens a furnace by itself, but tells the server when the furnace listens to clicks.
local FURNACES = { "default:furnace", "default:furnace_active" }
for _, name in ipairs(FURNACES) do
	local take = minetest.registered_nodes[name].on_metadata_inventory_take
	minetest.override_item(name, {
		on_rightclick = function(pos, node, clicker, stack)
			count("custom", "interact_with_furnace")
			return stack
		end,
		on_metadata_inventory_take = function(pos, list, index, stack, player)
			if list == "dst" then
				count("craft_item", stack:get_name(), stack:get_count())
			end
			if take then -- a furnace that burns has none
				return take(pos, list, index, stack, player)
			end
		end,
	})
end

-- Death is told, and does not happen: the other end starts another episode instead of a screen of death.
minetest.register_on_player_hpchange(function(player, change, reason)
	if change >= 0 then
		return change
	end
	count("custom", "damage_taken", -change)
	if player:get_hp() + change > 0 then
		return change
	end
	count("custom", "deaths")
	return 1 - player:get_hp()
end, true)
