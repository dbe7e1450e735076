"""Galleries from map tiles: pyramids of web-mercator tiles in folders or MBTiles, and rasters that are cut up."""
