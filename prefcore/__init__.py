"""Learning from human preferences: four core rooms (data, engine, scoring, lab) and a room for every method."""
