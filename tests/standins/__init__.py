"""Other people's systems, played by real servers: what our code meets over a real socket."""
