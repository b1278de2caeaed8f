"""The wing that connects: sessions, terminals, commands, ports, forwards and ssh."""
