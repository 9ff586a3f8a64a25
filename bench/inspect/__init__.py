"""What reading, weighing and editing a request costs, and how far its weight is from the real number of tokens."""
