"""Using trained networks: pictures and clips in and out, and files of networks that run elsewhere."""
