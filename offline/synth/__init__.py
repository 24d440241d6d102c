"""Made-up music and a made-up music platform, free to ship."""
