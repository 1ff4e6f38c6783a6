"""Where image bytes live: one port (``base``), two stores (``filesystem``, ``s3``)."""
