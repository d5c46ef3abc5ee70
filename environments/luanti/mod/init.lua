-- Starts episodes and reports every step of the server as one line of JSON on the pipe `reverie/report` in the world's
-- folder. Commands come as the file `reverie/command`, an object of JSON whose `command` names one of `commands`.

local path = minetest.get_modpath("reverie")
local folder = minetest.get_worldpath() .. "/reverie/"
local player_name = "player"

reverie = {
	time = 0, -- seconds of game time since the server started
	counts = {}, -- what was counted since the last report: { kind, item, number }
	reply = nil, -- the answer to the last command
}

local commands = {
	reset = dofile(path .. "/episodes.lua"),
	look = dofile(path .. "/surroundings.lua"),
	clock = function(_, command)
		minetest.settings:set("time_speed", command.speed)
		minetest.set_timeofday(minetest.get_timeofday())
	end,
}
dofile(path .. "/counting.lua")
dofile(path .. "/ores.lua")
local movement = dofile(path .. "/movement.lua")

local report = assert(io.open(folder .. "report", "w"))
local shown_inventory = ""

local function read_command()
	local file = io.open(folder .. "command", "r")
	if not file then
		return nil
	end
	local content = file:read("*a")
	file:close()
	os.remove(folder .. "command")
	return minetest.parse_json(content)
end

local function rounded(vector)
	return {
		tonumber(string.format("%.3f", vector.x)),
		tonumber(string.format("%.3f", vector.y)),
		tonumber(string.format("%.3f", vector.z)),
	}
end

-- The player's 32 slots and the 9 of the crafting grid as { name, count }, only if they have changed.
local function changed_inventory(player)
	local slots = {}
	for _, list in ipairs({ "main", "craft" }) do
		for _, stack in ipairs(player:get_inventory():get_list(list)) do
			table.insert(slots, { stack:get_name(), stack:get_count() })
		end
	end
	local text = minetest.write_json(slots)
	if text == shown_inventory then
		return nil
	end
	shown_inventory = text
	return slots
end

local function state_of(player)
	return {
		position = rounded(player:get_pos()),
		velocity = rounded(player:get_velocity()),
		yaw = math.deg(player:get_look_horizontal()),
		pitch = math.deg(player:get_look_vertical()),
		health = player:get_hp(),
		slot = player:get_wield_index(),
		inventory = changed_inventory(player),
	}
end

local function send(state)
	state.time = reverie.time
	state.counts = #reverie.counts > 0 and reverie.counts or nil
	state.reply = reverie.reply
	reverie.counts, reverie.reply = {}, nil
	report:write(minetest.write_json(state), "\n")
	report:flush()
end

minetest.register_globalstep(function(dtime)
	reverie.time = reverie.time + dtime
	local player = minetest.get_player_by_name(player_name)
	if not player then
		send({})
		return
	end
	local command = read_command()
	if command then
		commands[command.command](player, command)
	end
	movement(player)
	send(state_of(player))
end)

minetest.send_join_message = function() end -- nothing but the game is on the screen
minetest.send_leave_message = function() end
minetest.get_server_status = function() end

minetest.register_on_joinplayer(function(player)
	player:hud_set_flags({ minimap = false, basic_debug = false })
end)
