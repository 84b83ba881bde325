"""The options of conf/source/: each module lists what one kind of source holds."""
