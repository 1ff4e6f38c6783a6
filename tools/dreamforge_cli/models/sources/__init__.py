"""Where models come from. A source only resolves; the bytes are the fetcher's."""
