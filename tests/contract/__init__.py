"""What two parts promise each other, held by one suite per promise."""
