"""The game's own settings, as lines of minetest.conf."""

from collections.abc import Mapping

KEYS: Mapping[str, str] = {
    "forward": "KEY_KEY_W",
    "backward": "KEY_KEY_S",
    "left": "KEY_KEY_A",
    "right": "KEY_KEY_D",
    "jump": "KEY_SPACE",
    "sneak": "KEY_LSHIFT",
    "aux1": "KEY_LCONTROL",
    "drop": "KEY_KEY_Q",
    "inventory": "KEY_KEY_E",
    **{f"slot{number}": f"KEY_KEY_{number}" for number in range(1, 10)},
}
"""The game's controls -> its names of Minecraft's keys."""
OFF = (
    *("chat", "cmd", "cmd_local", "console", "freemove", "pitchmove", "fastmove", "noclip", "rangeselect"),
    *("autoforward", "cinematic", "minimap", "screenshot", "toggle_hud", "toggle_chat", "toggle_fog"),
    *(
        "toggle_update_camera",
        "toggle_debug",
        "toggle_profiler",
        "camera_mode",
        "zoom",
        "toggle_block_bounds",
    ),
    *("increase_viewing_range_min", "decrease_viewing_range_min", "quicktune_prev", "quicktune_next"),
    *("hotbar_next", "hotbar_previous", "mute", "increase_volume", "decrease_volume"),
)
"""Controls that no key reaches."""


def conf(size: tuple[int, int], viewing_range: int, map_seed: int, sensitivity: float) -> str:
    """The file's content, for frames of (height, width) and a view of `viewing_range` nodes."""
    height, width = size
    settings: dict[str, object] = {
        "screen_w": width,
        "screen_h": height,
        # As many frames as are asked for: the lock step paces the game.
        "fps_max": 1_000_000,
        "fps_max_unfocused": 1_000_000,
        "vsync": False,
        "viewing_range": viewing_range,
        "mouse_sensitivity": sensitivity,
        # One software core draws: what costs much and shows little is off.
        "enable_shaders": False,
        "enable_clouds": False,
        "enable_particles": False,
        "enable_sound": False,
        "view_bobbing_amount": 0,
        "enable_client_modding": False,
        "show_debug": False,
        "hud_scaling": 0.7,
        "pause_on_lost_focus": False,
        "mg_name": "v7",
        "fixed_map_seed": map_seed,
        "enable_damage": True,
        "creative_mode": False,
        "time_speed": 72,
        "num_emerge_threads": 1,
        "max_block_send_distance": -(-viewing_range // 16) + 1,
        "max_block_generate_distance": -(-viewing_range // 16) + 1,
        "max_simultaneous_block_sends_per_client": 128,
        "full_block_send_enable_min_time_from_building": 0,
        "active_block_range": 2,
        "give_initial_stuff": False,
        "enable_weather": False,
        "server_announce": False,
        "bind_address": "127.0.0.1",
        "debug_log_level": "error",
        "chat_log_level": "",
        # Where the player is and looks is told in every step.
        "dedicated_server_step": 0.04,
        **{f"keymap_{control}": key for control, key in KEYS.items()},
        **{f"keymap_{control}": "" for control in OFF},
    }
    return "".join(f"{name} = {_text(value)}\n" for name, value in settings.items())


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
