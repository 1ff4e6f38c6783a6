"""``make revision M="what it does"``: a new migration, filled with the difference between tables and database.

Needs ``DF_DATABASE_URL`` at head. Read the result before committing it: alembic sees no renames and no data.
"""

import sys

from alembic import command

from dreamforge import settings
from dreamforge.errors import ConfigurationError
from dreamforge_api import migrate


def next_revision(head: str) -> str:
    """Revisions are counted: 0001, 0002, ..."""
    return f"{int(head) + 1:0{len(head)}d}"


def main(arguments: list[str]) -> int:
    message = " ".join(arguments).strip()
    if not message:
        print('say what it does: make revision M="jobs: remember the client"', file=sys.stderr)
        return 2
    try:
        given = settings.load(migrate.MigrateSettings)
    except ConfigurationError as error:
        print(error, file=sys.stderr)
        return 2
    number = next_revision(migrate.head())
    made = migrate.config(given.database_url)
    made.set_main_option("file_template", "%%(rev)s_%%(slug)s")
    command.revision(made, message, autogenerate=True, rev_id=number)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
