"""What accounting costs: CPU a finished request, memory, and a scrape of its metrics."""
