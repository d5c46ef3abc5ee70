"""A person inside the world model: controls, recording, checklist and the page in the browser."""
