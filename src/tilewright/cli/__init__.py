"""The command line: `tw`. One file a sub-command; `main` lists them and loads the one that is asked for."""
