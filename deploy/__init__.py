"""How tastewave is run; the only code here is the local launcher."""
