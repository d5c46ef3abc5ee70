"""A scripted player for Luanti: the mod tells it what lies around it, and it acts only through keys and mouse."""
