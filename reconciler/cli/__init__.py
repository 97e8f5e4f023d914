"""The command line: the only exit codes and the only words for people."""
