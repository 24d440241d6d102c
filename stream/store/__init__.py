"""Redis: clients and atomic writes; repeating a write changes nothing, and older data never replaces newer."""
