"""The program: command line, settings and assembly."""
