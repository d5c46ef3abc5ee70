"""MiniGrid (Farama): the game and its planner."""
