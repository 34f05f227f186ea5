"""From an archive on disk to arrays and tables: the rooms of pixels, files and patients. Knows no network."""
