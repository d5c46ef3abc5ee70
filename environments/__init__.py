"""Real games behind one small Gymnasium interface, with scripted and random players."""
