"""Files as users have them: folders, archives and LMDBs of images, and tables."""
