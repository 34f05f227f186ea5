"""One training, and the matrix of them; gets arrays and networks as arguments, knows no archive, no architecture."""
