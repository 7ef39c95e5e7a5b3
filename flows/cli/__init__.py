"""The command line `vidloop`: `app` has the program and its exit codes, the other files its commands."""
