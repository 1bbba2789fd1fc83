"""The command line: one file a verb, each with `arguments(parser)` and `run(arguments)`; torch comes only when a verb needs it."""
