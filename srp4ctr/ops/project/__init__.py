"""``srp4ctr settings init``: the files with which a project of one's own begins."""
