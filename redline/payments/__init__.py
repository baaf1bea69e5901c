"""Card payments and transfers of people: simulated, scored against a profile of each user."""
