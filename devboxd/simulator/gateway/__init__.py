"""The message gateway between the websockets of clients and the agents of boxes."""
