"""Audio from its URI to a Tagging: fetched from where settings allow, and heard in sandboxed processes."""
