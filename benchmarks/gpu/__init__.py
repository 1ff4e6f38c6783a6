"""What a GPU does with SDXL under our plans (rows H1-H10); ``README.md`` says how to run it and read it."""
