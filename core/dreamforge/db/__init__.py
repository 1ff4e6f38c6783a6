"""The system of record: ``tables``, one module of statements for each group of tables, and ``engine``.

Statement modules return SQLAlchemy statements and never run them: the API runs them on an async connection, the
worker on a plain one, and one statement means the same in both. (``events.copy_rows`` runs: COPY is no statement.)
"""
