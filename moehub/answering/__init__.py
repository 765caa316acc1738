"""Models that answer: loaded here, or behind an endpoint that speaks OpenAI's API, with the same two questions."""
