"""Crafter (Danijar Hafner): the game and a scripted player that climbs its whole tech tree."""
