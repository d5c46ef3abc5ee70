-- Sprinting, which the game lacks: the key "aux1" makes walking faster, as in Minecraft.

local SPRINT, WALK = 1.3, 1.0
local speed = WALK

return function(player)
	local control = player:get_player_control()
	local wanted = control.aux1 and control.up and not control.sneak and SPRINT or WALK
	if wanted ~= speed then
		speed = wanted
		player:set_physics_override({ speed = speed })
	end
end
