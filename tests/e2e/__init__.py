"""The whole system as its users meet it: `dreamforge up`, curl, HTTP, the command line; nothing is stood in for."""
