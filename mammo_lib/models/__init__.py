"""Networks and their initial weights; knows no file of the archive, no training and no result."""
