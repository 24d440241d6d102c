"""The process around an agent: wait for the servers, load, run, drain; and its health."""
