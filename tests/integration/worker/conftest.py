"""A control loop for those who test one."""

import pytest
from sqlalchemy import Engine

from tests.integration.worker.control_kit import Harness


@pytest.fixture
def harness(engine: Engine) -> Harness:
    with engine.begin() as connection:
        connection.exec_driver_sql("TRUNCATE jobs CASCADE")
    return Harness(engine)
