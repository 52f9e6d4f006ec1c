"""Every row of the fault matrix: the real daemon, the local server that counts what it bills, a real fault."""
